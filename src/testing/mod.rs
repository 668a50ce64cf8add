//! Test support: conformance suites for sources, sinks and stores, fault injection, and valid DICOM instances.
//!
//! Run the conformance suites against your own implementations. A suite is an async function that panics with a message if
//! an implementation violates the contract of its trait. All implementations in this crate pass.
//!
//! # Fault injection
//! [`FaultySource`], [`FaultySink`], [`FaultyOperationStore`] and [`FaultySecretStore`] wrap an implementation and make its
//! calls fail according to a [`FaultPlan`]: with an error, after a delay, with a truncated or repeated content, or with a
//! lost response after the work was done. The plan is determined by its seed, so a failing test can be repeated. It uses
//! Tokio's clock, so under a paused clock an outage of ten minutes takes no time:
//!
//! ```
//! use std::time::Duration;
//! use dicom_export::testing::{Call, FaultPlan, FaultySink, FaultySource, StreamFault, fixtures};
//! use dicom_export::{
//!     ErrorKind, ExportEngine, ExportSource, MemorySink, MemorySource, NewOperation, OperationStatus,
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> dicom_export::Result<()> {
//! // Replace this with your own source.
//! let source = MemorySource::new();
//! for n in 0..100 {
//!     source.insert(fixtures::instance(1, 1, n), fixtures::ct_slice(1, 1, n));
//! }
//! let (source_faults, sink_faults) = (FaultPlan::new(7), FaultPlan::new(8));
//! let source = FaultySource::new(source, source_faults.damages(0.05, [StreamFault::Unavailable, StreamFault::Stalls]));
//! let container = MemorySink::new();
//! let sink = FaultySink::new(
//!     container.clone(),
//!     sink_faults
//!         .fails(Call::SINK, 0.1, [ErrorKind::Unavailable, ErrorKind::Throttled])
//!         .lost_responses(Call::SINK, 0.1)
//!         .latency(Duration::from_millis(200)),
//! );
//!
//! let engine = ExportEngine::builder(source).build()?;
//! let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await?;
//! let ended = engine.wait(started.operation_id).await?;
//! assert_eq!(ended.status, OperationStatus::Completed);
//! assert_eq!((ended.results.exported, ended.results.skipped), (100, 0));
//! # Ok(()) }
//! ```
//!
//! # Benchmarks
//! [`GeneratedSource`] and [`NullSink`] cost as little as possible, for measuring everything else.

#![allow(clippy::future_not_send, reason = "a suite is awaited in its test's own task")]

mod faults;
pub mod fixtures;
mod generated;
mod null_sink;
mod provider_suites;
mod secret_store_suite;
mod sink_suite;
mod source_suite;
mod store_suite;

pub use self::faults::{
    Call, FaultPlan, FaultyOperationStore, FaultySecretStore, FaultySink, FaultySource, StreamFault,
};
pub use self::generated::GeneratedSource;
pub use self::null_sink::NullSink;
pub use self::provider_suites::{
    SinkProviderTestOptions, sink_provider_conformance, source_provider_conformance,
};
pub use self::secret_store_suite::secret_store_conformance;
pub use self::sink_suite::{SinkTestOptions, sink_conformance};
pub use self::source_suite::source_conformance;
pub use self::store_suite::store_conformance;
