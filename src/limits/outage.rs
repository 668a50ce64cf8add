//! [`Side`] and [`Outage`]: what an export depends on, and how it fails.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ErrorKind;

/// What an export depends on. The failures of each side have their own retry budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Side {
    /// The source of instances.
    Source,
    /// The destination.
    Destination,
    /// The store of operations.
    OperationStore,
    /// The host's [`ExportObserver`](crate::ExportObserver).
    Observer,
}

impl Side {
    /// The name in camelCase.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
            Self::OperationStore => "operationStore",
            Self::Observer => "observer",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A time without a success, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outage {
    pub(crate) since: Instant,
    /// Failed calls since then.
    pub(crate) failures: u64,
    /// The kind of the latest failure.
    pub(crate) kind: ErrorKind,
    /// The report of the latest failure.
    pub(crate) error: String,
    /// How long the side may still fail before the operation does.
    pub(crate) budget_left: Duration,
}
