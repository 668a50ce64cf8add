//! [`Ledger`]: a running operation's checkpoint, saved over and over under its lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Retrier;
use crate::model::Timestamp;
use crate::model::{Checkpoint, Lease};
use crate::model::{OperationId, OperationIssue, OperationStatus};
use crate::store::OperationStore;

/// The checkpoint of an operation that this runner holds the lease of.
///
/// Each save renews the lease. A save that loses its race reloads: if the lease is still ours the other change was a
/// wish to cancel, which is obeyed; if it is not, somebody took a lapsed lease over, and this runner stops.
pub(crate) struct Ledger {
    store: Arc<dyn OperationStore>,
    retrier: Retrier,
    id: OperationId,
    holder: String,
    term: Duration,
    cancel: CancellationToken,
    pub(crate) checkpoint: Checkpoint,
    saved: Instant,
}

impl Ledger {
    /// Takes the operation's lease.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when somebody else holds it, or the operation has ended.
    pub(crate) async fn claim(
        store: Arc<dyn OperationStore>,
        retrier: Retrier,
        id: OperationId,
        term: Duration,
        cancel: CancellationToken,
    ) -> Result<Self> {
        let checkpoint = retrier.run(|| store.load(id)).await?;
        let holder = OperationId::random().to_string();
        if checkpoint.status.is_ended() {
            return Err(Error::new(ErrorKind::Conflict, "the operation has ended"));
        }
        let now = Timestamp::now();
        if checkpoint.is_held(now) {
            return Err(Error::new(ErrorKind::Conflict, "the operation is being run already"));
        }
        let mut ledger = Self { store, retrier, id, holder, term, cancel, checkpoint, saved: Instant::now() };
        ledger.checkpoint.status = OperationStatus::Running;
        ledger.checkpoint.lease = Some(ledger.lease(now));
        // Whoever is quicker has it.
        ledger.save().await?;
        Ok(ledger)
    }

    /// Saves the checkpoint, and renews the lease.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] when the lease is lost.
    pub(crate) async fn save(&mut self) -> Result<()> {
        let now = Timestamp::now();
        self.checkpoint.last_updated_time = now;
        if self.checkpoint.lease.is_some() {
            self.checkpoint.lease = Some(self.lease(now));
        }
        loop {
            let (store, id, checkpoint) = (&self.store, self.id, &self.checkpoint);
            match self.retrier.run(|| store.save(id, checkpoint)).await {
                Ok(version) => {
                    self.checkpoint.version = version;
                    self.saved = Instant::now();
                    self.obey();
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Conflict => self.reload().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the operation, and gives the lease up.
    pub(crate) async fn end(&mut self, status: OperationStatus, error: Option<OperationIssue>) -> Result<()> {
        self.checkpoint.status = status;
        self.checkpoint.error = error;
        self.release().await
    }

    /// Gives the lease up: whoever comes next goes on.
    pub(crate) async fn release(&mut self) -> Result<()> {
        self.checkpoint.lease = None;
        self.save().await
    }

    /// Waits until the lease wants renewing.
    pub(crate) async fn due(&self) {
        sleep_until(self.saved + self.term / 3).await;
    }

    /// Runs something that may take long, and keeps the lease meanwhile.
    pub(crate) async fn keep<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                () = self.due() => self.save().await?,
            }
        }
    }

    async fn reload(&mut self) -> Result<()> {
        let (store, id) = (&self.store, self.id);
        let stored = self.retrier.run(|| store.load(id)).await?;
        // A save that passed although its answer was lost shows here too: it bears our holder's name, or is the very
        // one that gave the lease up. No lease alone says nothing: whoever took a lapsed one over may have ended.
        let ours = match &stored.lease {
            Some(lease) => lease.holder == self.holder,
            None => stored == Checkpoint { version: stored.version, ..self.checkpoint.clone() },
        };
        if !ours {
            return Err(Error::new(ErrorKind::Conflict, "another runner has taken the operation over"));
        }
        self.checkpoint.version = stored.version;
        self.checkpoint.cancel_requested |= stored.cancel_requested;
        Ok(())
    }

    fn obey(&self) {
        if self.checkpoint.cancel_requested {
            self.cancel.cancel();
        }
    }

    fn lease(&self, now: Timestamp) -> Lease {
        Lease::new(&*self.holder, now, self.term)
    }
}
