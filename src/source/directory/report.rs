//! [`DirectoryReport`]: the files that a listing left out.

use std::ops::AddAssign;

use crate::model::ListWarning;

/// The number of files and folders that the listings of a [`DirectorySource`](crate::source::DirectorySource) left out.
/// They do not count as skipped. Files other than DICOM files are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryReport {
    /// Files with the same three UIDs as another file that precedes them in path order.
    pub duplicates: u64,
    /// DICOM files without three readable UIDs, for example a DICOMDIR.
    pub unidentified: u64,
    /// Files that cannot be read; it is not known whether they are DICOM files.
    pub unreadable_files: u64,
    /// Folders that cannot be read; their contents are not known.
    pub unreadable_folders: u64,
}

impl DirectoryReport {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the report as warnings of a page.
    pub(super) fn warnings(&self) -> Vec<ListWarning> {
        let all = [
            ("duplicateInstance", self.duplicates, "files contain an instance that an earlier file contains"),
            ("unidentifiedFile", self.unidentified, "DICOM files have no readable UIDs"),
            ("unreadableFile", self.unreadable_files, "files cannot be read"),
            ("unreadableFolder", self.unreadable_folders, "folders cannot be read"),
        ];
        let some = all.into_iter().filter(|(_, count, _)| *count > 0);
        some.map(|(code, count, message)| ListWarning::new(code, message, count)).collect()
    }

    /// Logs the report, without paths: they can contain patients' names.
    pub(super) fn trace(&self) {
        let Self { duplicates, unidentified, unreadable_files, unreadable_folders } = *self;
        if !self.is_empty() {
            tracing::warn!(
                duplicates,
                unidentified,
                unreadable_files,
                unreadable_folders,
                "files or folders were left out"
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
