//! From batches to blobs: the `export_batch` step.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::sleep;

use crate::engine::checked::Remarks;
use crate::engine::checks::{Checks, Checksums};
use crate::engine::copy::{Copied, Copies};
use crate::engine::guard::guard;
use crate::engine::lines::Lines;
use crate::engine::observer::{BatchDone, ExportObserver};
use crate::engine::plan::{Batch, Planner};
use crate::engine::progress::Counters;
use crate::engine::verdict::{Trials, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Limiter, MemoryShare, Retrier, UploadContext};
use crate::model::BlobPath;
use crate::model::ErrorLogEntry;
use crate::model::Instance;
use crate::model::OperationSpec;
use crate::model::Timestamp;
use crate::model::{Position, Totals};
use crate::sink::{BlobSink, PutResult};
use crate::source::InstanceSource;

/// Everything an operation's transfers share.
pub(crate) struct Transfers {
    pub(crate) operation: Arc<OperationSpec>,
    pub(crate) source: Arc<dyn InstanceSource>,
    pub(crate) sink: Arc<dyn BlobSink>,
    pub(crate) observer: Option<Arc<dyn ExportObserver>>,
    /// Retries towards the source.
    pub(crate) reading: Arc<Retrier>,
    /// Retries towards the destination.
    pub(crate) writing: Arc<Retrier>,
    /// Requests and instances at once towards the destination's account.
    pub(crate) limiter: Arc<Limiter>,
    /// The most instances of a batch at once; how many there really are is the limiter's to say.
    pub(crate) concurrency: usize,
    /// This operation's share of the byte budget.
    pub(crate) budget: MemoryShare,
    pub(crate) counters: Arc<Counters>,
    pub(crate) backlog: Backlog,
    pub(crate) copies: Copies,
    pub(crate) checks: Checks,
}

/// What became of a batch: small, whatever the batch holds, but for the lines of what failed, and of the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct BatchOutcome {
    pub(crate) totals: Totals,
    pub(crate) lines: Lines,
}

enum Transferred {
    Exported(PutResult, Option<Box<Remarks>>),
    Skipped(Error),
}

impl Transfers {
    /// A planner that lists on from a position, so many instances a batch at most.
    pub(crate) fn planner(&self, batch_size: usize, from: Position) -> Planner {
        let Self { source, operation, reading, .. } = self;
        Planner::new(Arc::clone(source), Arc::clone(operation), Arc::clone(reading), batch_size, from)
    }

    /// How many instances the source thinks there are, if it says so.
    pub(crate) async fn estimate(&self) -> Option<u64> {
        self.source.estimate(&self.operation.source).await.unwrap_or_default()
    }

    /// Exports a batch: every instance of it is in the container afterwards, or named in the outcome's lines.
    ///
    /// # Errors
    /// Those that fail the operation.
    ///
    /// # Retry and idempotence
    /// May be repeated, and overlap with itself: each blob is written whole or not at all.
    pub(crate) async fn export_batch(&self, batch: &Batch) -> Result<BatchOutcome> {
        let mut totals = Totals::default();
        for warning in &batch.warnings {
            totals.warn(warning);
        }
        let mut skipped = Vec::new();
        for failure in &batch.failures {
            skipped.push(ErrorLogEntry::new(Timestamp::now(), &failure.identifier, &failure.error));
        }
        for identifier in &batch.unmatched {
            let message = "no instance was found under this identifier";
            skipped.push(ErrorLogEntry::new(Timestamp::now(), identifier.to_string(), message));
        }
        self.counters.skipped(skipped.len() as u64);

        let (mut exported, mut manifest) = (Vec::new(), String::new());
        let mut left = Left { backlog: &self.backlog, count: batch.instances.len() };
        let mut waiting = batch.instances.iter();
        let mut transfers = FuturesUnordered::new();
        loop {
            let room = self.concurrency.saturating_sub(transfers.len());
            transfers.extend(waiting.by_ref().take(room).map(|instance| self.transfer(instance)));
            let Some((instance, outcome)) = transfers.next().await else { break };
            left.shrink();
            match outcome? {
                Transferred::Exported(stored, remarks) => {
                    totals.exported += 1;
                    totals.bytes += stored.size;
                    if let Some(remarks) = remarks {
                        remarks.warning.iter().for_each(|warning| totals.warn(warning));
                        manifest.extend(remarks.manifest);
                    }
                    self.counters.exported(stored.size);
                    if self.observer.is_some() {
                        exported.push((instance.identifier().clone(), stored));
                    }
                }
                Transferred::Skipped(error) => {
                    self.counters.skipped(1);
                    let identifier = instance.identifier().to_string();
                    skipped.push(ErrorLogEntry::new(Timestamp::now(), identifier, error.message()));
                }
            }
        }
        totals.skipped = skipped.len() as u64;
        if let Some(observer) = &self.observer {
            let (operation, number) = (&*self.operation, batch.number);
            let done = BatchDone { operation, number, exported: &exported, skipped: &skipped };
            self.reading.run(|| observer.batch_done(done)).await?;
        }
        let errors = skipped.iter().map(ErrorLogEntry::to_line).collect();
        Ok(BatchOutcome { totals, lines: Lines { errors, manifest } })
    }

    async fn transfer<'a>(&self, instance: &'a Instance) -> (&'a Instance, Result<Transferred>) {
        let _place = self.limiter.acquire_instance().await;
        (instance, self.transfer_now(instance).await)
    }

    /// Has an instance copied, or else opens and puts it, until it is there, is skipped, or fails the operation.
    async fn transfer_now(&self, instance: &Instance) -> Result<Transferred> {
        let path = BlobPath::instance(self.operation.id, instance.identifier());
        if self.operation.manifest || self.checks.need_streaming() {
            return self.stream(instance, &path).await;
        }
        match self.copy(instance, &path).await? {
            Copied::Done(stored) => Ok(Transferred::Exported(stored, None)),
            Copied::NotTried => self.stream(instance, &path).await,
            Copied::Refused => {
                let streamed = self.stream(instance, &path).await?;
                if matches!(streamed, Transferred::Exported(..)) {
                    self.copies.refused();
                }
                Ok(streamed)
            }
        }
    }

    async fn stream(&self, instance: &Instance, path: &BlobPath) -> Result<Transferred> {
        let window = self.budget.acquire(self.sink.buffer_size(instance.size())).await;
        let upload =
            UploadContext::shared(window.bytes(), Arc::clone(&self.writing), Arc::clone(&self.limiter))
                .with_checksums(self.checks.checksums != Checksums::Off);
        let mut trials = Trials::default();
        loop {
            let (verdict, error) = match self.source.open(instance).await {
                Err(error) => (trials.source(&self.reading, &error), error),
                Ok(content) => {
                    self.reading.succeeded();
                    let (content, trouble) = guard(content, instance.size());
                    let length = content.length();
                    let (content, checked) = match self.check(instance, content).await {
                        Ok(checked) => checked,
                        Err(error) => return Ok(Transferred::Skipped(error)),
                    };
                    let outcome = self.sink.put(path, content, &upload).await;
                    match (trouble.take(), outcome) {
                        (Some(error), _) => (trials.source(&self.reading, &error), error),
                        (None, Ok(stored)) => {
                            self.writing.succeeded();
                            check_length(&stored, length)?;
                            let remarks = checked.map(|checked| checked.remarks(instance, path, &stored));
                            return Ok(Transferred::Exported(stored, remarks.transpose()?));
                        }
                        (None, Err(error)) => (trials.destination(&self.writing, &error), error),
                    }
                }
            };
            match verdict {
                Verdict::Again(pause) => {
                    tracing::debug!(kind = error.kind().as_str(), ?pause, "instance repeated");
                    sleep(pause).await;
                }
                Verdict::Skip => return Ok(Transferred::Skipped(error)),
                Verdict::Fatal => return Err(error),
            }
        }
    }
}

pub(super) fn check_length(stored: &PutResult, length: Option<u64>) -> Result<()> {
    match length {
        Some(length) if length != stored.size => {
            let message = format!("the destination stored {} of {length} bytes", stored.size);
            Err(Error::new(ErrorKind::Internal, message))
        }
        _ => Ok(()),
    }
}

/// How many instances the batches under way have still to transfer: the next batch starts when they are few, so that
/// neither a batch's end nor one large instance leaves transfers idle.
#[derive(Debug)]
pub(crate) struct Backlog {
    count: AtomicUsize,
    few: usize,
    changed: Notify,
}

impl Backlog {
    pub(crate) fn new(few: usize) -> Self {
        Self { count: AtomicUsize::new(0), few, changed: Notify::new() }
    }

    pub(crate) fn grow(&self, by: usize) {
        self.count.fetch_add(by, Relaxed);
    }

    fn shrink(&self, by: usize) {
        let before = self.count.fetch_sub(by, Relaxed);
        if before >= self.few && before - by < self.few {
            self.changed.notify_one();
        }
    }

    pub(crate) fn is_low(&self) -> bool {
        self.count.load(Relaxed) < self.few
    }

    /// Waits until it may have become low.
    pub(crate) async fn low(&self) {
        self.changed.notified().await;
    }
}

/// What is left of one batch in the backlog: it goes with the batch, also when that fails or is dropped.
struct Left<'a> {
    backlog: &'a Backlog,
    count: usize,
}

impl Left<'_> {
    fn shrink(&mut self) {
        self.count -= 1;
        self.backlog.shrink(1);
    }
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.backlog.shrink(self.count);
    }
}
