//! [`Entry`]: what a scan finds.

use std::fs::Metadata;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::{InstanceIdentifier, ListFailure};

/// A file, or a folder that cannot be read.
pub(super) struct Entry {
    /// Relative to the root.
    pub(super) path: PathBuf,
    /// The encoded path.
    pub(super) locator: String,
    pub(super) kind: EntryKind,
    /// Of a file, if the scan uses an index.
    pub(super) stamp: Option<Stamp>,
    /// Whether the kind comes from the index.
    pub(super) is_known: bool,
}

impl Entry {
    /// Whether the entry is part of a page, as an instance or a failure.
    pub(super) fn is_listed(&self) -> bool {
        !matches!(self.kind, EntryKind::Duplicate | EntryKind::Directory | EntryKind::Ignored)
    }
}

pub(super) enum EntryKind {
    Instance {
        identifier: InstanceIdentifier,
        size: u64,
        has_preamble: bool,
    },
    /// A file of an instance that an earlier file contains.
    Duplicate,
    /// A DICOM file without three valid UIDs.
    Unidentified(ListFailure),
    /// A DICOMDIR.
    Directory,
    UnreadableFile,
    UnreadableFolder,
    /// Not a DICOM file, or deleted since the walk found it.
    Ignored,
}

/// A file that was changed more recently than this may change again without a new modification time.
const MIN_AGE: Duration = Duration::from_secs(2);

/// When a file was changed and how long it is. While both are the same, so is the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// In nanoseconds since 1970; 0 if the file may change without a change of this time.
    pub(super) modified: u64,
    pub(super) size: u64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        let modified = metadata.modified().unwrap_or(UNIX_EPOCH);
        let is_old = SystemTime::now().duration_since(modified).is_ok_and(|age| age >= MIN_AGE);
        let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified = if is_old { u64::try_from(since.as_nanos()).unwrap_or(0) } else { 0 };
        Self { modified, size: metadata.len() }
    }

    /// Whether a file with this stamp is the one that was stored with another.
    pub(super) fn vouches_for(&self, stored: &Self) -> bool {
        self == stored && self.modified != 0
    }
}
