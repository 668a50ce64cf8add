//! What the engine's door does to stored operations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::builder::Options;
use crate::engine::copy::Copies;
use crate::engine::progress::Counters;
use crate::engine::status::document;
use crate::engine::transfer::{Backlog, Transfers};
use crate::engine::{ExportObserver, OperationRecord, Progress, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Limiter, MemoryBudget, Retrier};
use crate::model::Timestamp;
use crate::model::{Checkpoint, Totals};
use crate::model::{Operation, OperationId, OperationSpec, OperationStatus, StoredDestination};
use crate::sink::{BlobSink, SinkProvider};
use crate::source::{InstanceSource, SourceProvider};
use crate::store::{OperationStore, SecretStore};
use crate::sync::lock;

/// How often a lost race for a checkpoint is run again.
const RACES: usize = 20;

/// What every handle on an engine shares.
pub(crate) struct Inner {
    pub(crate) sources: Arc<dyn SourceProvider>,
    pub(crate) destinations: HashMap<String, Arc<dyn SinkProvider>>,
    pub(super) store: Arc<dyn OperationStore>,
    pub(crate) secrets: Arc<dyn SecretStore>,
    /// Whether `secrets` was given by the host, who may share it with other processes.
    pub(crate) has_own_secrets: bool,
    pub(super) observer: Option<Arc<dyn ExportObserver>>,
    pub(crate) options: Options,
    pub(super) budget: MemoryBudget,
    pub(super) limiters: Mutex<HashMap<String, Weak<Limiter>>>,
    /// What runs in this process.
    pub(super) running: Mutex<HashMap<OperationId, Running>>,
    /// Sinks that operations were given open.
    pub(super) sinks: Mutex<HashMap<OperationId, Arc<dyn BlobSink>>>,
    /// When ended operations were last looked for.
    pub(super) swept: Mutex<Option<Instant>>,
    pub(super) tasks: TaskTracker,
    /// No operation is accepted any more.
    pub(crate) drain: CancellationToken,
    pub(crate) abandon: CancellationToken,
}

/// An operation that runs in this process.
pub(crate) struct Running {
    pub(super) cancel: CancellationToken,
    pub(super) progress: watch::Receiver<Progress>,
}

impl Inner {
    pub(crate) fn accepting(&self) -> Result<()> {
        match self.drain.is_cancelled() {
            true => Err(Error::new(ErrorKind::Unavailable, "the engine is shutting down")),
            false => Ok(()),
        }
    }

    pub(super) async fn record(&self, id: OperationId) -> Result<OperationRecord> {
        let checkpoint = self.store.load(id).await?;
        Ok(OperationRecord { operation: document(id, &checkpoint), context: checkpoint.context })
    }

    pub(super) async fn operation(&self, id: OperationId) -> Result<Operation> {
        self.record(id).await.map(|record| record.operation)
    }

    /// Whether an operation waits for somebody to run it.
    pub(super) async fn is_left(&self, id: OperationId) -> Result<bool> {
        let checkpoint = self.store.load(id).await?;
        Ok(!checkpoint.status.is_ended() && !checkpoint.is_held(Timestamp::now()))
    }

    /// Makes a failed operation run again, or checks that one may be.
    pub(super) async fn reopen(&self, id: OperationId, target: Option<Target>) -> Result<()> {
        let (spec, checkpoint) = (self.store.spec(id).await?, self.store.load(id).await?);
        self.resumable(&checkpoint)?;
        let destination = match target {
            Some(target) => Some(self.replace_target(&spec, target).await?),
            None => {
                self.secret(id, checkpoint.destination.as_ref().unwrap_or(&spec.destination)).await?;
                None
            }
        };
        self.change(id, |checkpoint| {
            self.resumable(checkpoint)?;
            checkpoint.reopen(destination.as_ref());
            Ok(())
        })
        .await?;
        Ok(())
    }

    fn resumable(&self, checkpoint: &Checkpoint) -> Result<()> {
        match checkpoint.status {
            OperationStatus::Completed | OperationStatus::Canceled => {
                Err(Error::new(ErrorKind::Conflict, "the operation has ended: there is nothing to resume"))
            }
            _ if checkpoint.is_held(Timestamp::now()) => {
                Err(Error::new(ErrorKind::Conflict, "the operation is running"))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn cancel(&self, id: OperationId) -> Result<()> {
        let checkpoint = self
            .change(id, |checkpoint| {
                if checkpoint.status.is_ended() {
                    return Err(Error::new(ErrorKind::Conflict, "the operation has ended"));
                }
                checkpoint.cancel_requested = true;
                if !checkpoint.is_held(Timestamp::now()) {
                    // Nobody is there to wind down.
                    checkpoint.status = OperationStatus::Canceled;
                    checkpoint.lease = None;
                }
                Ok(())
            })
            .await?;
        if checkpoint.status.is_ended() {
            self.forget(id).await;
        }
        if let Some(running) = self.running().get(&id) {
            running.cancel.cancel();
        }
        Ok(())
    }

    /// Changes a checkpoint, over whatever others do to it meanwhile.
    async fn change(
        &self,
        id: OperationId,
        change: impl Fn(&mut Checkpoint) -> Result<()> + Send + Sync,
    ) -> Result<Checkpoint> {
        for _ in 0..RACES {
            let mut checkpoint = self.store.load(id).await?;
            change(&mut checkpoint)?;
            checkpoint.last_updated_time = Timestamp::now();
            match self.store.save(id, &checkpoint).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                saved => return saved.map(|_| checkpoint),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the operation changes too often"))
    }

    /// What the transfers of one run of an operation share.
    pub(crate) fn transfers(
        &self,
        operation: Arc<OperationSpec>,
        source: Arc<dyn InstanceSource>,
        sink: Arc<dyn BlobSink>,
        totals: &Totals,
    ) -> Transfers {
        let concurrency = self.options.concurrency.max();
        Transfers {
            operation,
            limiter: self.limiter(&sink.throttle_key()),
            source,
            sink,
            observer: self.observer.clone(),
            reading: Arc::new(Retrier::new(self.options.retry.clone())),
            writing: Arc::new(Retrier::new(self.options.retry.clone())),
            concurrency,
            budget: self.budget.share(),
            counters: Arc::new(Counters::starting_at(totals)),
            backlog: Backlog::new(2 * concurrency),
            copies: Copies::default(),
            checks: self.options.checks.clone(),
        }
    }

    /// The limiter that operations towards one account share.
    fn limiter(&self, account: &str) -> Arc<Limiter> {
        let mut limiters = lock(&self.limiters);
        limiters.retain(|_, limiter| limiter.strong_count() > 0);
        if let Some(limiter) = limiters.get(account).and_then(Weak::upgrade) {
            return limiter;
        }
        let limiter = Arc::new(Limiter::new(self.options.concurrency));
        limiters.insert(account.to_owned(), Arc::downgrade(&limiter));
        limiter
    }

    pub(super) fn running(&self) -> MutexGuard<'_, HashMap<OperationId, Running>> {
        lock(&self.running)
    }

    pub(super) fn open_sinks(&self) -> MutexGuard<'_, HashMap<OperationId, Arc<dyn BlobSink>>> {
        lock(&self.sinks)
    }
}

impl Checkpoint {
    /// Makes a failed operation's run again, with this destination if it was given another.
    pub(crate) fn reopen(&mut self, destination: Option<&StoredDestination>) {
        self.status = OperationStatus::Running;
        self.error = None;
        if let Some(destination) = destination {
            self.warn_of_expiry(destination.expires, None);
            self.destination = Some(destination.clone());
        }
    }
}
