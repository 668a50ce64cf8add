//! Bulk export of DICOM studies, series and instances to blob storage, as a library for DICOM servers.
//!
//! A DICOM server stores studies, and its users need some or all of them as plain `.dcm` files in a cloud container. This
//! crate implements the published export API of Microsoft's DICOM service: the request, the long-running operation with a
//! status document, and `errors.log`. An engine streams instances from the server's storage to the container with bounded
//! memory, counts exactly, and resumes after crashes and outages.
//!
//! # Example
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
//! use dicom_export::{ExportEngine, ExportRequest, MemorySink, MemorySource, OperationStatus};
//!
//! // The server's storage. A server implements `InstanceSource` for its own.
//! let storage = MemorySource::new();
//! storage.insert("1.2.3/4.5/6.7".parse()?, &b"the bytes of a DICOM file"[..]);
//!
//! // In production: `.destination("azureblob", AzureBlobProvider::new(AzureBlobPolicy::new()))`.
//! let container = MemorySink::new();
//! let engine = ExportEngine::builder(storage).destination("azureblob", container.provider()).build()?;
//!
//! let request = ExportRequest::from_json(br#"{
//!     "source": { "type": "identifiers", "settings": { "values": ["1.2.3", "9.9.9"] } },
//!     "destination": { "type": "azureblob", "settings": { "blobContainerUri": "https://account.blob.core.windows.net/container" } }
//! }"#)?;
//! let operation = engine.start(request.into()).await?;
//! let ended = engine.wait(operation.operation_id).await?;
//!
//! assert_eq!(ended.status, OperationStatus::Completed);
//! assert_eq!((ended.results.exported, ended.results.skipped), (1, 1)); // 9.9.9 matches nothing
//! # Ok(()) }
//! ```
//!
//! # Concepts
//!
//! - [`ExportRequest`], [`Operation`], [`ErrorLogEntry`]: the wire format. Requests are parsed leniently where published
//!   clients differ, and rejected where a guess could export the wrong data.
//! - [`InstanceSource`]: lists and opens the server's instances. Implement it for your storage. See [`source`].
//! - [`BlobSink`] and [`SinkProvider`]: the destination, and how it is opened from a request's settings. See [`sink`].
//! - [`ExportEngine`]: starts, runs, cancels and resumes operations in this process.
//! - [`OperationStore`](store::OperationStore) and [`SecretStore`](store::SecretStore): the stored state of operations.
//!   See [`store`].
//!
//! # Guarantees
//!
//! 1. A blob under `results/` is the whole instance, byte for byte as the source returned it, or it does not exist.
//! 2. `completed` means that every listed instance is in the container or named in `errors.log`, and `exported` +
//!    `skipped` = instances listed + entries that could not be listed + identifiers that matched nothing.
//! 3. A destination failure never skips an instance. It is retried within a budget; then the operation fails and can be
//!    resumed, also with new credentials.
//! 4. After a crash at any moment, resuming repeats at most the batches in progress. Counts are exact, and no log line is
//!    lost. Lines are repeated only after a crash or a takeover.
//! 5. Peak memory is bounded by the memory budget plus a constant, regardless of instance count and size.
//! 6. Secrets appear in no log, `Debug` output, error, status document or stored state. Patient data appears in no log.
//! 7. The server's own identity is sent only to hosts that the policy lists, over https, and follows no redirect.
//! 8. Dropping a future, canceling and shutting down never commit a partial blob.
//! 9. An operation that has not ended is being run, or will be taken over without a person's help. A destination, source or
//!    tenant that is slow or does not respond does not hold up the others.
//!
//! # Features
//!
//! | feature | default | what it adds |
//! | --- | --- | --- |
//! | `azure` | yes | `sink::azure`: Azure Blob Storage as a destination |
//! | `fs` | yes | `DirectorySource`, `DirectorySink` |
//! | `object_store` | | `ObjectStoreSource`, `ObjectStoreSink`: any store of the `object_store` crate |
//! | `dicom` | | `Content::from_dicom_object`, `IdentityCheck` |
//! | `dicomweb` | | `DicomWebSource`: any DICOMweb server |
//! | `gcs` | | `sink::gcs`: Google Cloud Storage as a destination and a source |
//! | `http` | | `http`: the API as an axum router, its OpenAPI document |
//! | `redb` | | `RedbOperationStore`: operations in a durable file |
//! | `postgres` | | `PostgresOperationStore`, `PostgresSecretStore`: operations in a PostgreSQL database |
//! | `s3` | | `sink::s3`: Amazon S3 and compatible stores as destinations and sources |
//! | `restate` | | `restate`: exports over many workers, on a Restate server |
//! | `metrics` | | metrics of exports, for the recorder of the `metrics` crate |
//! | `testing` | | `testing`: conformance suites for the traits, fault injection, and DICOM fixtures |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
// Examples, tests and benches may panic; the library must not.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

#[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
mod cloud;
mod content;
#[cfg(doc)]
pub mod docs;
mod engine;
mod error;
#[cfg(feature = "http")]
pub mod http;
mod limits;
mod model;
#[cfg(feature = "object_store")]
mod object_store_error;
#[cfg(feature = "object_store")]
mod object_store_prefix;
mod pipeline;
#[cfg(feature = "restate")]
pub mod restate;
mod secret;
mod service;
pub mod sink;
pub mod source;
pub mod store;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "dicom")]
pub use dicom_object;
#[cfg(feature = "object_store")]
pub use object_store;
#[cfg(feature = "postgres")]
pub use sqlx;

pub use self::content::Content;
pub use self::engine::{ExportEngine, ExportEngineBuilder};
pub use self::error::{Error, ErrorKind, Result};
pub use self::limits::{Concurrency, RetryPolicy, Side, UploadContext};
pub use self::model::{
    BlobPath, DicomIdentifier, ErrorLogEntry, ExportDestination, ExportRequest, ExportResults, ExportSource,
    Identifiers, InstanceIdentifier, ManifestEntry, Operation, OperationContext, OperationId, OperationIssue,
    OperationSpec, OperationStatus, OperationType, StoredDestination, Timestamp, Uid,
};
#[cfg(feature = "dicom")]
pub use self::pipeline::IdentityCheck;
pub use self::pipeline::{
    BatchDone, Checksums, ExportConfig, ExportObserver, Progress, Resumption, SideFailing, SideRecovered,
};
pub use self::secret::Secret;
pub use self::service::{ExportService, NewOperation, OperationRecord, Target};
#[cfg(feature = "fs")]
pub use self::sink::DirectorySink;
#[cfg(feature = "object_store")]
pub use self::sink::ObjectStoreSink;
pub use self::sink::{BlobSink, DestinationType, MemorySink, SinkProvider};
#[cfg(feature = "dicomweb")]
pub use self::source::DicomWebSource;
#[cfg(feature = "fs")]
pub use self::source::DirectorySource;
#[cfg(feature = "object_store")]
pub use self::source::ObjectStoreSource;
pub use self::source::{InstanceSource, MemorySource, SourceProvider};
