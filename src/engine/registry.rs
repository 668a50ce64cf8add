//! [`Registry`]: the operations that run in this process, and its shutdown.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::RateLimit;
use crate::model::{Checkpoint, OperationId};
use crate::pipeline::{OpenedOperation, Progress};
use crate::sink::BlobSink;
use crate::sync::{lock, panicked};

/// The number of ended runs whose progress stays readable.
const MAX_ENDED: usize = 1024;

/// What is requested of a run: by a call in this process, or through the stored checkpoint.
#[derive(Debug, Clone)]
pub(super) struct RunRequests {
    /// The operation is canceled: all work in progress is dropped.
    pub(super) cancel: CancellationToken,
    /// The operation is paused: all work in progress is dropped, to be resumed.
    pub(super) pause: CancellationToken,
    /// The limit on the operation's bytes per second.
    pub(super) bytes: Arc<RateLimit>,
}

impl RunRequests {
    fn new() -> Self {
        Self {
            cancel: CancellationToken::new(),
            pause: CancellationToken::new(),
            bytes: Arc::new(RateLimit::new(0)),
        }
    }

    /// Makes the run obey what is stored.
    pub(super) fn obey(&self, checkpoint: &Checkpoint) {
        if checkpoint.cancel_requested {
            self.cancel.cancel();
        }
        if checkpoint.pause_requested {
            self.pause.cancel();
        }
        self.bytes.set(checkpoint.bytes_per_second.map_or(0, NonZeroU64::get));
    }
}

/// Why a run stops before its work is done.
#[derive(Debug, Clone)]
pub(super) struct StopSignals {
    pub(super) cancel: CancellationToken,
    pub(super) pause: CancellationToken,
    /// The process shuts down: batches in progress finish, and no new one starts.
    pub(super) drain: CancellationToken,
    /// The shutdown cannot wait: all work in progress is dropped, to be resumed.
    pub(super) abandon: CancellationToken,
}

/// The runs of an engine in this process.
#[derive(Default)]
pub(super) struct Registry {
    runs: Mutex<Runs>,
    /// Sinks that were passed in open. They are kept until the operation ends.
    open_sinks: Mutex<HashMap<OperationId, Arc<dyn BlobSink>>>,
    /// Canceled when the engine accepts no more operations.
    drain: CancellationToken,
    abandon: CancellationToken,
    pub(super) tasks: TaskTracker,
}

#[derive(Default)]
struct Runs {
    running: HashMap<OperationId, RunningOperation>,
    /// The newest at the back.
    ended: VecDeque<(OperationId, watch::Receiver<Progress>)>,
}

struct RunningOperation {
    requests: RunRequests,
    progress: watch::Receiver<Progress>,
}

/// A registered run. It can be observed and canceled from before it starts until the guard is dropped.
pub(super) struct RunGuard {
    registry: Arc<Registry>,
    pub(super) id: OperationId,
    /// Identifies the run in the operation's lease.
    pub(super) holder: String,
    pub(super) requests: RunRequests,
    pub(super) stop: StopSignals,
    pub(super) progress: watch::Sender<Progress>,
}

impl Registry {
    /// # Errors
    /// [`ErrorKind::Unavailable`] while the engine shuts down.
    pub(super) fn check_accepting(&self) -> Result<()> {
        match self.drain.is_cancelled() {
            true => Err(shutting_down()),
            false => Ok(()),
        }
    }

    /// Registers a run.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the operation runs in this process already.
    pub(super) fn register(self: &Arc<Self>, id: OperationId) -> Result<RunGuard> {
        let requests = RunRequests::new();
        let stop = StopSignals {
            cancel: requests.cancel.clone(),
            pause: requests.pause.clone(),
            drain: self.drain.clone(),
            abandon: self.abandon.clone(),
        };
        let (sender, progress) = watch::channel(Progress::default());
        match lock(&self.runs).running.entry(id) {
            Entry::Occupied(_) => {
                return Err(Error::new(ErrorKind::Conflict, "the operation is already running"));
            }
            Entry::Vacant(entry) => {
                entry.insert(RunningOperation { requests: requests.clone(), progress });
            }
        }
        let holder = OperationId::random().to_string();
        Ok(RunGuard { registry: Arc::clone(self), id, holder, requests, stop, progress: sender })
    }

    /// Returns the progress of an operation that runs in this process or recently did.
    pub(super) fn progress(&self, id: OperationId) -> Option<watch::Receiver<Progress>> {
        let runs = lock(&self.runs);
        let ended = || runs.ended.iter().rev().find(|(ended, _)| *ended == id).map(|(_, progress)| progress);
        runs.running.get(&id).map(|run| &run.progress).or_else(ended).cloned()
    }

    pub(super) fn running(&self) -> usize {
        lock(&self.runs).running.len()
    }

    /// Returns the requests of a run in this process.
    pub(super) fn requests(&self, id: OperationId) -> Option<RunRequests> {
        lock(&self.runs).running.get(&id).map(|run| run.requests.clone())
    }

    /// Keeps the sink of an operation if it cannot be opened again.
    pub(super) fn keep_open_sink(&self, operation: &OpenedOperation) {
        if operation.has_open_sink() {
            lock(&self.open_sinks).insert(operation.spec.id, Arc::clone(&operation.sink));
        }
    }

    pub(super) fn open_sink(&self, id: OperationId) -> Option<Arc<dyn BlobSink>> {
        lock(&self.open_sinks).get(&id).cloned()
    }

    pub(super) fn drop_open_sink(&self, id: OperationId) {
        lock(&self.open_sinks).remove(&id);
    }

    /// Runs work to its end in a task that a shutdown waits for, although the caller may drop the returned future.
    ///
    /// # Errors
    /// The work's; [`ErrorKind::Unavailable`] if the shutdown could not wait for it, [`ErrorKind::Internal`] if it
    /// panicked.
    pub(super) async fn run_detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let abandon = self.abandon.clone();
        let work = async move {
            tokio::select! {
                biased;
                outcome = work => outcome,
                () = abandon.cancelled() => Err(shutting_down()),
            }
        };
        self.tasks.spawn(work.in_current_span()).await.unwrap_or_else(|cause| Err(panicked(cause)))
    }

    /// Returns the token that is canceled when the engine accepts no more operations.
    pub(super) fn drain_token(&self) -> CancellationToken {
        self.drain.clone()
    }

    /// Returns the token that is canceled when a shutdown waits no longer.
    pub(super) fn abandon_token(&self) -> CancellationToken {
        self.abandon.clone()
    }

    /// Accepts no more operations, waits at most `grace` for batches in progress, drops the rest, and returns when
    /// nothing runs.
    pub(super) async fn shutdown(&self, grace: Duration) {
        self.drain.cancel();
        self.tasks.close();
        if timeout(grace, self.tasks.wait()).await.is_err() {
            self.abandon.cancel();
            self.tasks.wait().await;
        }
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "the engine is shutting down")
}

impl Drop for RunGuard {
    fn drop(&mut self) {
        let mut runs = lock(&self.registry.runs);
        if let Some(run) = runs.running.remove(&self.id) {
            runs.ended.retain(|(id, _)| *id != self.id);
            runs.ended.push_back((self.id, run.progress));
            if runs.ended.len() > MAX_ENDED {
                runs.ended.pop_front();
            }
        }
    }
}
