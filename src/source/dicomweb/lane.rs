//! [`Lane`]: how many requests of a kind run at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use crate::sync::lock;

/// The longest that one answer's `Retry-After` holds up the requests beside it. The engine heeds it in full for the
/// request itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Requests that wait for each other. A place is kept until the answer has been read, which the engine's own limits
/// do not reach into.
#[derive(Debug)]
pub(super) struct Lane {
    places: Arc<Semaphore>,
    resume_at: Mutex<Option<Instant>>,
}

/// A request's place. Dropping it makes room for the next.
#[derive(Debug)]
pub(super) struct Place {
    _permit: Option<OwnedSemaphorePermit>,
}

impl Lane {
    pub(super) fn new(requests: usize) -> Self {
        let requests = requests.clamp(1, Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(requests)), resume_at: Mutex::new(None) }
    }

    /// Waits until a request may go out.
    pub(super) async fn enter(&self) -> Place {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        // Read after the wait for a place: the pause may have been asked for meanwhile.
        while let Some(at) = self.resume_at() {
            sleep_until(at).await;
        }
        Place { _permit: permit }
    }

    /// The server asked to be left alone for so long.
    pub(super) fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_PAUSE);
        let mut resume_at = lock(&self.resume_at);
        *resume_at = Some(resume_at.map_or(until, |at| at.max(until)));
    }

    fn resume_at(&self) -> Option<Instant> {
        let resume_at = lock(&self.resume_at);
        resume_at.filter(|at| *at > Instant::now())
    }
}
