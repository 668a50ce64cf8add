//! [`RetryDecision`]: whether a failed instance is retried, skipped, or fails the operation.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::limits::{Failures, Retrier};

/// How many times an instance is opened if it fails for a reason of its own that may pass.
const MAX_ATTEMPTS: u32 = 3;

/// An instance that cannot be opened is skipped after this many consecutive attempts between which the source worked for
/// others, and at least this time after its first failure.
const MIN_ISOLATED_FAILURES: u32 = 5;
const MIN_TIME_BEFORE_SKIP: Duration = Duration::from_secs(10);

/// What follows from an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RetryDecision {
    /// Retry after this pause.
    Retry(Duration),
    /// Skip the instance and log it.
    Skip,
    /// Fail the operation, which can be resumed.
    Fail,
}

/// The failures of one instance so far.
#[derive(Debug, Default)]
pub(crate) struct AttemptTracker {
    source: Failures,
    destination: Failures,
    /// Failures of the instance itself that may pass.
    own: u32,
    /// Whether the latest failure was that the source is unavailable.
    is_source_unavailable: bool,
}

impl AttemptTracker {
    /// Decides after the source failed to open or read the instance.
    pub(crate) fn source_failed(&mut self, retrier: &Retrier, error: &Error) -> RetryDecision {
        self.is_source_unavailable = error.kind() == ErrorKind::Unavailable;
        match error.kind() {
            ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::LimitReached => {
                let decision = retrier.backoff(&mut self.source, error).map(RetryDecision::Retry);
                let is_persistent = error.kind() == ErrorKind::Unavailable
                    && self.source.isolated() >= MIN_ISOLATED_FAILURES
                    && self.source.elapsed() >= MIN_TIME_BEFORE_SKIP;
                match decision {
                    // One object that the source cannot read must not stop the export.
                    _ if is_persistent => RetryDecision::Skip,
                    Some(retry) => retry,
                    None => RetryDecision::Fail,
                }
            }
            ErrorKind::Unauthorized | ErrorKind::CredentialsNeeded => RetryDecision::Fail,
            ErrorKind::NotFound
            | ErrorKind::Unreadable
            | ErrorKind::Unsupported
            | ErrorKind::TooLarge
            | ErrorKind::Invalid => RetryDecision::Skip,
            // The instance changed while it was read, or the source has a bug. Both may pass, and neither should fail
            // the operation.
            ErrorKind::Conflict | ErrorKind::Internal => {
                self.own += 1;
                if self.own < MAX_ATTEMPTS {
                    RetryDecision::Retry(retrier.initial_backoff())
                } else {
                    RetryDecision::Skip
                }
            }
        }
    }

    /// Whether only another request can tell if the source works for others: the instance keeps failing, and no other one
    /// was completed since its latest failure.
    pub(crate) fn needs_probe(&self, retrier: &Retrier) -> bool {
        self.is_source_unavailable && self.source.count() > 1 && !retrier.has_completed_since(&self.source)
    }

    /// Decides after the destination failed. Only an instance that is too large for the destination is skipped.
    pub(crate) fn destination_failed(&mut self, retrier: &Retrier, error: &Error) -> RetryDecision {
        self.is_source_unavailable = false;
        if error.kind() == ErrorKind::TooLarge {
            return RetryDecision::Skip;
        }
        retrier.backoff(&mut self.destination, error).map_or(RetryDecision::Fail, RetryDecision::Retry)
    }
}
