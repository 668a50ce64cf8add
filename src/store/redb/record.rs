//! Keys and values of the tables: JSON documents and the keys that operations are listed by.

use chrono::DateTime;
use serde::{Serialize, de::DeserializeOwned};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{OperationId, OperationKey};

/// Creation time (seconds and nanoseconds since 1970) and id.
pub(super) type AgeKey = (i64, u32, u128);

pub(super) fn age_of(key: OperationKey) -> AgeKey {
    let time = key.created_time.to_utc();
    (time.timestamp(), time.timestamp_subsec_nanos(), key.id.as_u128())
}

pub(super) fn key_of((seconds, nanoseconds, id): AgeKey) -> Result<OperationKey> {
    let created_time = DateTime::from_timestamp(seconds, nanoseconds)
        .ok_or_else(damaged)?
        .try_into()
        .map_err(|_| damaged())?;
    Ok(OperationKey { created_time, id: OperationId::from_u128(id) })
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|cause| {
        Error::new(ErrorKind::Internal, "the operation cannot be encoded as JSON").with_source(cause)
    })
}

pub(super) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    // serde_json's message could quote the document, for example a path in a cursor.
    serde_json::from_slice(json)
        .map_err(|cause| damaged().with_source(InvalidJson { line: cause.line(), column: cause.column() }))
}

/// The position of an error in a stored document.
#[derive(Debug, thiserror::Error)]
#[error("invalid document at line {line}, column {column}")]
struct InvalidJson {
    line: usize,
    column: usize,
}

pub(super) fn damaged() -> Error {
    Error::new(ErrorKind::Unreadable, "the state file is damaged")
}
