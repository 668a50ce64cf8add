//! [`store_error`]: from an error of a store to one of this crate.

use ::object_store::Error as StoreError;

use crate::error::{Error, ErrorKind};
use crate::object_store_error::sanitized;

/// Converts an error of the store, without its text.
pub(super) fn store_error(cause: StoreError) -> Error {
    sanitized(&cause, |kind| match kind {
        ErrorKind::NotFound => "the destination does not exist",
        ErrorKind::Unauthorized => "the destination refuses the credential",
        ErrorKind::Conflict => "the destination's state does not allow the request",
        ErrorKind::Unsupported => "the destination does not support the request",
        ErrorKind::Invalid => "the destination refuses the request",
        ErrorKind::Internal => "an internal task of the object store failed",
        ErrorKind::Throttled => "the destination asks for fewer requests",
        _ => "the destination failed or does not respond",
    })
}
