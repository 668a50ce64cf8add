//! How many requests run at once towards one destination or source.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Shared by every operation towards one destination account, or one DICOMweb source: a number of requests at once,
/// and a pause that the other side asked for.
#[derive(Debug)]
pub(crate) struct Limiter {
    slots: Arc<Semaphore>,
    resume_at: Mutex<Option<Instant>>,
}

impl Limiter {
    pub(crate) fn new(requests: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(requests.max(1))), resume_at: Mutex::new(None) }
    }

    /// Waits until a request may go out; dropping the permit makes room for the next.
    pub(crate) async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.slots).acquire_owned().await.ok();
        // Read after the wait for a slot: the pause may have been asked for meanwhile.
        while let Some(at) = self.resume_at() {
            sleep_until(at).await;
        }
        permit
    }

    /// The destination asked to be left alone for so long.
    pub(crate) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut resume_at = self.resume_at.lock().unwrap_or_else(PoisonError::into_inner);
        *resume_at = Some(resume_at.map_or(until, |at| at.max(until)));
    }

    fn resume_at(&self) -> Option<Instant> {
        let resume_at = self.resume_at.lock().unwrap_or_else(PoisonError::into_inner);
        resume_at.filter(|at| *at > Instant::now())
    }
}
