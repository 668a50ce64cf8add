//! [`BatchExporter`]: exports batches of instances.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::error::Result;
use crate::limits::Retrier;
use crate::model::{ErrorLogEntry, Instance, Timestamp, Totals};
use crate::pipeline::config::ExportConfig;
use crate::pipeline::log::LogBuffer;
use crate::pipeline::metrics::TransferMetrics;
use crate::pipeline::observer::{BatchDone, ExportObserver};
use crate::pipeline::open::OpenedOperation;
use crate::pipeline::plan::Batch;
use crate::pipeline::progress::Counters;
use crate::pipeline::sides::Sides;
use crate::pipeline::transfer::{InstanceTransfer, TransferOutcome};

/// The result of a batch. It is small regardless of the batch, except for the lines of skipped instances and of the
/// manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BatchOutcome {
    pub(crate) totals: Totals,
    pub(crate) lines: LogBuffer,
}

/// Exports the batches of one operation, several concurrently.
pub(crate) struct BatchExporter {
    operation: OpenedOperation,
    transfer: InstanceTransfer,
    /// The maximum number of instances of a batch in transfer. The limiter may allow fewer.
    concurrency: usize,
    backlog: Backlog,
    counters: Arc<Counters>,
    metrics: Arc<TransferMetrics>,
    observer: Option<Arc<dyn ExportObserver>>,
    observer_retry: Arc<Retrier>,
}

impl BatchExporter {
    pub(crate) fn new(
        config: &ExportConfig,
        transfer: InstanceTransfer,
        operation: &OpenedOperation,
        sides: &Sides,
        counters: Arc<Counters>,
        metrics: Arc<TransferMetrics>,
    ) -> Self {
        let concurrency = config.options.concurrency.max();
        Self {
            operation: operation.clone(),
            transfer,
            concurrency,
            backlog: Backlog::new(2 * concurrency),
            counters,
            metrics,
            observer: config.observer.clone(),
            observer_retry: Arc::clone(&sides.observer),
        }
    }

    pub(crate) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// Exports a batch. Afterwards each of its instances is in the container, or named in the lines of the outcome.
    ///
    /// # Errors
    /// Errors that fail the operation.
    ///
    /// # Retry and idempotence
    /// May be repeated, also while another call for the same batch is running: each blob is written whole or not at
    /// all.
    pub(crate) async fn export(&self, batch: &Batch) -> Result<BatchOutcome> {
        let mut result = BatchResult::new(batch, self.observer.is_some());
        self.counters.add_skipped(result.skipped.len() as u64);
        self.metrics.not_listed(result.skipped.len());
        let timer = self.metrics.start();

        let mut remaining = Remaining { backlog: &self.backlog, count: batch.instances.len() };
        let mut waiting = batch.instances.iter();
        let mut transfers = FuturesUnordered::new();
        loop {
            let free = self.concurrency.saturating_sub(transfers.len());
            transfers.extend(
                waiting
                    .by_ref()
                    .take(free)
                    .map(async |instance| (instance, self.transfer.transfer(instance).await)),
            );
            let Some((instance, outcome)) = transfers.next().await else { break };
            remaining.decrement();
            let outcome = outcome?;
            match &outcome {
                TransferOutcome::Exported(put, _) => self.counters.add_exported(put.size),
                TransferOutcome::Skipped(error) => {
                    self.counters.add_skipped(1);
                    self.metrics.skipped(error.kind());
                }
            }
            result.add(instance, outcome);
        }
        drop(transfers);
        self.transfer.confirm_refusals().await?;
        if let Some(observer) = &self.observer {
            let done = BatchDone {
                operation: &self.operation.spec,
                number: batch.number,
                exported: &result.exported,
                skipped: &result.skipped,
            };
            self.observer_retry.run(|| observer.batch_done(done)).await?;
        }
        self.metrics.batch_finished(timer);
        Ok(result.into_outcome())
    }
}

/// The result of a batch while it is exported.
struct BatchResult {
    totals: Totals,
    skipped: Vec<ErrorLogEntry>,
    manifest: String,
    /// Only for an observer.
    exported: Vec<(crate::model::InstanceIdentifier, crate::sink::PutResult)>,
    has_observer: bool,
}

impl BatchResult {
    /// Starts with what the listing found besides instances.
    fn new(batch: &Batch, has_observer: bool) -> Self {
        let mut totals = Totals::default();
        for warning in &batch.warnings {
            totals.warn(warning);
        }
        let now = Timestamp::now();
        let failures =
            batch.failures.iter().map(|failure| ErrorLogEntry::new(now, &failure.identifier, &failure.error));
        let unmatched = batch.unmatched.iter().map(|identifier| {
            ErrorLogEntry::new(now, identifier.to_string(), "no instance was found under this identifier")
        });
        let skipped = failures.chain(unmatched).collect();
        Self { totals, skipped, manifest: String::new(), exported: Vec::new(), has_observer }
    }

    fn add(&mut self, instance: &Instance, outcome: TransferOutcome) {
        match outcome {
            TransferOutcome::Exported(put, report) => {
                self.totals.exported += 1;
                self.totals.bytes += put.size;
                if let Some(report) = report {
                    report.warning.iter().for_each(|warning| self.totals.warn(warning));
                    self.manifest.extend(report.manifest_line);
                }
                if self.has_observer {
                    self.exported.push((instance.identifier().clone(), put));
                }
            }
            TransferOutcome::Skipped(error) => {
                let identifier = instance.identifier().to_string();
                self.skipped.push(ErrorLogEntry::new(Timestamp::now(), identifier, error.message()));
            }
        }
    }

    fn into_outcome(mut self) -> BatchOutcome {
        self.totals.skipped = self.skipped.len() as u64;
        let errors = self.skipped.iter().map(ErrorLogEntry::to_line).collect();
        BatchOutcome { totals: self.totals, lines: LogBuffer { errors, manifest: self.manifest } }
    }
}

/// The number of instances of started batches that are still to be transferred. The next batch starts when it is low, so
/// that neither the end of a batch nor one large instance leaves permits unused.
#[derive(Debug)]
pub(crate) struct Backlog {
    count: AtomicUsize,
    low: usize,
    became_low: Notify,
}

impl Backlog {
    fn new(low: usize) -> Self {
        Self { count: AtomicUsize::new(0), low, became_low: Notify::new() }
    }

    pub(crate) fn add(&self, instances: usize) {
        self.count.fetch_add(instances, Relaxed);
    }

    fn subtract(&self, instances: usize) {
        let previous = self.count.fetch_sub(instances, Relaxed);
        if previous >= self.low && previous - instances < self.low {
            self.became_low.notify_one();
        }
    }

    pub(crate) fn is_low(&self) -> bool {
        self.count.load(Relaxed) < self.low
    }

    /// Waits until the backlog may have become low.
    pub(crate) async fn wait_until_low(&self) {
        self.became_low.notified().await;
    }
}

/// The part of one batch in the backlog. Dropping it removes that part, also if the batch fails or is dropped.
struct Remaining<'a> {
    backlog: &'a Backlog,
    count: usize,
}

impl Remaining<'_> {
    fn decrement(&mut self) {
        self.count -= 1;
        self.backlog.subtract(1);
    }
}

impl Drop for Remaining<'_> {
    fn drop(&mut self) {
        self.backlog.subtract(self.count);
    }
}
