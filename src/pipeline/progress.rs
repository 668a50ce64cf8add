//! [`Progress`]: the progress of an operation that runs in this process.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::model::Totals;

/// The progress of an operation. It is slightly ahead of the stored status, since it counts batches in progress; a batch
/// that is repeated after a crash is counted anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Instances that are in the container.
    pub exported: u64,
    /// Entries that could not be exported.
    pub skipped: u64,
    /// The size of the exported instances, in bytes.
    pub bytes: u64,
    /// The source's estimate of the number of instances, if it has one.
    pub estimate: Option<u64>,
}

/// Counters that transfers update and the runner reads periodically, so that counting takes no lock.
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

    /// Counts an exported instance of this many bytes.
    pub(crate) fn add_exported(&self, bytes: u64) {
        self.exported.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn add_skipped(&self, count: u64) {
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
