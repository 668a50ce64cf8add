//! Helpers for locks, blocking work and tasks.

use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result};

/// Locks a mutex. A panic in another holder is ignored: the crate changes no shared value in steps that could leave it
/// inconsistent.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs blocking work on Tokio's blocking threads. The work continues if the returned future is dropped.
///
/// # Errors
/// [`ErrorKind::Internal`] if the work panics, [`ErrorKind::Unavailable`] if the runtime shuts down before it starts.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|cause| Err(stopped(cause)))
}

/// Runs a future to its end in a task of its own, although the caller may drop the returned future.
///
/// # Errors
/// [`ErrorKind::Internal`] if the work panics.
#[cfg(any(feature = "http", feature = "object_store", feature = "restate"))]
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    use tracing::Instrument;

    tokio::spawn(work.in_current_span()).await.unwrap_or_else(|cause| Err(panicked(cause)))
}

/// Runs a call of the host's code, which may not return. `callee` names it in the error.
///
/// # Errors
/// The call's, or [`ErrorKind::Unavailable`] if it takes longer than `limit`.
pub(crate) async fn within<T>(
    limit: Duration,
    callee: &str,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::pin!(call);
    // Most calls return at once, and then a timer would cost more than the call.
    if let Poll::Ready(outcome) = futures::poll!(call.as_mut()) {
        return outcome;
    }
    timeout(limit, call).await.unwrap_or_else(|_| Err(timed_out(callee, limit)))
}

/// The error for a call that takes longer than `limit`.
pub(crate) fn timed_out(callee: &str, limit: Duration) -> Error {
    let message = format!("{callee} did not respond within {} s", limit.as_secs_f64());
    Error::new(ErrorKind::Unavailable, message)
}

/// The error for a task that did not finish.
fn stopped(cause: JoinError) -> Error {
    match cause.is_cancelled() {
        true => Error::new(ErrorKind::Unavailable, "the runtime is shutting down").with_source(cause),
        false => panicked(cause),
    }
}

/// Runs a future of the host's code.
///
/// # Errors
/// The future's, or [`ErrorKind::Internal`] if it panics.
pub(crate) async fn catch_panic<T>(
    work: impl Future<Output = Result<T>>,
    message: &'static str,
) -> Result<T> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, message)))
}

/// The error for a task that panicked. It does not contain the panic's message, which may contain anything; the panic hook
/// has printed it.
pub(crate) fn panicked(_: JoinError) -> Error {
    Error::new(ErrorKind::Internal, "an internal task panicked")
}
