//! [`DirectoryReport`]: what a listing passed over.

use std::ops::AddAssign;

use crate::model::ListWarning;

/// What the listings of a [`DirectorySource`](crate::source::DirectorySource) passed over. None of it counts as
/// skipped; files that are no DICOM files are not counted at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryReport {
    /// Files with the three UIDs of another one that comes before them in path order.
    pub duplicates: u64,
    /// DICOM files whose three UIDs cannot be read, or that have none: a DICOMDIR, say.
    pub unidentified: u64,
    /// Files that could not be read at all; whether they are DICOM files is not known.
    pub unreadable_files: u64,
    /// Folders that could not be read; what they hold is not known.
    pub unreadable_folders: u64,
}

impl DirectoryReport {
    /// Whether nothing was passed over.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The same as a page says it.
    pub(super) fn warnings(&self) -> Vec<ListWarning> {
        let all = [
            ("duplicateInstance", self.duplicates, "files repeat an instance that an earlier file holds"),
            ("unidentifiedFile", self.unidentified, "DICOM files have no UIDs that can be read"),
            ("unreadableFile", self.unreadable_files, "files cannot be read"),
            ("unreadableFolder", self.unreadable_folders, "folders cannot be read"),
        ];
        let some = all.into_iter().filter(|(_, count, _)| *count > 0);
        some.map(|(code, count, message)| ListWarning::new(code, message, count)).collect()
    }

    /// Tells the log; no path, since those carry names.
    pub(super) fn trace(&self) {
        let Self { duplicates, unidentified, unreadable_files, unreadable_folders } = *self;
        if !self.is_empty() {
            tracing::warn!(
                duplicates,
                unidentified,
                unreadable_files,
                unreadable_folders,
                "files or folders were passed over"
            );
        }
    }
}

impl AddAssign for DirectoryReport {
    fn add_assign(&mut self, other: Self) {
        self.duplicates += other.duplicates;
        self.unidentified += other.unidentified;
        self.unreadable_files += other.unreadable_files;
        self.unreadable_folders += other.unreadable_folders;
    }
}
