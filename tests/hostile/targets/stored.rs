//! Stored records as JSON: damaged, or of another version.

use std::fmt::Debug;

use dicom_export::source::{Instance, Page};
use dicom_export::store::Checkpoint;
use dicom_export::{ErrorLogEntry, Operation, OperationSpec, StoredDestination};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn run(input: &[u8]) {
    // Not compared: serde_json may change the last digits of floating-point numbers in settings.
    rereads::<Checkpoint>(input);
    rereads::<OperationSpec>(input);
    rereads::<StoredDestination>(input);
    round_trips::<Operation>(input);
    round_trips::<Instance>(input);
    round_trips::<Page>(input);
    round_trips::<ErrorLogEntry>(input);
}

fn rereads<T: Serialize + DeserializeOwned>(input: &[u8]) -> Option<(T, T)> {
    let value = serde_json::from_slice::<T>(input).ok()?;
    let written = serde_json::to_vec(&value).unwrap();
    Some((serde_json::from_slice(&written).unwrap(), value))
}

fn round_trips<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) {
    if let Some((again, value)) = rereads::<T>(input) {
        assert_eq!(again, value);
    }
}
