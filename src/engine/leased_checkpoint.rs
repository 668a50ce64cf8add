//! [`LeasedCheckpoint`]: the checkpoint of an operation that this runner holds the lease of.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Retrier;
use crate::model::{Checkpoint, Lease, OperationId, OperationIssue, OperationStatus, Timestamp};
use crate::store::OperationStore;

/// A checkpoint that is saved repeatedly under the operation's lease.
///
/// Each save renews the lease. A save that conflicts reloads the stored checkpoint. If the lease is still this runner's,
/// the other change was a request to cancel, which is obeyed; if it is not, another runner has taken over the lapsed
/// lease, and this runner stops.
pub(super) struct LeasedCheckpoint {
    store: Arc<dyn OperationStore>,
    retrier: Retrier,
    id: OperationId,
    holder: String,
    duration: Duration,
    cancel: CancellationToken,
    pub(super) checkpoint: Checkpoint,
    saved: Instant,
}

impl LeasedCheckpoint {
    /// Takes the operation's lease. `cancel` is canceled when a request to cancel is found.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another runner holds the lease, or the operation has ended.
    pub(super) async fn claim(
        store: Arc<dyn OperationStore>,
        retrier: Retrier,
        id: OperationId,
        duration: Duration,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let checkpoint = retrier.run(|| store.load(id)).await?;
        let holder = OperationId::random().to_string();
        if checkpoint.status.is_ended() {
            return Err(Error::new(ErrorKind::Conflict, "the operation has ended"));
        }
        let now = Timestamp::now();
        if checkpoint.is_held(now) {
            return Err(Error::new(ErrorKind::Conflict, "the operation is already running"));
        }
        let mut leased =
            Self { store, retrier, id, holder, duration, cancel, checkpoint, saved: Instant::now() };
        leased.checkpoint.status = OperationStatus::Running;
        leased.checkpoint.lease = Some(leased.lease_from(now));
        // The first runner to save has the lease.
        leased.save().await?;
        Ok(leased)
    }

    /// Saves the checkpoint and renews the lease.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the lease is lost; otherwise the store's.
    pub(super) async fn save(&mut self) -> Result<()> {
        let now = Timestamp::now();
        self.checkpoint.last_updated_time = now;
        if self.checkpoint.lease.is_some() {
            self.checkpoint.lease = Some(self.lease_from(now));
        }
        loop {
            let (store, id, checkpoint) = (&self.store, self.id, &self.checkpoint);
            match self.retrier.run(|| store.save(id, checkpoint)).await {
                Ok(version) => {
                    self.checkpoint.version = version;
                    self.saved = Instant::now();
                    if self.checkpoint.cancel_requested {
                        self.cancel.cancel();
                    }
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Conflict => self.reload().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the operation and releases the lease.
    pub(super) async fn end(&mut self, status: OperationStatus, error: Option<OperationIssue>) -> Result<()> {
        self.checkpoint.status = status;
        self.checkpoint.error = error;
        self.release().await
    }

    /// Releases the lease, so that another runner can continue.
    pub(super) async fn release(&mut self) -> Result<()> {
        self.checkpoint.lease = None;
        self.save().await
    }

    /// Waits until the lease should be renewed.
    pub(super) async fn renewal_due(&self) {
        sleep_until(self.saved + self.duration / 3).await;
    }

    /// Runs work that may take long, and renews the lease meanwhile.
    ///
    /// # Errors
    /// The work's, or [`ErrorKind::Conflict`] if the lease is lost, which drops the work.
    pub(super) async fn renew_during<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                () = self.renewal_due() => self.save().await?,
            }
        }
    }

    async fn reload(&mut self) -> Result<()> {
        let (store, id) = (&self.store, self.id);
        let stored = self.retrier.run(|| store.load(id)).await?;
        // The conflict may also be an earlier save of this runner whose response was lost: it has this runner's lease, or
        // it is exactly the save that released the lease. A missing lease alone proves nothing, since a runner that took
        // over may have ended.
        let is_own = match &stored.lease {
            Some(lease) => lease.holder == self.holder,
            None => stored == Checkpoint { version: stored.version, ..self.checkpoint.clone() },
        };
        if !is_own {
            return Err(Error::new(ErrorKind::Conflict, "another runner has taken over the operation"));
        }
        self.checkpoint.version = stored.version;
        self.checkpoint.cancel_requested |= stored.cancel_requested;
        Ok(())
    }

    fn lease_from(&self, now: Timestamp) -> Lease {
        Lease::new(&*self.holder, now, self.duration)
    }
}
