//! What the engine's door does to stored operations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::engine::builder::Knobs;
use crate::engine::status::document;
use crate::engine::{ExportObserver, OperationRecord, Progress, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{ByteBudget, Limiter};
use crate::operation::{Operation, OperationId, OperationStatus};
use crate::sink::{BlobSink, SinkProvider};
use crate::source::SourceProvider;
use crate::store::{Checkpoint, OperationStore, SecretStore};
use crate::timestamp::Timestamp;

/// How often a lost race for a checkpoint is run again.
const RACES: usize = 20;

/// What every handle on an engine shares.
pub(super) struct Inner {
    pub(super) sources: Arc<dyn SourceProvider>,
    pub(super) destinations: HashMap<String, Arc<dyn SinkProvider>>,
    pub(super) store: Arc<dyn OperationStore>,
    pub(super) secrets: Arc<dyn SecretStore>,
    pub(super) observer: Option<Arc<dyn ExportObserver>>,
    pub(super) knobs: Knobs,
    pub(super) budget: ByteBudget,
    pub(super) limiters: Mutex<HashMap<String, Weak<Limiter>>>,
    /// What runs in this process.
    pub(super) running: Mutex<HashMap<OperationId, Running>>,
    /// Sinks that operations were given open.
    pub(super) sinks: Mutex<HashMap<OperationId, Arc<dyn BlobSink>>>,
    /// When ended operations were last looked for.
    pub(super) swept: Mutex<Option<Instant>>,
    pub(super) tasks: TaskTracker,
    /// No operation is accepted any more.
    pub(super) drain: CancellationToken,
    pub(super) abandon: CancellationToken,
}

/// An operation that runs in this process.
pub(super) struct Running {
    pub(super) cancel: CancellationToken,
    pub(super) progress: watch::Receiver<Progress>,
}

impl Inner {
    pub(super) fn accepting(&self) -> Result<()> {
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
            checkpoint.status = OperationStatus::Running;
            checkpoint.error = None;
            if let Some(destination) = &destination {
                checkpoint.warn_of_expiry(destination.expires, None);
                checkpoint.destination = Some(destination.clone());
            }
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

    /// The limiter that operations towards one account share.
    pub(super) fn limiter(&self, account: &str) -> Arc<Limiter> {
        let mut limiters = self.limiters.lock().unwrap_or_else(PoisonError::into_inner);
        limiters.retain(|_, limiter| limiter.strong_count() > 0);
        if let Some(limiter) = limiters.get(account).and_then(Weak::upgrade) {
            return limiter;
        }
        let limiter = Arc::new(Limiter::new(self.knobs.concurrency));
        limiters.insert(account.to_owned(), Arc::downgrade(&limiter));
        limiter
    }

    pub(super) fn running(&self) -> MutexGuard<'_, HashMap<OperationId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn open_sinks(&self) -> MutexGuard<'_, HashMap<OperationId, Arc<dyn BlobSink>>> {
        self.sinks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
