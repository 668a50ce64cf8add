//! [`Progress`]: how an operation is getting on, as its own process sees it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::Totals;

/// How far an operation has come, a little ahead of its stored status: batches under way are counted, and are
/// counted anew when a crash repeats them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Instances that are in the container.
    pub exported: u64,
    /// What could not be exported.
    pub skipped: u64,
    /// Bytes of the exported instances.
    pub bytes: u64,
    /// How many instances the source thinks there are.
    pub estimate: Option<u64>,
}

/// The counters that transfers add to: read now and then, so that counting costs a transfer next to nothing.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    exported: AtomicU64,
    skipped: AtomicU64,
    bytes: AtomicU64,
}

impl Counters {
    pub(crate) fn starting_at(totals: &Totals) -> Self {
        Self { exported: totals.exported.into(), skipped: totals.skipped.into(), bytes: totals.bytes.into() }
    }

    pub(crate) fn exported(&self, bytes: u64) {
        self.exported.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn skipped(&self, count: u64) {
        self.skipped.fetch_add(count, Relaxed);
    }

    pub(crate) fn read(&self, estimate: Option<u64>) -> Progress {
        Progress {
            exported: self.exported.load(Relaxed),
            skipped: self.skipped.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            estimate,
        }
    }
}
