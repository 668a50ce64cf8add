//! Bulk export of DICOM studies, series and instances to blob storage, as a long-running operation that a server
//! embeds.
//!
//! A DICOM server holds studies; somebody wants some of them, or all, as plain `.dcm` files in a cloud container. This
//! crate is the part between: the model of the published export API, and an engine that streams instances from a
//! server's storage to a container, counts exactly, survives crashes and throttling, and holds no more memory than it
//! was given.
//!
//! # In one page
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
//! use dicom_export::{ExportEngine, ExportRequest, MemorySink, MemorySource, OperationStatus};
//!
//! // The server's storage. A real server implements `InstanceSource` over its own.
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
//! assert_eq!((ended.results.exported, ended.results.skipped), (1, 1)); // nothing lies under 9.9.9
//! # Ok(()) }
//! ```
//!
//! # The parts
//!
//! - [`ExportRequest`], [`Operation`], [`ErrorLogEntry`]: the wire form, read leniently where published clients differ and
//!   refused strictly where a guess would export the wrong data.
//! - [`InstanceSource`]: what a server implements, to have its instances listed and opened. See [`source`].
//! - [`BlobSink`] and [`SinkProvider`]: where instances go, and how a request's settings become such a place. See [`sink`].
//! - [`ExportEngine`]: starts, runs, cancels and resumes operations. See [`engine`].
//! - [`OperationStore`](store::OperationStore) and [`SecretStore`](store::SecretStore): what is kept of operations. See
//!   [`store`].
//!
//! # Guarantees
//!
//! 1. A blob under `results/` is the whole instance, byte for byte as the source gave it, or is not there.
//! 2. `completed` means: every listed instance is in the container or named in `errors.log`, and exported + skipped =
//!    instances listed + list failures + identifiers that matched nothing.
//! 3. Trouble at the destination is never a skip. It is retried within a budget, then the operation fails and can be
//!    resumed, with new credentials too.
//! 4. After a crash at any moment, resuming repeats at most the batches under way; the counts are exact. Lines of
//!    `errors.log` may be repeated.
//! 5. Peak memory is set by the byte budget, whatever the number and the size of the instances.
//! 6. Secrets (SAS, keys, tokens) are in no log, no `Debug`, no error, no status, no stored spec or checkpoint. Patient
//!    data is in no log.
//! 7. The server's own identity is sent to no host that the policy does not list, over https only, and follows no
//!    redirect.
//! 8. Dropping a future or shutting down never commits a partial blob.
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
//! | `http` | | `http`: the API as an axum router, its OpenAPI document |
//! | `redb` | | `RedbOperationStore`: operations in one durable file |
//! | `restate` | | `restate`: the same export over many workers, on a Restate server |
//! | `testing` | | `testing`: conformance suites for the traits, faults on a seed, and DICOM fixtures |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
// Examples, tests and benches may stop where a library must not.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)]

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
mod pipeline;
#[cfg(feature = "restate")]
pub mod restate;
mod secret;
mod service;
pub mod sink;
pub mod source;
pub mod store;
#[allow(dead_code)]
mod sync;
#[cfg(feature = "testing")]
pub mod testing;

#[cfg(feature = "dicom")]
pub use dicom_object;
#[cfg(feature = "object_store")]
pub use object_store;

pub use self::content::Content;
pub use self::engine::{ExportEngine, ExportEngineBuilder};
pub use self::error::{Error, ErrorKind, Result};
pub use self::limits::{Concurrency, RetryPolicy, UploadContext};
pub use self::model::{
    BlobPath, DicomIdentifier, ErrorLogEntry, ExportDestination, ExportRequest, ExportResults, ExportSource,
    Identifiers, InstanceIdentifier, ManifestEntry, Operation, OperationContext, OperationId, OperationIssue,
    OperationSpec, OperationStatus, OperationType, StoredDestination, Timestamp, Uid,
};
#[cfg(feature = "dicom")]
pub use self::pipeline::IdentityCheck;
pub use self::pipeline::{BatchDone, Checksums, ExportConfig, ExportObserver, Progress};
pub use self::secret::Secret;
pub use self::service::{ExportService, NewOperation, OperationRecord, Target};
#[cfg(feature = "fs")]
pub use self::sink::DirectorySink;
#[cfg(feature = "object_store")]
pub use self::sink::ObjectStoreSink;
pub use self::sink::{BlobSink, MemorySink, SinkProvider};
#[cfg(feature = "dicomweb")]
pub use self::source::DicomWebSource;
#[cfg(feature = "fs")]
pub use self::source::DirectorySource;
#[cfg(feature = "object_store")]
pub use self::source::ObjectStoreSource;
pub use self::source::{InstanceSource, MemorySource, SourceProvider};
