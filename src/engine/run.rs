//! The local runner: the steps `plan`, `export_batch` and `finish`, in one process.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::engine::expiry::Pace;
use crate::engine::ledger::Ledger;
use crate::engine::lines::Lines;
use crate::engine::plan::{Batch, Planner, Prefix};
use crate::engine::progress::Progress;
use crate::engine::transfer::{BatchOutcome, Transfers};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{OperationIssue, OperationStatus};
use crate::model::{Position, Totals};
use crate::sink::LogKey;

/// Batches between the checkpoint and the newest one under way: a crash repeats them at most.
const WINDOW: u64 = 64;

/// After so many appends to the log in one run they become half as frequent, and so on: a log takes a limited number of
/// them (50,000 on Azure), which one a second would use up in fourteen hours.
const APPENDS_AT_ONE_PACE: u32 = 5_000;

/// How often progress is published.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// How long an operation that ends early may take to log what it has finished.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// Why a run ends before its work does.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// Somebody canceled the operation: everything under way is dropped at once.
    pub(crate) cancel: CancellationToken,
    /// The process shuts down: batches under way are finished, no new one starts.
    pub(crate) drain: CancellationToken,
    /// It cannot wait any longer: everything under way is dropped, to be resumed.
    pub(crate) abandon: CancellationToken,
}

/// One run of an operation.
pub(crate) struct Run {
    pub(crate) transfers: Arc<Transfers>,
    pub(crate) ledger: Ledger,
    /// The version of the checkpoint that claimed the lease: higher than in all earlier runs of the operation.
    pub(crate) number: u64,
    pub(crate) pace: Pace,
    pub(crate) batch_size: usize,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) stop: Stop,
    pub(crate) progress: watch::Sender<Progress>,
    /// Appends to the log in this run.
    pub(crate) appends: u32,
    /// When the checkpoint last moved.
    pub(crate) committed: Instant,
}

/// What finished batches wait for a checkpoint with.
#[derive(Debug, Default)]
struct Waiting {
    totals: Totals,
    lines: Lines,
    /// Behind the last of them; `None`: there are none.
    position: Option<Position>,
}

/// How the work ended.
enum End {
    Done,
    Canceled,
    Left,
}

type Planned = Result<Batch, Position>;

impl Run {
    /// Runs the operation to its end, or until it is stopped; the store says which.
    ///
    /// # Errors
    /// Only those of the store: [`ErrorKind::Conflict`] when another runner has taken the operation over.
    pub(crate) async fn run(mut self) -> Result<()> {
        let outcome = self.work().await;
        match outcome {
            Ok(End::Done) => {
                tracing::info!(
                    exported = self.totals().exported,
                    skipped = self.totals().skipped,
                    "completed"
                );
                self.ledger.end(OperationStatus::Completed, None).await
            }
            Ok(End::Canceled) => {
                tracing::info!("canceled");
                self.ledger.end(OperationStatus::Canceled, None).await
            }
            Ok(End::Left) => {
                tracing::info!("left for another run");
                self.ledger.release().await
            }
            Err(error) => {
                tracing::warn!(kind = error.kind().as_str(), %error, "failed");
                self.ledger.end(OperationStatus::Failed, Some(OperationIssue::from(&error))).await
            }
        }
    }

    fn totals(&self) -> &Totals {
        &self.ledger.checkpoint.totals
    }

    async fn work(&mut self) -> Result<End> {
        let stop = self.stop.clone();
        let mut waiting = Waiting::default();
        let outcome = tokio::select! {
            biased;
            () = stop.cancel.cancelled() => Ok(End::Canceled),
            () = stop.abandon.cancelled() => Ok(End::Left),
            outcome = self.steps(&mut waiting) => outcome,
        };
        if !matches!(outcome, Ok(End::Done)) {
            // What has been finished is logged and counted if the destination lets it be; if it does not, it is left
            // to a resumption like the rest.
            let last_words = async {
                self.commit(&mut waiting).await?;
                self.finish().await
            };
            if !matches!(timeout(LAST_WORDS, last_words).await, Ok(Ok(()))) {
                tracing::debug!("the log was not brought up to date");
            }
        }
        self.publish();
        outcome
    }

    async fn steps(&mut self, waiting: &mut Waiting) -> Result<End> {
        let end = self.batches(waiting).await?;
        if let End::Done = end {
            self.commit(waiting).await?;
            self.finish().await?;
        }
        Ok(end)
    }

    /// Plans and exports batches, several at once, and checkpoints them in order.
    async fn batches(&mut self, waiting: &mut Waiting) -> Result<End> {
        let stop = self.stop.clone();
        let start = self.ledger.checkpoint.position.clone();
        let mut prefix = Prefix::starting_at(start.batch);
        let mut tasks = JoinSet::new();
        let (batches, mut planned) = mpsc::channel(1);
        let mut planner = JoinSet::new();
        planner.spawn(plan(self.transfers.planner(self.batch_size, start), batches).in_current_span());
        let mut estimate = self.estimate(&mut planner);
        let mut listed = None;
        let mut publish = interval(PROGRESS_EVERY);
        publish.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut in_window = 0_u64;

        loop {
            let more = listed.is_none() && !stop.drain.is_cancelled();
            if !more && tasks.is_empty() {
                let Some(end) = listed else { return Ok(End::Left) };
                // The listing may have moved on after its last batch, over empty pages.
                waiting.position = Some(end);
                return Ok(End::Done);
            }
            let wanted = more && in_window < WINDOW;
            let next_commit = self.next_commit(waiting);
            tokio::select! {
                biased;
                () = stop.drain.cancelled(), if more => {}
                Some(finished) = tasks.join_next() => {
                    let (number, end, outcome): (u64, Position, Result<BatchOutcome>) = finished.map_err(panicked)?;
                    prefix.finish(number, (end, outcome?));
                    while let Some((end, outcome)) = prefix.pop() {
                        waiting.add(end, outcome);
                        in_window -= 1;
                    }
                }
                Some(planned) = planned.recv(), if wanted && self.transfers.backlog.is_low() => match planned? {
                    Ok(batch) => {
                        in_window += 1;
                        self.transfers.backlog.grow(batch.instances.len());
                        let (transfers, number) = (Arc::clone(&self.transfers), batch.number);
                        let export = async move {
                            let outcome = transfers.export_batch(&batch).await;
                            (number, batch.end, outcome)
                        };
                        tasks.spawn(export.instrument(tracing::debug_span!("batch", number)));
                    }
                    Err(end) => listed = Some(end),
                },
                () = self.transfers.backlog.low(), if wanted => {}
                Some(joined) = planner.join_next(), if listed.is_none() => joined.map_err(panicked)?,
                found = &mut estimate, if !estimate.is_terminated() => {
                    self.ledger.checkpoint.estimate = found.ok().flatten().or(self.ledger.checkpoint.estimate);
                }
                _ = publish.tick() => self.publish(),
                () = sleep_until(next_commit), if waiting.position.is_some() => self.commit(waiting).await?,
                () = self.ledger.due() => self.ledger.save().await?,
            }
        }
    }

    /// Asks the source how many instances there are, beside everything else.
    fn estimate(&self, tasks: &mut JoinSet<()>) -> oneshot::Receiver<Option<u64>> {
        let (sender, receiver) = oneshot::channel();
        let transfers = Arc::clone(&self.transfers);
        tasks.spawn(async move {
            _ = sender.send(transfers.estimate().await);
        });
        receiver
    }

    fn next_commit(&self, waiting: &Waiting) -> Instant {
        let pace = match &waiting.lines {
            none if none.is_empty() => self.checkpoint_interval,
            many if many.are_many() => Duration::ZERO,
            _ => self.checkpoint_interval * (1 << (self.appends / APPENDS_AT_ONE_PACE).min(9)),
        };
        Instant::now() + pace.saturating_sub(self.committed.elapsed())
    }

    /// Makes the waiting lines durable, then moves the checkpoint past their batches.
    async fn commit(&mut self, waiting: &mut Waiting) -> Result<()> {
        let Some(position) = waiting.position.clone() else { return Ok(()) };
        if !waiting.lines.is_empty() {
            let appends = waiting.lines.appends();
            let key = LogKey::new(self.number, self.ledger.checkpoint.position.batch);
            // What is durable is taken away: a later failure must not append it again.
            self.ledger.keep(self.transfers.append(key, &mut waiting.lines)).await?;
            self.appends += appends;
        }
        let checkpoint = &mut self.ledger.checkpoint;
        checkpoint.position = position;
        checkpoint.totals.add(&waiting.totals);
        if let Some(end) = self.pace.estimated_end(checkpoint) {
            checkpoint.warn_of_expiry(self.transfers.operation.destination.expires, Some(end));
        }
        *waiting = Waiting::default();
        self.committed = Instant::now();
        self.ledger.save().await
    }

    async fn finish(&mut self) -> Result<()> {
        self.ledger.keep(self.transfers.finish()).await
    }

    fn publish(&self) {
        let now = self.transfers.counters.read(self.ledger.checkpoint.estimate);
        self.progress.send_if_modified(|last| {
            let changed = *last != now;
            *last = now;
            changed
        });
    }
}

impl Waiting {
    fn add(&mut self, end: Position, outcome: BatchOutcome) {
        self.totals.add(&outcome.totals);
        self.lines.add(&outcome.lines);
        self.position = Some(end);
    }
}

/// Plans ahead of the transfers, as far as the channel lets it.
async fn plan(mut planner: Planner, batches: mpsc::Sender<Result<Planned>>) {
    loop {
        let planned = planner.next().await;
        let last = !matches!(planned, Ok(Some(_)));
        let planned = planned.map(|batch| batch.ok_or_else(|| planner.position().clone()));
        if batches.send(planned).await.is_err() || last {
            return;
        }
    }
}

fn panicked(cause: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "a transfer stopped unexpectedly").with_source(cause)
}
