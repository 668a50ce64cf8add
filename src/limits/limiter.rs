//! [`Concurrency`]: how many requests run concurrently towards one destination, and the limiter that enforces it.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::RateLimit;
use super::controller::{ConcurrencyController, Failure};
use super::retry::MAX_RETRY_AFTER;
use super::semaphore::{Permit, ResizableSemaphore};
use crate::error::{Error, ErrorKind};
use crate::sync::lock;

/// The number of concurrent requests towards one destination account, which also bounds the number of instances in
/// transfer. All operations towards an account share it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Concurrency {
    /// Adapts to the destination, up to 128: grows while throughput grows, and shrinks when requests are throttled
    /// (429, 503) or not answered. The default.
    #[default]
    Auto,
    /// A fixed number of requests. Each uses a connection and, while it runs, the bytes of its instance from the memory
    /// budget.
    Fixed(usize),
}

impl Concurrency {
    /// The highest number of concurrent requests.
    pub(crate) fn max(self) -> usize {
        match self {
            Self::Auto => ConcurrencyController::max_limit(),
            Self::Fixed(requests) => requests.max(1),
        }
    }
}

/// Limits the requests and instances towards one account, and holds the pause that the account asked for.
#[derive(Debug)]
pub(crate) struct Limiter {
    requests: ResizableSemaphore,
    /// The only limit for a sink that does not use [`UploadContext::send_with_retry`](super::UploadContext::send_with_retry).
    instances: ResizableSemaphore,
    /// `None` if the limits are fixed.
    controller: Option<Mutex<ConcurrencyController>>,
    paused_until: Mutex<Option<Instant>>,
    bytes: RateLimit,
}

/// A permit to send one request.
#[derive(Debug)]
pub(crate) struct RequestPermit<'a> {
    limiter: &'a Limiter,
    sent: Instant,
    _permit: Permit<'a>,
}

impl Limiter {
    /// A rate of zero means no limit.
    pub(crate) fn new(concurrency: Concurrency, bytes_per_second: u64) -> Self {
        let (limit, controller) = match concurrency {
            Concurrency::Fixed(_) => (concurrency.max(), None),
            Concurrency::Auto => {
                let controller = ConcurrencyController::new(Instant::now());
                (controller.limit(), Some(Mutex::new(controller)))
            }
        };
        let instances = if controller.is_some() { instance_limit(limit) } else { limit };
        Self {
            requests: ResizableSemaphore::new(limit),
            instances: ResizableSemaphore::new(instances),
            controller,
            paused_until: Mutex::new(None),
            bytes: RateLimit::new(bytes_per_second),
        }
    }

    /// The limit on bytes towards the account.
    pub(crate) fn bytes(&self) -> &RateLimit {
        &self.bytes
    }

    /// The number of requests that may run at once.
    #[cfg(feature = "metrics")]
    pub(crate) fn limit(&self) -> usize {
        self.requests.size()
    }

    /// Waits until an instance may be opened.
    pub(crate) async fn acquire_instance(&self) -> Permit<'_> {
        self.instances.acquire().await
    }

    /// Waits until a request may be sent. `on_pause` is called before a wait for a pause that the account asked for.
    pub(crate) async fn acquire_request(&self, on_pause: impl Fn()) -> RequestPermit<'_> {
        let permit = self.requests.acquire().await;
        // Checked after the wait for a permit, since a pause may have begun meanwhile.
        while let Some(until) = self.paused_until() {
            on_pause();
            sleep_until(until).await;
        }
        RequestPermit { limiter: self, sent: Instant::now(), _permit: permit }
    }

    fn pause(&self, duration: Duration) {
        let until = Instant::now() + duration;
        let mut paused_until = lock(&self.paused_until);
        *paused_until = Some(paused_until.map_or(until, |current| current.max(until)));
    }

    fn paused_until(&self) -> Option<Instant> {
        lock(&self.paused_until).filter(|until| *until > Instant::now())
    }

    fn update(&self, update: impl FnOnce(&mut ConcurrencyController)) {
        let Some(controller) = &self.controller else { return };
        let mut controller = lock(controller);
        let previous = controller.limit();
        update(&mut controller);
        let limit = controller.limit();
        if limit != previous {
            // Under the lock, so that changes are applied in order.
            self.requests.resize(limit);
            self.instances.resize(instance_limit(limit));
            tracing::debug!(limit, "changed the limit on concurrent requests");
        }
    }
}

impl RequestPermit<'_> {
    /// Records that the request was served.
    pub(crate) fn succeeded(self) {
        let saturated = self.limiter.requests.is_exhausted();
        self.limiter.update(|controller| controller.on_success(Instant::now(), saturated));
    }

    /// Records that the request failed. A pause that the destination asked for applies to all requests.
    pub(crate) fn failed(self, error: &Error) {
        let failure = match error.kind() {
            ErrorKind::Throttled => Failure::Throttled,
            ErrorKind::Unavailable => Failure::Unavailable,
            _ => return,
        };
        let pause = error.retry_after().unwrap_or_default().min(MAX_RETRY_AFTER);
        if !pause.is_zero() {
            self.limiter.pause(pause);
        }
        self.limiter.update(|controller| controller.on_failure(Instant::now(), self.sent, failure, pause));
    }
}

/// The number of instances in transfer for a number of requests: more, so that some are read while others are sent.
fn instance_limit(requests: usize) -> usize {
    requests + requests / 4 + 2
}
