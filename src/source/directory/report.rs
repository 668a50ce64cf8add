//! [`DirectoryReport`]: the files that a listing left out.

use std::fmt;
use std::path::{Path, PathBuf};

use super::entry::{Entry, EntryKind};
use crate::model::{ListFailure, ListWarning};

/// How many paths a report holds.
const MAX_PATHS: usize = 1_000;

const UNREADABLE_FILE: &str = "a file cannot be read";
const UNREADABLE_FOLDER: &str = "a folder cannot be read";

/// The files and folders that the listings of a [`DirectorySource`](crate::source::DirectorySource) left out. Files other
/// than DICOM files are not counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryReport {
    /// Files with the same three UIDs as another file that precedes them in path order.
    pub duplicates: u64,
    /// DICOMDIR files.
    pub directories: u64,
    /// Instances that are exported without the preamble of PS3.10 7.1, as they are.
    pub without_preamble: u64,
    /// DICOM files without three valid UIDs. They count as skipped.
    pub unidentified: u64,
    /// Files that cannot be read; it is not known whether they are DICOM files. They count as skipped.
    pub unreadable_files: u64,
    /// Folders that cannot be read; their contents are not known. They count as skipped.
    pub unreadable_folders: u64,
    /// The paths of the first 1,000 files and folders that count as skipped.
    pub skipped: Vec<SkippedPath>,
}

/// A file or folder that cannot be listed. `Debug` hides the path, which can contain a patient's name.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SkippedPath {
    /// The path relative to the source's folder.
    pub path: PathBuf,
    /// The reason, as in `errors.log`.
    pub error: String,
}

impl fmt::Debug for SkippedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SkippedPath").field("error", &self.error).finish_non_exhaustive()
    }
}

impl DirectoryReport {
    /// Whether nothing was left out.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Counts an entry, and returns the failure if it cannot be listed.
    pub(super) fn add(&mut self, entry: &Entry) -> Option<ListFailure> {
        let failure = match &entry.kind {
            EntryKind::Instance { has_preamble, .. } => {
                self.without_preamble += u64::from(!has_preamble);
                return None;
            }
            EntryKind::Duplicate => {
                self.duplicates += 1;
                return None;
            }
            EntryKind::Directory => {
                self.directories += 1;
                return None;
            }
            EntryKind::Ignored => return None,
            EntryKind::Unidentified(failure) => {
                self.unidentified += 1;
                failure.clone()
            }
            EntryKind::UnreadableFile => {
                self.unreadable_files += 1;
                ListFailure::new("", UNREADABLE_FILE)
            }
            EntryKind::UnreadableFolder => {
                self.unreadable_folders += 1;
                ListFailure::new("", UNREADABLE_FOLDER)
            }
        };
        self.name(&entry.path, &failure.error);
        Some(failure)
    }

    fn name(&mut self, path: &Path, error: &str) {
        if self.skipped.len() < MAX_PATHS {
            self.skipped.push(SkippedPath { path: path.to_owned(), error: error.to_owned() });
        }
    }

    /// Returns the warnings of a page about what is left out without being skipped.
    pub(super) fn warnings(&self) -> Vec<ListWarning> {
        let all = [
            ("duplicateInstance", self.duplicates, "files contain an instance that an earlier file contains"),
            ("dicomdir", self.directories, "DICOMDIR files are not exported"),
            (
                "missingPreamble",
                self.without_preamble,
                "instances have no preamble and are exported without it",
            ),
        ];
        let some = all.into_iter().filter(|(_, count, _)| *count > 0);
        some.map(|(code, count, message)| ListWarning::new(code, message, count)).collect()
    }

    /// Returns warnings about entries of which it is not known whether an identifier covers them.
    pub(super) fn uncertain_warnings(&self) -> Vec<ListWarning> {
        let all = [
            ("unidentifiedFile", self.unidentified, "DICOM files have no valid UIDs"),
            ("unreadableFile", self.unreadable_files, "files cannot be read"),
            ("unreadableFolder", self.unreadable_folders, "folders cannot be read"),
        ];
        let some = all.into_iter().filter(|(_, count, _)| *count > 0);
        some.map(|(code, count, message)| ListWarning::new(code, message, count)).collect()
    }

    /// Logs the report, without paths: they can contain patients' names.
    pub(super) fn trace(&self) {
        let Self { duplicates, unidentified, unreadable_files, unreadable_folders, .. } = *self;
        if duplicates + unidentified + unreadable_files + unreadable_folders > 0 {
            tracing::warn!(
                duplicates,
                unidentified,
                unreadable_files,
                unreadable_folders,
                "files or folders were left out"
            );
        }
    }

    /// Adds the numbers and paths of another report.
    pub(super) fn merge(&mut self, other: &Self) {
        self.duplicates += other.duplicates;
        self.directories += other.directories;
        self.without_preamble += other.without_preamble;
        self.unidentified += other.unidentified;
        self.unreadable_files += other.unreadable_files;
        self.unreadable_folders += other.unreadable_folders;
        let room = MAX_PATHS - self.skipped.len();
        self.skipped.extend(other.skipped.iter().take(room).cloned());
    }
}
