//! The data that callers, sources, sinks and stores exchange. This module performs no I/O.

mod blob_path;
mod checkpoint;
mod error_log;
mod identifier;
mod identifiers;
pub(crate) mod json;
mod listing;
mod manifest;
mod operation;
mod record_format;
mod request;
mod request_reader;
mod spec;
mod timestamp;

pub use self::blob_path::BlobPath;
pub use self::checkpoint::{Checkpoint, Lease, Position, Totals};
pub use self::error_log::ErrorLogEntry;
pub use self::identifier::{DicomIdentifier, InstanceIdentifier, Uid};
pub use self::identifiers::Identifiers;
pub use self::listing::{Cursor, Instance, ListFailure, ListRequest, ListWarning, Locator, Page, Scope};
pub use self::manifest::ManifestEntry;
pub use self::operation::{
    ExportResults, Operation, OperationId, OperationIssue, OperationStatus, OperationType,
};
pub(crate) use self::record_format::RecordFormat;
#[cfg(feature = "http")]
pub(crate) use self::request::OperationUpdate;
pub use self::request::{ExportDestination, ExportRequest, ExportSource};
pub use self::spec::{OperationContext, OperationKey, OperationSpec, StoredDestination};
pub use self::timestamp::Timestamp;
