//! The errors of a store.

use ::object_store::Error as StoreError;

use crate::error::{Error, ErrorKind};
use crate::object_store_error::{SanitizedError, error_kind, sanitized};

/// Converts an error of a listing, without its text.
pub(super) fn list_error(cause: StoreError) -> Error {
    // `object_store` returns neither this key nor those after it.
    if let StoreError::InvalidPath { .. } = cause {
        let message = "the source contains a key with an empty segment, a dot segment or a control character";
        return Error::new(ErrorKind::Unsupported, message).with_source(SanitizedError::of(&cause));
    }
    match error_kind(&cause) {
        ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "the source's container does not exist")
            .with_source(SanitizedError::of(&cause)),
        _ => source_error(cause),
    }
}

/// Converts an error of the store, without its text.
pub(super) fn source_error(cause: StoreError) -> Error {
    sanitized(&cause, |kind| match kind {
        ErrorKind::NotFound => "the instance does not exist any more",
        ErrorKind::Unauthorized => "the source refuses the credential",
        ErrorKind::Conflict => "the instance has changed since it was listed",
        ErrorKind::Unsupported => "the source does not support the request",
        ErrorKind::Invalid => "the source refuses the request",
        ErrorKind::Internal => "a thread of the source's store panicked",
        ErrorKind::Throttled => "the source asks for fewer requests",
        _ => "the source failed or does not respond",
    })
}

/// Converts an error of reading an index, without its text.
pub(super) fn index_error(cause: StoreError) -> Error {
    match error_kind(&cause) {
        ErrorKind::NotFound => Error::new(ErrorKind::NotFound, "the source's index does not exist")
            .with_source(SanitizedError::of(&cause)),
        _ => source_error(cause),
    }
}
