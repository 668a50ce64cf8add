//! What is retried, what is skipped and what is fatal: the one place that decides it.

use std::time::Duration;

use crate::error::{Error, ErrorKind};
use crate::limits::{Failures, Retrier};

/// How often an instance that fails for a reason of its own, which may pass, is opened in all.
const ATTEMPTS: u32 = 3;

/// What follows from an error.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Try again after this pause.
    Again(Duration),
    /// The instance is skipped and logged.
    Skip,
    /// The operation fails, and can be resumed.
    Fatal,
}

/// One instance's failures so far, by side.
#[derive(Debug, Default)]
pub(crate) struct Trials {
    source: Failures,
    destination: Failures,
    odd: u32,
}

impl Trials {
    /// An instance could not be opened or read: what is its own fault skips it.
    pub(crate) fn source(&mut self, retrier: &Retrier, error: &Error) -> Verdict {
        match error.kind() {
            ErrorKind::Throttled | ErrorKind::Unavailable => {
                retrier.backoff(&mut self.source, error).map_or(Verdict::Fatal, Verdict::Again)
            }
            ErrorKind::Unauthorized | ErrorKind::CredentialsNeeded => Verdict::Fatal,
            ErrorKind::NotFound | ErrorKind::Unreadable | ErrorKind::Unsupported | ErrorKind::Invalid => {
                Verdict::Skip
            }
            // It changed while it was read, or the source's own code failed: both may pass, neither is worth the
            // operation.
            ErrorKind::Conflict | ErrorKind::Internal => {
                self.odd += 1;
                if self.odd < ATTEMPTS { Verdict::Again(retrier.initial_backoff()) } else { Verdict::Skip }
            }
        }
    }

    /// Trouble at the destination is never a skip.
    pub(crate) fn destination(&mut self, retrier: &Retrier, error: &Error) -> Verdict {
        retrier.backoff(&mut self.destination, error).map_or(Verdict::Fatal, Verdict::Again)
    }
}
