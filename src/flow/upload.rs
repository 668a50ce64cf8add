//! [`Upload`]: what the engine hands a sink with each instance.

use std::sync::Arc;

use tokio::time::sleep;

use crate::error::Result;
use crate::flow::retry::Failures;
use crate::flow::{Concurrency, Limiter, Retrier, Retry};

/// The terms on which a sink uploads one instance: how many bytes it may hold, how its requests are limited
/// and repeated, and whether what was stored is compared with what was sent.
///
/// A sink that talks to a network sends each **idempotent** request whose bytes are in hand (a whole small blob, a
/// block of a large one) through [`Upload::request`]: it waits for its turn among all requests towards the
/// destination, and is repeated within the operation's retry budget. So a large instance repeats a block and not
/// itself. A sink that needs neither ignores it, and the engine repeats the instance.
#[derive(Debug, Clone)]
pub struct Upload {
    window: u64,
    retrier: Arc<Retrier>,
    limiter: Arc<Limiter>,
    checksums: bool,
}

impl Upload {
    /// For using a sink by hand: this many bytes, this retrying, this many requests at once.
    pub fn new(window: u64, retry: Retry, requests: usize) -> Self {
        Self {
            window,
            retrier: Arc::new(Retrier::new(retry)),
            limiter: Arc::new(Limiter::new(Concurrency::Fixed(requests))),
            checksums: true,
        }
    }

    pub(crate) fn shared(window: u64, retrier: Arc<Retrier>, limiter: Arc<Limiter>) -> Self {
        Self { window, retrier, limiter, checksums: true }
    }

    /// Whether what the destination says it stored is to be compared with what it was sent.
    pub fn with_checksums(mut self, compare: bool) -> Self {
        self.checksums = compare;
        self
    }

    /// How many bytes of the instance may be held at once. What [`BlobSink::window`](crate::BlobSink::window) asked
    /// for, or less when the whole byte budget is smaller than that.
    pub fn window(&self) -> u64 {
        self.window
    }

    /// Whether the sink compares what the destination says it stored with what it was sent, where the destination says
    /// it; a difference is trouble at the destination, and what was stored is sent again. The default by hand; an
    /// engine's is said by its [`Checksums`](crate::Checksums).
    pub fn checksums(&self) -> bool {
        self.checksums
    }

    /// Sends a request, and sends it again while it fails for a passing reason and the budget lasts.
    ///
    /// # Errors
    /// The last one, when it is not transient or the budget is used up.
    ///
    /// # Cancellation
    /// Dropping the future drops the request under way.
    pub async fn request<T, F, Fut>(&self, mut send: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut failures = Failures::default();
        loop {
            let slot = self.limiter.request().await;
            let error = match send().await {
                Ok(value) => {
                    slot.passed();
                    self.retrier.succeeded();
                    return Ok(value);
                }
                Err(error) => error,
            };
            slot.failed(&error);
            let Some(pause) = self.retrier.pause(&mut failures, &error) else { return Err(error) };
            tracing::debug!(kind = error.kind().as_str(), ?pause, "request repeated");
            sleep(pause).await;
        }
    }
}
