//! [`Run`]: one run of an operation: plans and exports batches, and commits them in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::engine::leased_checkpoint::LeasedCheckpoint;
use crate::engine::registry::{RunGuard, StopSignals};
use crate::error::Result;
use crate::model::{OperationStatus, Position, Timestamp};
use crate::pipeline::{
    Batch, BatchOutcome, CommitQueue, Pipeline, Planner, Progress, RateEstimator, RunMetrics, log_failure,
    update_expiry_warning,
};
use crate::sink::LogKey;
use crate::sync::panicked;

/// The maximum number of batches between the checkpoint and the newest batch in progress: a crash repeats at most these.
const MAX_UNCOMMITTED_BATCHES: u64 = 64;

const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How long a run that stops early may take to log what it has finished.
const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// One run of an operation.
pub(super) struct Run {
    pipeline: Arc<Pipeline>,
    leased: LeasedCheckpoint,
    /// The version of the checkpoint that claimed the lease: higher than in all earlier runs of the operation.
    number: u64,
    queue: CommitQueue,
    rate: RateEstimator,
    checkpoint_interval: Duration,
    stop: StopSignals,
    progress: watch::Sender<Progress>,
    /// [`Pipeline::activity`] when it was last read.
    activity: u64,
    /// The number of appends to the log in this run.
    appends: u32,
    last_commit: Instant,
}

/// How the batch loop ended.
enum RunOutcome {
    Completed,
    Canceled,
    Paused,
    /// The process shuts down; another run continues.
    Interrupted,
}

/// A planned batch, or the position at the end of the listing.
type Planned = Result<Batch, Position>;

impl Run {
    pub(super) fn new(
        pipeline: Pipeline,
        leased: LeasedCheckpoint,
        checkpoint_interval: Duration,
        guard: &RunGuard,
    ) -> Self {
        Self {
            activity: pipeline.activity(),
            pipeline: Arc::new(pipeline),
            queue: CommitQueue::starting_at(&leased.checkpoint.position),
            rate: RateEstimator::starting_at(&leased.checkpoint),
            number: leased.checkpoint.version,
            leased,
            checkpoint_interval,
            stop: guard.stop.clone(),
            progress: guard.progress.clone(),
            appends: 0,
            last_commit: Instant::now(),
        }
    }

    /// Runs the operation to its end, or until it is stopped. Returns the status that was saved.
    ///
    /// # Errors
    /// Only the store's; [`Conflict`](crate::ErrorKind::Conflict) if another runner has taken over the operation.
    pub(super) async fn run(mut self) -> Result<OperationStatus> {
        let stop = self.stop.clone();
        let mut metrics = RunMetrics::new(Arc::clone(&self.pipeline));
        let outcome = tokio::select! {
            biased;
            () = stop.cancel.cancelled() => Ok(RunOutcome::Canceled),
            () = stop.pause.cancelled() => Ok(RunOutcome::Paused),
            () = stop.abandon.cancelled() => Ok(RunOutcome::Interrupted),
            outcome = self.export_batches() => outcome,
            never = metrics.run() => match never {},
        };
        if !matches!(outcome, Ok(RunOutcome::Completed)) {
            // What is finished is logged and counted if the destination allows it; otherwise a resumption repeats it.
            if !matches!(timeout(FINAL_FLUSH_TIMEOUT, self.commit_and_finish()).await, Ok(Ok(()))) {
                tracing::debug!("the logs were not completed");
            }
        }
        self.publish();
        match outcome {
            Ok(RunOutcome::Completed) => self.leased.end(OperationStatus::Completed, None).await,
            Ok(RunOutcome::Canceled) => self.leased.end(OperationStatus::Canceled, None).await,
            Ok(RunOutcome::Paused) => self.leased.pause().await,
            Ok(RunOutcome::Interrupted) => {
                tracing::info!("the operation was interrupted, and can be continued by another runner");
                self.leased.release().await
            }
            Err(error) => self.leased.end(OperationStatus::Failed, Some(log_failure(&error))).await,
        }
    }

    /// The batch loop: plans and exports batches, several concurrently, and commits them in order, then completes
    /// the logs.
    async fn export_batches(&mut self) -> Result<RunOutcome> {
        let stop = self.stop.clone();
        let start = self.leased.checkpoint.position.clone();
        let mut started = 0_u64;
        let mut exports = JoinSet::new();
        let (batches, mut planned) = mpsc::channel(1);
        let mut planner = JoinSet::new();
        planner.spawn(plan(self.pipeline.planner(start), batches).in_current_span());
        let (mut estimate, _estimating) = self.spawn_estimate();
        let mut listing_end = None;
        let mut publish = interval(PROGRESS_INTERVAL);
        publish.set_missed_tick_behavior(MissedTickBehavior::Skip);

        loop {
            let is_listing = listing_end.is_none() && !stop.drain.is_cancelled();
            if !is_listing && exports.is_empty() {
                let Some(end) = listing_end else { return Ok(RunOutcome::Interrupted) };
                // The listing may have advanced over empty pages after its last batch.
                self.queue.advance_to(end);
                self.commit_and_finish().await?;
                return Ok(RunOutcome::Completed);
            }
            let may_start = is_listing && started - self.queue.batches() < MAX_UNCOMMITTED_BATCHES;
            let next_commit = self.next_commit();
            tokio::select! {
                biased;
                () = stop.drain.cancelled(), if is_listing => {}
                Some(finished) = exports.join_next() => {
                    let (number, end, outcome): (u64, Position, Result<BatchOutcome>) = finished.map_err(panicked)?;
                    self.queue.add(number, end, outcome?);
                }
                Some(planned) = planned.recv(), if may_start && self.pipeline.backlog().is_low() => match planned? {
                    Ok(batch) => {
                        started += 1;
                        self.spawn_export(&mut exports, batch);
                    }
                    Err(end) => listing_end = Some(end),
                },
                () = self.pipeline.backlog().wait_until_low(), if may_start => {}
                Some(joined) = planner.join_next(), if listing_end.is_none() => joined.map_err(panicked)?,
                found = &mut estimate, if !estimate.is_terminated() => {
                    self.leased.checkpoint.estimate = found.ok().flatten().or(self.leased.checkpoint.estimate);
                }
                _ = publish.tick() => self.publish(),
                () = sleep_until(next_commit), if self.queue.is_pending() => self.commit().await?,
                () = self.leased.renewal_due() => self.leased.save().await?,
            }
        }
    }

    fn spawn_export(&self, exports: &mut JoinSet<(u64, Position, Result<BatchOutcome>)>, batch: Batch) {
        self.pipeline.backlog().add(batch.instances.len());
        let (pipeline, number) = (Arc::clone(&self.pipeline), batch.number);
        let export = async move {
            let outcome = pipeline.export_batch(&batch).await;
            (number, batch.end, outcome)
        };
        exports.spawn(export.instrument(tracing::debug_span!("batch", number)));
    }

    /// Asks the source for the number of instances, concurrently with everything else. An estimate that fails or panics
    /// is ignored.
    fn spawn_estimate(&self) -> (oneshot::Receiver<Option<u64>>, AbortOnDropHandle<()>) {
        let (sender, receiver) = oneshot::channel();
        let pipeline = Arc::clone(&self.pipeline);
        let estimating = tokio::spawn(async move {
            _ = sender.send(pipeline.estimate().await);
        });
        (receiver, AbortOnDropHandle::new(estimating))
    }

    /// Returns the time of the next commit. With log lines it is later the more appends the run has made, and
    /// immediate if there are many lines.
    fn next_commit(&self) -> Instant {
        let lines = self.queue.lines();
        let interval = if lines.is_empty() {
            self.checkpoint_interval
        } else if lines.is_full() {
            Duration::ZERO
        } else {
            self.checkpoint_interval * self.pipeline.log().interval_factor(self.appends)
        };
        Instant::now() + interval.saturating_sub(self.last_commit.elapsed())
    }

    /// Makes the pending log lines durable, then moves the checkpoint past their batches.
    async fn commit(&mut self) -> Result<()> {
        if !self.queue.is_pending() {
            return Ok(());
        }
        if !self.queue.lines().is_empty() {
            if self.leased.is_renewal_due() {
                // Nothing is written after the lease was lost.
                self.leased.save().await?;
            }
            let appends = self.pipeline.log().appends(self.queue.lines());
            let key = LogKey::new(self.number, self.queue.next_batch());
            let append = self.pipeline.append(key, self.queue.lines_mut());
            self.leased.renew_during(append).await?;
            self.appends += appends;
        }
        let Some((position, totals)) = self.queue.take() else { return Ok(()) };
        let checkpoint = &mut self.leased.checkpoint;
        checkpoint.position = position;
        checkpoint.totals.add(&totals);
        if let Some(end) = self.rate.estimated_end(checkpoint) {
            update_expiry_warning(checkpoint, self.pipeline.spec().destination.expires, Some(end));
        }
        self.last_commit = Instant::now();
        self.publish();
        self.leased.save().await
    }

    async fn commit_and_finish(&mut self) -> Result<()> {
        self.commit().await?;
        self.leased.renew_during(self.pipeline.finish()).await
    }

    /// Publishes the progress, and notes when there was some.
    fn publish(&mut self) {
        let activity = self.pipeline.activity();
        if activity != self.activity {
            self.activity = activity;
            self.leased.checkpoint.last_progress_time = Some(Timestamp::now());
        }
        let progress = self.pipeline.progress(self.leased.checkpoint.estimate);
        self.progress.send_if_modified(|last| {
            let is_modified = *last != progress;
            *last = progress;
            is_modified
        });
    }
}

/// Plans ahead of the exports, as far as the channel allows.
async fn plan(mut planner: Planner, batches: mpsc::Sender<Result<Planned>>) {
    loop {
        let planned = planner.next().await;
        let is_last = !matches!(planned, Ok(Some(_)));
        let planned = planned.map(|batch| batch.ok_or_else(|| planner.position().clone()));
        if batches.send(planned).await.is_err() || is_last {
            return;
        }
    }
}
