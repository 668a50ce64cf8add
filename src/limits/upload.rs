//! [`UploadContext`]: what the engine passes to a sink with each instance.

use std::sync::Arc;

use tokio::time::sleep;

use super::{Concurrency, Failures, Limiter, Retrier, RetryPolicy, Side};
#[cfg(feature = "object_store")]
use crate::error::Error;
use crate::error::Result;

/// The limits for one upload: how many bytes the sink may buffer, how its requests are limited and retried, and whether
/// it verifies checksums.
///
/// A sink that uses a network sends each **idempotent** request whose bytes are in memory (a small blob, a block of a
/// large one) with [`send_with_retry`](Self::send_with_retry). The request then waits for its turn among all requests to
/// the destination, and is retried within the operation's retry budget, so that a block is retried instead of the whole
/// instance. A sink that needs neither ignores the context, and the engine retries the instance.
///
/// ```
/// use dicom_export::{RetryPolicy, UploadContext};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
/// let context = UploadContext::new(4 << 20, RetryPolicy::default(), 8);
/// let etag = context.send_with_retry(|| async { Ok("the destination's response") }).await?;
/// assert_eq!(etag, "the destination's response");
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct UploadContext {
    buffer_limit: u64,
    retrier: Arc<Retrier>,
    limiter: Arc<Limiter>,
    checksums: bool,
}

impl UploadContext {
    /// Creates a context for calling a sink without an engine: `buffer_limit` in bytes, and the number of concurrent
    /// requests. Checksums are verified.
    pub fn new(buffer_limit: u64, retry: RetryPolicy, requests: usize) -> Self {
        let retrier = Arc::new(Retrier::new(Side::Destination, retry));
        Self::shared(buffer_limit, retrier, Arc::new(Limiter::new(Concurrency::Fixed(requests), 0)))
    }

    pub(crate) fn shared(buffer_limit: u64, retrier: Arc<Retrier>, limiter: Arc<Limiter>) -> Self {
        Self { buffer_limit, retrier, limiter, checksums: true }
    }

    /// Sets whether checksums are verified.
    #[must_use]
    pub fn with_checksums(mut self, verify: bool) -> Self {
        self.checksums = verify;
        self
    }

    /// How many bytes of the instance the sink may hold at once: what
    /// [`BlobSink::buffer_size`](crate::BlobSink::buffer_size) returned, or less if the memory budget is smaller.
    pub fn buffer_limit(&self) -> u64 {
        self.buffer_limit
    }

    /// Whether the sink compares the checksum that the destination returns with the checksum of what it sent, if the
    /// destination returns one. A mismatch is a destination failure, and the request is retried. An engine sets this
    /// from its [`Checksums`](crate::Checksums).
    pub fn checksums(&self) -> bool {
        self.checksums
    }

    /// Sends a request, and retries it while it fails with a transient error and the budget lasts.
    ///
    /// # Errors
    /// The last error, if it is not transient or the budget is used up.
    ///
    /// # Cancellation
    /// Dropping the future drops the request in progress.
    pub async fn send_with_retry<T, F, Fut>(&self, mut send: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut failures = Failures::default();
        loop {
            let permit = self.limiter.acquire_request(|| self.retrier.delayed()).await;
            let error = match send().await {
                Ok(value) => {
                    permit.succeeded();
                    self.retrier.request_succeeded();
                    return Ok(value);
                }
                Err(error) => error,
            };
            permit.failed(&error);
            let Some(pause) = self.retrier.backoff(&mut failures, &error) else { return Err(error) };
            tracing::debug!(kind = error.kind().as_str(), ?pause, "retrying a request");
            sleep(pause).await;
        }
    }

    /// Waits before a failed request that the destination's client repeats by itself, and returns whether to repeat it.
    #[cfg(feature = "object_store")]
    pub(crate) async fn wait_before_retry(&self, mut failures: Failures, error: &Error) -> bool {
        let Some(pause) = self.retrier.backoff(&mut failures, error) else { return false };
        tracing::debug!(kind = error.kind().as_str(), ?pause, "retrying a request");
        sleep(pause).await;
        true
    }

    /// Records the success of a request that was not sent with [`send_with_retry`](Self::send_with_retry).
    #[cfg(feature = "object_store")]
    pub(crate) fn request_succeeded(&self) {
        self.retrier.request_succeeded();
    }
}
