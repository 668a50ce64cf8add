//! Stored records: specs and checkpoints as JSON.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, ErrorKind, InvalidJson, Result};
use crate::model::RecordFormat;

pub(super) fn encode(record: &impl Serialize) -> Result<String> {
    serde_json::to_string(record).map_err(|cause| {
        Error::new(ErrorKind::Internal, "the operation cannot be encoded as JSON").with_source(cause)
    })
}

/// Decodes a record.
///
/// # Errors
/// [`ErrorKind::Unsupported`] for a record of a later format, [`ErrorKind::Unreadable`] for a damaged one.
pub(super) fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    #[derive(Deserialize)]
    struct Header {
        #[serde(default)]
        format: u64,
    }
    serde_json::from_slice(json).map_err(|cause| match serde_json::from_slice(json) {
        Ok(Header { format }) if format > RecordFormat::CURRENT => {
            let message =
                format!("the stored operation has format {format}, which a later version has written");
            Error::new(ErrorKind::Unsupported, message)
        }
        _ => Error::new(ErrorKind::Unreadable, "the stored operation is damaged")
            .with_source(InvalidJson::from(cause)),
    })
}
