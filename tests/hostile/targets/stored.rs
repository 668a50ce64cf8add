//! What is stored of operations, as JSON: a damaged or foreign record.

use std::fmt::Debug;

use dicom_export::source::{Instance, Page};
use dicom_export::store::Checkpoint;
use dicom_export::{ErrorLogEntry, Operation, OperationSpec, StoredDestination};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) fn run(input: &[u8]) {
    // Their settings may hold any numbers, of which serde_json keeps the last digits as they come.
    is_read_again::<Checkpoint>(input);
    is_read_again::<OperationSpec>(input);
    is_read_again::<StoredDestination>(input);
    comes_back::<Operation>(input);
    comes_back::<Instance>(input);
    comes_back::<Page>(input);
    comes_back::<ErrorLogEntry>(input);
}

fn is_read_again<T: Serialize + DeserializeOwned>(input: &[u8]) -> Option<(T, T)> {
    let value = serde_json::from_slice::<T>(input).ok()?;
    let written = serde_json::to_vec(&value).unwrap();
    Some((serde_json::from_slice(&written).unwrap(), value))
}

fn comes_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(input: &[u8]) {
    if let Some((again, value)) = is_read_again::<T>(input) {
        assert_eq!(again, value);
    }
}
