//! What a host's tests need: valid DICOM instances, conformance suites for its own sources, sinks and stores, and faults.
//!
//! The suites are async functions that panic with a message where an implementation breaks its trait's contract. Every
//! implementation in this crate passes them.
//!
//! # What becomes of an export when something fails
//! [`FaultySource`], [`FaultySink`], [`FaultyOperationStore`] and [`FaultySecretStore`] stand before a host's own, or
//! before those of this crate, and let calls fail as a [`FaultPlan`] says: with an error, after some time, with a content
//! that breaks off or repeats itself, with an answer that is lost although the work was done. The plan decides by its
//! seed, so a failing test fails again, and its pauses are Tokio's, so that under a paused clock ten minutes of trouble
//! take no time:
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use dicom_export::testing::{Call, FaultPlan, FaultySink, FaultySource, StreamFault, fixtures};
//! use dicom_export::{
//!     BlobSink, ErrorKind, ExportEngine, ExportSource, MemorySink, MemorySource, NewOperation, OperationStatus,
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> dicom_export::Result<()> {
//! // In a host's test, its own source.
//! let source = MemorySource::new();
//! for n in 0..100 {
//!     source.insert(fixtures::instance(1, 1, n), fixtures::ct_slice(1, 1, n));
//! }
//! let (reading, writing) = (FaultPlan::new(7), FaultPlan::new(8));
//! let source = FaultySource::new(source, reading.damages(0.05, [StreamFault::Unavailable, StreamFault::Stalls]));
//! let container = MemorySink::new();
//! let sink: Arc<dyn BlobSink> = Arc::new(FaultySink::new(
//!     container.clone(),
//!     writing
//!         .fails(Call::SINK, 0.1, [ErrorKind::Unavailable, ErrorKind::Throttled])
//!         .lost_responses(Call::SINK, 0.1)
//!         .latency(Duration::from_millis(200)),
//! ));
//!
//! let engine = ExportEngine::builder(source).build()?;
//! let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await?;
//! let ended = engine.wait(started.operation_id).await?;
//! assert_eq!(ended.status, OperationStatus::Completed);
//! assert_eq!((ended.results.exported, ended.results.skipped), (100, 0));
//! # Ok(()) }
//! ```
//!
//! [`GeneratedSource`] and [`NullSink`] are the cheapest source and sink there can be, for measuring the other side.

#![allow(clippy::future_not_send, reason = "a suite runs in its test's own task")]

mod faults;
pub mod fixtures;
mod generated;
mod null_sink;
mod sink;
mod source;
mod store;

pub use self::faults::{
    Call, FaultPlan, FaultyOperationStore, FaultySecretStore, FaultySink, FaultySource, StreamFault,
};
pub use self::generated::GeneratedSource;
pub use self::null_sink::NullSink;
pub use self::sink::{SinkTestOptions, sink_conformance};
pub use self::source::source_conformance;
pub use self::store::store_conformance;
