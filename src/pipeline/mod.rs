//! What an export does, independent of where it runs.
//!
//! An operation passes through these steps, each in the file of its name:
//!
//! 1. [`prepare`] checks a request and opens its source and its destination.
//! 2. [`plan`] lists the source and forms batches.
//! 3. [`batch`] exports a batch; [`transfer`] opens, [verifies](verify) and puts one instance, or has it
//!    [copied](copy) at the destination.
//! 4. [`commit`] orders finished batches; [`log`] writes their log lines. The runner then saves the checkpoint.
//! 5. [`status`] turns a checkpoint into the status document.
//!
//! A runner (`engine` in one process, `restate` on many workers) creates a [`Pipeline`] over an [`OpenedOperation`] and
//! decides what runs when.

mod batch;
mod commit;
mod config;
mod copy;
mod expiry;
#[cfg(feature = "dicom")]
mod identity;
mod length;
mod lifecycle;
mod limited_source;
mod log;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "no_metrics.rs"]
mod metrics;
mod observer;
mod open;
mod plan;
mod prepare;
mod progress;
mod rates;
mod retry;
mod sides;
mod source_health;
mod status;
mod transfer;
mod verify;

use std::sync::Arc;

pub(crate) use self::batch::{Backlog, BatchOutcome};
pub(crate) use self::commit::CommitQueue;
#[cfg(feature = "restate")]
pub(crate) use self::commit::OrderedPrefix;
pub use self::config::ExportConfig;
pub(crate) use self::config::{ExportOptions, MaxRunning, require_nonzero};
pub(crate) use self::expiry::{RateEstimator, update_expiry_warning};
#[cfg(feature = "dicom")]
pub use self::identity::IdentityCheck;
pub(crate) use self::lifecycle::{
    DELIVERY_TIMEOUT, announce_end, announce_pause, announce_start, describe, log_accepted, log_ended,
    log_failure, operation_span, record,
};
pub(crate) use self::log::LogBuffer;
pub(crate) use self::metrics::RunMetrics;
pub use self::observer::{BatchDone, ExportObserver, Resumption, SideFailing, SideRecovered};
#[cfg(feature = "restate")]
pub(crate) use self::open::open_stored;
pub(crate) use self::open::{OpenedOperation, open_sink, stored_secret};
pub(crate) use self::plan::{Batch, Planner};
pub(crate) use self::prepare::{
    OpenedDestination, PreparedOperation, open_destination, prepare, reopen, validate_destination,
};
pub use self::progress::Progress;
pub(crate) use self::sides::{SideMonitor, Sides};
pub(crate) use self::status::status_document;
pub use self::verify::Checksums;
use crate::error::Result;
use crate::limits::RateLimit;
use crate::model::{OperationSpec, Position, Totals};
use crate::pipeline::batch::BatchExporter;
use crate::pipeline::log::LogWriter;
use crate::pipeline::metrics::PipelineMetrics;
use crate::pipeline::progress::Counters;
use crate::pipeline::transfer::InstanceTransfer;
use crate::sink::LogKey;

/// The steps of one operation, over its opened source and sink.
pub(crate) struct Pipeline {
    operation: OpenedOperation,
    batch_size: usize,
    sides: Sides,
    exporter: BatchExporter,
    log: LogWriter,
    counters: Arc<Counters>,
    metrics: PipelineMetrics,
}

impl Pipeline {
    /// Creates the pipeline of an operation that has exported `totals` so far. `bytes` limits its bytes per second.
    pub(crate) fn new(
        config: &ExportConfig,
        operation: OpenedOperation,
        sides: Sides,
        totals: &Totals,
        bytes: Arc<RateLimit>,
    ) -> Self {
        let counters = Arc::new(Counters::starting_at(totals));
        let metrics = PipelineMetrics::new(config, &operation.sink.throttle_key());
        let transfers = Arc::clone(&metrics.transfers);
        let transfer = InstanceTransfer::new(config, &operation, &sides, bytes, Arc::clone(&transfers));
        Self {
            exporter: BatchExporter::new(
                config,
                transfer,
                &operation,
                &sides,
                Arc::clone(&counters),
                transfers,
            ),
            metrics,
            log: LogWriter::new(&operation, Arc::clone(&sides.destination)),
            batch_size: config.options.batch_size,
            sides,
            counters,
            operation,
        }
    }

    pub(crate) fn spec(&self) -> &OperationSpec {
        &self.operation.spec
    }

    /// Returns a planner that lists on from `position`.
    pub(crate) fn planner(&self, position: Position) -> Planner {
        let OpenedOperation { spec, source, .. } = &self.operation;
        let retry = Arc::clone(&self.sides.source);
        Planner::new(source.clone(), Arc::clone(spec), retry, self.batch_size, position)
    }

    /// Returns the source's estimate of the number of instances, if it has one.
    pub(crate) async fn estimate(&self) -> Option<u64> {
        self.operation.source.estimate(&self.operation.spec.source).await.unwrap_or_default()
    }

    /// Exports a batch; see [`BatchExporter::export`].
    pub(crate) async fn export_batch(&self, batch: &Batch) -> Result<BatchOutcome> {
        self.exporter.export(batch).await
    }

    /// The instances of started batches that are still to be transferred.
    pub(crate) fn backlog(&self) -> &Backlog {
        self.exporter.backlog()
    }

    /// Makes log lines durable; see [`LogWriter::append`].
    pub(crate) async fn append(&self, key: LogKey, lines: &mut LogBuffer) -> Result<()> {
        self.log.append(key, lines).await
    }

    /// The log writer, which knows the limits of the destination's logs.
    pub(crate) fn log(&self) -> &LogWriter {
        &self.log
    }

    /// Completes the logs.
    pub(crate) async fn finish(&self) -> Result<()> {
        self.log.finish().await
    }

    /// Returns a number that changes when something is finished: an instance, a request, a page of the listing.
    pub(crate) fn activity(&self) -> u64 {
        let Progress { exported, skipped, .. } = self.progress(None);
        exported + skipped + self.sides.source.successes() + self.sides.destination.successes()
    }

    /// Returns the current progress.
    pub(crate) fn progress(&self, estimate: Option<u64>) -> Progress {
        self.counters.read(estimate)
    }
}
