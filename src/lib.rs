//! Bulk export of DICOM studies, series and instances to blob storage, as a long-running operation that a server
//! embeds.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod engine;
mod error;
mod error_log;
mod flow;
#[cfg(feature = "http")]
pub mod http;
mod identifier;
mod json;
mod layout;
mod operation;
mod request;
pub mod sink;
pub mod source;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod timestamp;

pub use engine::{
    BatchDone, Concurrency, ExportEngine, ExportEngineBuilder, ExportObserver, ExportService, NewOperation,
    OperationRecord, Progress, Target,
};
pub use error::{Error, ErrorKind, Result};
pub use error_log::ErrorLogEntry;
pub use flow::{Retry, Upload};
pub use identifier::{DicomIdentifier, InstanceIdentifier, Uid};
pub use layout::BlobPath;
pub use operation::{
    ExportResults, Operation, OperationContext, OperationId, OperationNote, OperationSpec, OperationStatus,
    OperationType, StoredDestination,
};
pub use request::{ExportDestination, ExportRequest, ExportSource, Identifiers};
#[cfg(feature = "fs")]
pub use sink::DirectorySink;
pub use sink::{BlobSink, MemorySink, SinkProvider};
#[cfg(feature = "fs")]
pub use source::DirectorySource;
pub use source::{Content, InstanceSource, MemorySource, SourceProvider};
pub use timestamp::Timestamp;
