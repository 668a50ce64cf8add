//! [`RequestLimiter`]: limits the number of concurrent requests of one kind.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::sync::lock;

/// The maximum pause that one response's `Retry-After` imposes on other requests. The engine waits for the whole
/// `Retry-After` before it repeats the request itself.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Limits concurrent requests. A permit is held until the response's body has been read.
#[derive(Debug)]
pub(super) struct RequestLimiter {
    permits: Arc<Semaphore>,
    resume_at: Mutex<Option<Instant>>,
}

/// Permission for one request; dropping it returns it.
#[derive(Debug)]
pub(super) struct RequestPermit {
    _permit: Option<OwnedSemaphorePermit>,
}

impl RequestLimiter {
    pub(super) fn new(requests: usize) -> Self {
        let requests = requests.clamp(1, Semaphore::MAX_PERMITS);
        Self { permits: Arc::new(Semaphore::new(requests)), resume_at: Mutex::new(None) }
    }

    /// Waits for a permit and for the end of the current pause.
    pub(super) async fn acquire(&self) -> RequestPermit {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok();
        // Checked after the wait for the permit: a pause may have begun during it.
        while let Some(at) = self.resume_at() {
            sleep_until(at).await;
        }
        RequestPermit { _permit: permit }
    }

    /// Pauses new requests for this long, at most [`MAX_PAUSE`].
    pub(super) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait.min(MAX_PAUSE);
        let mut resume_at = lock(&self.resume_at);
        *resume_at = Some(resume_at.map_or(until, |at| at.max(until)));
    }

    fn resume_at(&self) -> Option<Instant> {
        lock(&self.resume_at).filter(|at| *at > Instant::now())
    }
}
