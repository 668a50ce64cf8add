//! [`LeasedCheckpoint`]: the checkpoint of an operation that this runner holds the lease of.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::engine::registry::RunRequests;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Retrier;
use crate::model::{Checkpoint, Lease, OperationId, OperationIssue, OperationStatus, Timestamp};
use crate::pipeline::log_ended;
use crate::store::OperationStore;

/// How many times a claim is attempted while others change the checkpoint.
const MAX_CLAIM_ATTEMPTS: u32 = 20;

/// A checkpoint that is saved repeatedly under the operation's lease.
///
/// Each save renews the lease. A save that conflicts reloads the stored checkpoint. If the lease is still this runner's,
/// the other change was a request to the runner, which is obeyed; if it is not, another runner has taken over the lapsed
/// lease, and this runner stops.
pub(super) struct LeasedCheckpoint {
    terms: LeaseTerms,
    id: OperationId,
    pub(super) checkpoint: Checkpoint,
    /// Whether the operation had started before this runner took the lease.
    pub(super) was_started: bool,
    saved: Instant,
}

/// How a lease is taken and renewed.
pub(super) struct LeaseTerms {
    pub(super) store: Arc<dyn OperationStore>,
    pub(super) retrier: Arc<Retrier>,
    /// Identifies the run.
    pub(super) holder: String,
    /// The name of the runner.
    pub(super) runner: String,
    pub(super) duration: Duration,
    /// What is requested in the checkpoint is passed on to the run.
    pub(super) requests: RunRequests,
    /// Whether an observer is to be told of the end.
    pub(super) has_observer: bool,
}

impl LeaseTerms {
    pub(super) fn lease_from(&self, now: Timestamp) -> Lease {
        Lease::new(&*self.holder, now, self.duration)
    }

    fn is_holder(&self, checkpoint: &Checkpoint) -> bool {
        checkpoint.lease.as_ref().is_some_and(|lease| lease.holder == self.holder)
    }
}

impl LeasedCheckpoint {
    /// Takes the operation's lease for `holder`, and applies `change` to the checkpoint in the same save.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another runner holds the lease; otherwise those of `change` and of the store.
    pub(super) async fn claim(
        terms: LeaseTerms,
        id: OperationId,
        change: impl Fn(&mut Checkpoint) -> Result<()> + Send + Sync,
    ) -> Result<Self> {
        let mut attempts = 0;
        loop {
            let checkpoint = terms.retrier.run(|| terms.store.load(id)).await?;
            let now = terms.retrier.run(|| terms.store.now()).await?;
            // After the end, the holder of a lease delivers the end, which a resumption makes obsolete.
            let is_running = !checkpoint.status.is_ended() && checkpoint.is_held(now);
            if is_running && !terms.is_holder(&checkpoint) {
                return Err(Error::new(ErrorKind::Conflict, "the operation is already running"));
            }
            let was_started = checkpoint.status != OperationStatus::NotStarted;
            let mut changed = checkpoint;
            change(&mut changed)?;
            changed.status = OperationStatus::Running;
            changed.lease = Some(terms.lease_from(now));
            changed.runner = Some(terms.runner.clone());
            changed.last_updated_time = Timestamp::now();
            // The first runner to save has the lease.
            match terms.retrier.run(|| terms.store.save(id, &changed)).await {
                Ok(version) => {
                    changed.version = version;
                    return Ok(Self { was_started, ..Self::new(terms, id, changed) });
                }
                // Another change came first, or the response to this save was lost. The next attempt finds out.
                Err(error) if error.kind() == ErrorKind::Conflict && attempts < MAX_CLAIM_ATTEMPTS => {
                    attempts += 1;
                    let stored = terms.retrier.run(|| terms.store.load(id)).await?;
                    if terms.is_holder(&stored) {
                        return Ok(Self { was_started, ..Self::new(terms, id, stored) });
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Creates the leased checkpoint of an operation that was stored with the lease of `terms`.
    pub(super) fn new(terms: LeaseTerms, id: OperationId, checkpoint: Checkpoint) -> Self {
        terms.requests.obey(&checkpoint);
        Self { terms, id, checkpoint, was_started: false, saved: Instant::now() }
    }

    /// The retries towards the operation store.
    pub(super) fn store_retrier(&self) -> &Arc<Retrier> {
        &self.terms.retrier
    }

    /// Saves the checkpoint and renews the lease.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the lease is lost; otherwise the store's.
    pub(super) async fn save(&mut self) -> Result<()> {
        self.checkpoint.last_updated_time = Timestamp::now();
        loop {
            match self.terms.retrier.run(|| self.save_once()).await {
                Ok(saved) => {
                    self.checkpoint = saved;
                    self.saved = Instant::now();
                    self.terms.requests.obey(&self.checkpoint);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::Conflict => self.reload().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Saves the checkpoint, with a lease from now on, and returns it as it is stored.
    async fn save_once(&self) -> Result<Checkpoint> {
        let mut checkpoint = self.checkpoint.clone();
        if checkpoint.lease.is_some() {
            checkpoint.lease = Some(self.terms.lease_from(self.terms.store.now().await?));
        }
        checkpoint.version = self.terms.store.save(self.id, &checkpoint).await?;
        Ok(checkpoint)
    }

    /// Ends the operation, releases the lease, and logs the end.
    pub(super) async fn end(
        &mut self,
        status: OperationStatus,
        error: Option<OperationIssue>,
    ) -> Result<OperationStatus> {
        self.checkpoint.end(status, error, self.terms.has_observer);
        self.save().await?;
        log_ended(&self.checkpoint);
        Ok(status)
    }

    /// Pauses the operation and releases the lease. Returns the saved status: a request to cancel may have come first.
    pub(super) async fn pause(&mut self) -> Result<OperationStatus> {
        self.checkpoint.pause();
        self.save().await?;
        match self.checkpoint.cancel_requested {
            true => self.end(OperationStatus::Canceled, None).await,
            false => Ok(OperationStatus::Paused),
        }
    }

    /// Releases the lease, so that another runner can continue. Returns the saved status.
    pub(super) async fn release(&mut self) -> Result<OperationStatus> {
        self.checkpoint.lease = None;
        self.save().await?;
        Ok(self.checkpoint.status)
    }

    /// Returns whether the lease should be renewed before anything is written: it may have lapsed if this process was
    /// suspended.
    pub(super) fn is_renewal_due(&self) -> bool {
        self.saved.elapsed() >= self.terms.duration / 3
    }

    /// Waits until the lease should be renewed.
    pub(super) async fn renewal_due(&self) {
        sleep_until(self.saved + self.terms.duration / 3).await;
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
        let (store, id) = (&self.terms.store, self.id);
        let stored = self.terms.retrier.run(|| store.load(id)).await?;
        // The conflict may also be an earlier save of this runner whose response was lost: it has this runner's lease, or
        // it is exactly the save that released the lease. A missing lease alone proves nothing, since a runner that took
        // over may have ended.
        let is_own = match &stored.lease {
            Some(_) => self.terms.is_holder(&stored),
            None => stored == Checkpoint { version: stored.version, ..self.checkpoint.clone() },
        };
        if !is_own {
            return Err(Error::new(ErrorKind::Conflict, "another runner has taken over the operation"));
        }
        self.checkpoint.version = stored.version;
        self.checkpoint.cancel_requested |= stored.cancel_requested;
        // A paused operation has obeyed the request.
        self.checkpoint.pause_requested |=
            stored.pause_requested && self.checkpoint.status != OperationStatus::Paused;
        self.checkpoint.bytes_per_second = stored.bytes_per_second;
        Ok(())
    }
}
