//! [`Worker`]: the engine of a worker process, and the operations that it has opened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};
use std::time::Duration;

use restate_sdk::prelude::HandlerResult;
use tokio::sync::{Mutex as Turn, OnceCell};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::engine::{Batch, ExportEngine, Lines, Planner, Transfers};
use crate::error::{Error, Result};
use crate::model::OperationSpec;
use crate::model::Position;
use crate::restate::ingress::Door;
use crate::restate::operations;
use crate::restate::specs;
use crate::restate::wire::{Answer, Run, Stopped, View, again};
use crate::sink::LogKey;
use crate::sync::lock;

/// How often a worker looks whether what it works on is wanted still: that is how a cancellation reaches the batches
/// under way.
const LOOK: Duration = Duration::from_secs(1);

/// An operation that nothing here has used for so many looks is closed.
const IDLE: u32 = 10;

/// How long an operation that ends early may take to close its log.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What the services of a worker process share.
#[derive(Clone)]
pub(crate) struct Worker(Arc<Shared>);

struct Shared {
    engine: ExportEngine,
    door: Door,
    opened: Mutex<HashMap<Run, Arc<OnceCell<Arc<Opened>>>>>,
    /// Batches under way.
    busy: TaskTracker,
}

/// A run of an operation, with its source and its sink open in this process.
pub(crate) struct Opened {
    transfers: Arc<Transfers>,
    /// Nothing more is to be done for it.
    pub(crate) stop: CancellationToken,
    /// What made it fail, if that was found here.
    failed: OnceLock<Stopped>,
    /// Batches begin one after the other.
    turn: Turn<()>,
}

impl Worker {
    pub(crate) fn new(engine: ExportEngine, door: Door) -> Self {
        Self(Arc::new(Shared { engine, door, opened: Mutex::default(), busy: TaskTracker::new() }))
    }

    /// The run, opened once in this process.
    pub(crate) async fn open(&self, run: Run) -> Result<Arc<Opened>> {
        let cell = Arc::clone(self.0.lock().entry(run).or_default());
        match cell.get_or_try_init(|| self.open_now(run)).await {
            Ok(opened) => Ok(Arc::clone(opened)),
            Err(error) => {
                self.0.close(run, &cell);
                Err(error)
            }
        }
    }

    async fn open_now(&self, run: Run) -> Result<Arc<Opened>> {
        let Shared { engine, door, .. } = &*self.0;
        let view = door.ask::<Answer<View>>(operations::SERVICE, &run.id.to_string(), "view").await?;
        let view = view.into_result()?;
        let spec = specs::fetch(door, run.id, &view.spec).await?;
        let spec = Arc::new(OperationSpec { destination: view.destination.clone(), ..spec });
        let source = engine.inner.sources.open(&spec).await?;
        let sink = engine.inner.open_sink(&spec).await?;
        let transfers = engine.inner.transfers(spec, source, sink, &view.checkpoint.totals);
        let opened = Arc::new(Opened {
            transfers: Arc::new(transfers),
            stop: CancellationToken::new(),
            failed: OnceLock::new(),
            turn: Turn::new(()),
        });
        if !is_wanted(run, &view) {
            opened.stop.cancel();
        }
        tokio::spawn(watch(Arc::downgrade(&self.0), run, Arc::downgrade(&opened)));
        Ok(opened)
    }

    /// A planner that lists on from a position.
    pub(crate) fn planner(&self, opened: &Opened, from: Position) -> Planner {
        opened.transfers.planner(self.0.engine.inner.options.batch_size, from)
    }

    /// How many instances the source thinks there are.
    pub(crate) async fn estimate(&self, run: Run) -> Option<u64> {
        self.open(run).await.ok()?.transfers.estimate().await
    }

    /// Appends lines to the run's logs; gives why it cannot.
    pub(crate) async fn append(&self, run: Run, first: u64, lines: &Lines) -> HandlerResult<Option<Stopped>> {
        let append = async {
            let opened = self.open(run).await?;
            Ok(opened.transfers.append(LogKey::new(run.number, first), &mut lines.clone()).await)
        };
        verdict(append.await)
    }

    /// The step `finish`: the logs are made whole. A run that was stopped gets what time there is.
    pub(crate) async fn finish(&self, run: Run, was_stopped: bool) -> HandlerResult<Option<Stopped>> {
        let finish = async {
            let opened = self.open(run).await?;
            Ok(opened.transfers.finish().await)
        };
        if was_stopped {
            if !matches!(timeout(LAST_WORDS, finish).await, Ok(Ok(Ok(())))) {
                tracing::debug!("the log was not closed");
            }
            return Ok(None);
        }
        verdict(finish.await)
    }

    /// Drops what must not outlive the operation's end.
    pub(crate) async fn forget(&self, run: Run) {
        self.0.engine.inner.forget(run.id).await;
    }

    /// Held while a batch is under way.
    pub(crate) fn busy(&self) -> TaskTrackerToken {
        self.0.busy.token()
    }

    /// No batch begins any more.
    pub(crate) async fn draining(&self) {
        self.0.engine.inner.drain.cancelled().await;
    }

    /// Batches under way are dropped.
    pub(crate) async fn abandoned(&self) {
        self.0.engine.inner.abandon.cancelled().await;
    }

    /// Lets no batch begin any more, lets those under way finish for so long, and drops the rest.
    pub(crate) async fn drain(&self, grace: Duration) {
        let Shared { engine, busy, .. } = &*self.0;
        engine.inner.drain.cancel();
        busy.close();
        if timeout(grace, busy.wait()).await.is_err() {
            engine.inner.abandon.cancel();
            busy.wait().await;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<Run, Arc<OnceCell<Arc<Opened>>>>> {
        lock(&self.opened)
    }

    /// Drops a cell that nothing was opened in.
    fn close(&self, run: Run, cell: &Arc<OnceCell<Arc<Opened>>>) {
        let mut opened = self.lock();
        if opened.get(&run).is_some_and(|there| Arc::ptr_eq(there, cell) && there.get().is_none()) {
            opened.remove(&run);
        }
    }
}

impl Opened {
    pub(crate) fn transfers(&self) -> Arc<Transfers> {
        Arc::clone(&self.transfers)
    }

    /// Waits until the batches that have begun are nearly done, and takes its place after them: one worker may be given
    /// many at once, and they would all end late.
    pub(crate) async fn room_for(&self, batch: &Batch) {
        let backlog = &self.transfers.backlog;
        let _turn = self.turn.lock().await;
        while !backlog.is_low() {
            backlog.low().await;
        }
        backlog.grow(batch.instances.len());
    }

    /// Nothing more is done for the run here.
    pub(crate) fn fail(&self, error: &Error) -> Stopped {
        let failed = self.failed.get_or_init(|| Stopped::failed(error)).clone();
        self.stop.cancel();
        failed
    }

    pub(crate) fn why_stopped(&self) -> Stopped {
        self.failed.get().cloned().unwrap_or(Stopped::Canceled)
    }
}

/// What becomes of a step at the log.
fn verdict(outcome: Result<Result<()>>) -> HandlerResult<Option<Stopped>> {
    match outcome {
        Ok(Ok(())) => Ok(None),
        // The operation cannot be opened here or now.
        Err(error) if error.kind().is_transient() => Err(again(error)),
        Ok(Err(error)) | Err(error) => Ok(Some(Stopped::failed(&error))),
    }
}

fn is_wanted(run: Run, view: &View) -> bool {
    let checkpoint = &view.checkpoint;
    view.run == run.number && !checkpoint.status.is_ended() && !checkpoint.cancel_requested
}

/// Looks now and then whether a run is wanted still, and closes it when it is not, or when nobody uses it.
async fn watch(shared: Weak<Shared>, run: Run, opened: Weak<Opened>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut idle = 0;
    loop {
        looks.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        let answer = shared.door.ask::<Answer<View>>(operations::SERVICE, &run.id.to_string(), "view").await;
        let is_unwanted = match answer {
            Ok(Answer::Done(view)) => !is_wanted(run, &view),
            Ok(_) => true,
            // Restate may be away: what is under way goes on.
            Err(_) => false,
        };
        let mut cells = shared.lock();
        if is_unwanted && let Some(opened) = opened.upgrade() {
            opened.stop.cancel();
        }
        // Only the cell holds it.
        idle = if opened.strong_count() <= 1 { idle + 1 } else { 0 };
        if opened.strong_count() == 0 || (idle > 0 && (is_unwanted || idle >= IDLE)) {
            cells.remove(&run);
            return;
        }
    }
}
