//! [`Worker`]: the runs that a worker process has opened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use restate_sdk::prelude::HandlerResult;
use tokio::sync::{Mutex as AsyncMutex, OnceCell};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tracing::Instrument;

use crate::error::{Error, Result};
use crate::limits::RateLimit;
use crate::model::{Checkpoint, OperationSpec, OperationStatus};
use crate::pipeline::{
    Batch, ExportConfig, LogBuffer, Pipeline, Resumption, RunMetrics, SideMonitor, Sides, announce_end,
    announce_start, describe, open_stored, operation_span, record,
};
use crate::restate::http_client::HttpClient;
use crate::restate::messages::{OPERATION_SERVICE, Reply, Run, Stopped, View, retryable};
use crate::restate::specs;
use crate::sink::LogKey;
use crate::sync::lock;

/// How often a worker checks whether its runs are canceled. This is how a cancellation reaches batches in progress.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// A run that is unused during this many polls is closed.
const MAX_IDLE_POLLS: u32 = 10;

/// How long a run that stops early may take to complete its logs.
const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// What the services of a worker process share.
#[derive(Clone)]
pub(crate) struct Worker(Arc<Shared>);

struct Shared {
    config: ExportConfig,
    ingress: HttpClient,
    runs: Mutex<HashMap<Run, Arc<OnceCell<Arc<RunContext>>>>>,
    /// Batches in progress.
    busy: TaskTracker,
    /// Canceled when no more batches start.
    drain: CancellationToken,
    /// Canceled when batches in progress are dropped.
    abandon: CancellationToken,
}

/// A run whose source and sink are open in this process.
pub(crate) struct RunContext {
    pipeline: Arc<Pipeline>,
    /// Canceled when nothing more is to be done for the run.
    pub(crate) stop: CancellationToken,
    /// Why the run failed, if it failed in this process.
    failure: OnceLock<Stopped>,
    /// Makes batches start one after the other.
    queue: AsyncMutex<()>,
}

impl Worker {
    pub(crate) fn new(config: ExportConfig, ingress: HttpClient) -> Self {
        Self(Arc::new(Shared {
            config,
            ingress,
            runs: Mutex::default(),
            busy: TaskTracker::new(),
            drain: CancellationToken::new(),
            abandon: CancellationToken::new(),
        }))
    }

    /// Returns the run, which is opened once in this process.
    pub(crate) async fn open(&self, run: Run) -> Result<Arc<RunContext>> {
        let cell = Arc::clone(lock(&self.0.runs).entry(run).or_default());
        match cell.get_or_try_init(|| self.open_now(run)).await {
            Ok(context) => Ok(Arc::clone(context)),
            Err(error) => {
                self.0.remove_unopened(run, &cell);
                Err(error)
            }
        }
    }

    async fn open_now(&self, run: Run) -> Result<Arc<RunContext>> {
        let Shared { config, ingress, .. } = &*self.0;
        let view = self.0.view(run).await?.into_result()?;
        let spec = specs::fetch(ingress, run.id, &view.spec).await?;
        let spec = Arc::new(OperationSpec { destination: view.destination.clone(), ..spec });
        let span = operation_span(run.id);
        describe(&span, &spec.context, Some(&spec.destination.location));
        let sides = Sides::new(&config.options.retry);
        let monitor = SideMonitor::new(run.id, spec.context.clone(), config.observer.clone(), &sides);
        let operation = open_stored(config, spec).await?;
        // The client accepts no operation with a limit.
        let no_limit = Arc::new(RateLimit::new(0));
        let context = Arc::new(RunContext {
            pipeline: Arc::new(Pipeline::new(config, operation, sides, &view.checkpoint.totals, no_limit)),
            stop: CancellationToken::new(),
            failure: OnceLock::new(),
            queue: AsyncMutex::new(()),
        });
        if !is_wanted(run, &view) {
            context.stop.cancel();
        }
        let metrics = RunMetrics::new(context.pipeline());
        let poll = poll(Arc::downgrade(&self.0), run, Arc::downgrade(&context), monitor, metrics);
        tokio::spawn(poll.instrument(span));
        Ok(context)
    }

    /// Returns the source's estimate of the number of instances.
    pub(crate) async fn estimate(&self, run: Run) -> Option<u64> {
        self.open(run).await.ok()?.pipeline.estimate().await
    }

    /// Appends lines to the run's logs. Returns why that is not possible.
    pub(crate) async fn append(
        &self,
        run: Run,
        first_batch: u64,
        lines: &LogBuffer,
    ) -> HandlerResult<Option<Stopped>> {
        let append = async {
            let context = self.open(run).await?;
            Ok(context.pipeline.append(LogKey::new(run.number, first_batch), &mut lines.clone()).await)
        };
        log_step_result(run, append.await)
    }

    /// Completes the run's logs. A run that was stopped has a limited time for it.
    pub(crate) async fn finish(&self, run: Run, was_stopped: bool) -> HandlerResult<Option<Stopped>> {
        let finish = async {
            let context = self.open(run).await?;
            Ok(context.pipeline.finish().await)
        };
        if was_stopped {
            if !matches!(timeout(FINAL_FLUSH_TIMEOUT, finish).await, Ok(Ok(Ok(())))) {
                tracing::debug!("the logs were not completed");
            }
            return Ok(None);
        }
        log_step_result(run, finish.await)
    }

    /// Tells the log and the observer that a run begins.
    ///
    /// # Errors
    /// Errors after which another worker should try.
    pub(crate) async fn announce_start(&self, run: Run) -> HandlerResult<()> {
        let view = self.0.view(run).await.and_then(Reply::into_result).map_err(retryable)?;
        let span = operation_span(run.id);
        describe(&span, &view.checkpoint.context, Some(&view.destination.location));
        let resumption = (run.number > 0).then_some(Resumption::Requested);
        let checkpoint = Checkpoint { status: OperationStatus::Running, ..view.checkpoint };
        let (observer, record) = (self.0.config.observer.as_deref(), record(run.id, checkpoint));
        announce_start(observer, &record, resumption).instrument(span).await;
        Ok(())
    }

    /// Tells the observer that a run has ended.
    ///
    /// # Errors
    /// Errors after which another worker should try.
    pub(crate) async fn announce_end(&self, run: Run) -> HandlerResult<()> {
        let Some(observer) = self.0.config.observer.as_deref() else { return Ok(()) };
        let announce = async {
            match self.0.view(run).await? {
                Reply::Done(view) if view.run == run.number => {
                    announce_end(observer, &record(run.id, view.checkpoint)).await
                }
                // It was resumed or deleted since.
                _ => Ok(()),
            }
        };
        announce.await.map_err(retryable)
    }

    /// Deletes the secret of an operation that has ended.
    pub(crate) async fn delete_secret(&self, run: Run) {
        self.0.config.delete_secret(run.id).await;
    }

    /// Is held while a batch is in progress.
    pub(crate) fn busy(&self) -> TaskTrackerToken {
        self.0.busy.token()
    }

    /// Waits until no more batches start.
    pub(crate) async fn draining(&self) {
        self.0.drain.cancelled().await;
    }

    /// Waits until batches in progress are dropped.
    pub(crate) async fn abandoned(&self) {
        self.0.abandon.cancelled().await;
    }

    /// Starts no more batches, waits at most `grace` for those in progress, and drops the rest.
    pub(crate) async fn drain(&self, grace: Duration) {
        let Shared { busy, drain, abandon, .. } = &*self.0;
        drain.cancel();
        busy.close();
        if timeout(grace, busy.wait()).await.is_err() {
            abandon.cancel();
            busy.wait().await;
        }
    }
}

impl Shared {
    async fn view(&self, run: Run) -> Result<Reply<View>> {
        self.ingress.get(OPERATION_SERVICE, &run.id.to_string(), "view").await
    }

    /// Removes a cell in which nothing was opened.
    fn remove_unopened(&self, run: Run, cell: &Arc<OnceCell<Arc<RunContext>>>) {
        let mut runs = lock(&self.runs);
        if runs.get(&run).is_some_and(|current| Arc::ptr_eq(current, cell) && current.get().is_none()) {
            runs.remove(&run);
        }
    }
}

impl RunContext {
    pub(crate) fn pipeline(&self) -> Arc<Pipeline> {
        Arc::clone(&self.pipeline)
    }

    /// Waits until the batches in progress are nearly done, and adds this one to the backlog. A worker may receive many
    /// batches at once, and without this they would all end late.
    pub(crate) async fn wait_for_backlog(&self, batch: &Batch) {
        let backlog = self.pipeline.backlog();
        let _queue = self.queue.lock().await;
        while !backlog.is_low() {
            backlog.wait_until_low().await;
        }
        backlog.add(batch.instances.len());
    }

    /// Stops the run in this process after an error.
    pub(crate) fn fail(&self, run: Run, error: &Error) -> Stopped {
        let failure = self.failure.get_or_init(|| Stopped::failed(run, error)).clone();
        self.stop.cancel();
        failure
    }

    /// Why the run was stopped.
    pub(crate) fn stop_reason(&self) -> Stopped {
        self.failure.get().cloned().unwrap_or(Stopped::Canceled)
    }
}

/// Converts the result of a step at the logs: the outer error is from opening the run.
fn log_step_result(run: Run, result: Result<Result<()>>) -> HandlerResult<Option<Stopped>> {
    match result {
        Ok(Ok(())) => Ok(None),
        // The run cannot be opened here or now.
        Err(error) if error.kind().is_transient() => Err(retryable(error)),
        Ok(Err(error)) | Err(error) => Ok(Some(Stopped::failed(run, &error))),
    }
}

/// Returns whether a run is the newest of its operation and is not canceled.
fn is_wanted(run: Run, view: &View) -> bool {
    let checkpoint = &view.checkpoint;
    view.run == run.number && !checkpoint.status.is_ended() && !checkpoint.cancel_requested
}

/// Polls whether a run is still wanted, and closes it when it is not, or when it is unused. Checks its sides meanwhile.
async fn poll(
    shared: Weak<Shared>,
    run: Run,
    context: Weak<RunContext>,
    mut monitor: SideMonitor,
    mut metrics: RunMetrics,
) {
    let mut polls = interval(POLL_INTERVAL);
    polls.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle = 0;
    loop {
        polls.tick().await;
        monitor.check().await;
        metrics.update();
        let Some(shared) = shared.upgrade() else { return };
        let is_unwanted = match shared.view(run).await {
            Ok(Reply::Done(view)) => !is_wanted(run, &view),
            Ok(_) => true,
            // Restate may be unavailable: work in progress continues.
            Err(_) => false,
        };
        let mut runs = lock(&shared.runs);
        if is_unwanted && let Some(context) = context.upgrade() {
            context.stop.cancel();
        }
        // One reference is the cell's own.
        idle = if context.strong_count() <= 1 { idle + 1 } else { 0 };
        if context.strong_count() == 0 || (idle > 0 && (is_unwanted || idle >= MAX_IDLE_POLLS)) {
            runs.remove(&run);
            return;
        }
    }
}
