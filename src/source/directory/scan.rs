//! [`Scan`]: the entries of a folder tree in path order, with the UIDs from their heads.

use std::collections::VecDeque;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use futures::future::try_join_all;

use super::head::{FileType, identify};
use super::opener::Opener;
use super::path;
use super::read_ahead::ReadAhead;
use super::seen::SeenInstances;
use super::tree::Tree;
use super::walk::{Walk, WalkEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{InstanceIdentifier, ListFailure};
use crate::sync::blocking;

/// How many files are read before the walk continues: enough to keep all threads busy, few enough to stop soon.
const FILES_PER_ROUND: usize = 128;

/// A file, or a folder that cannot be read.
pub(super) struct Entry {
    /// Relative to the root.
    pub(super) path: PathBuf,
    /// The encoded path.
    pub(super) locator: String,
    pub(super) kind: EntryKind,
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

/// Reads the heads of the files of a tree in path order.
pub(super) struct Scan {
    tree: Tree,
    /// `None`: in use by a blocking thread, or lost with a call that was dropped.
    state: Option<State>,
    /// `None`: only the heads of files are read.
    read_ahead: Option<ReadAhead>,
    /// Entries of the walk whose heads have not been read.
    unread: Arc<[WalkEntry]>,
    read: VecDeque<Entry>,
}

struct State {
    walk: Walk,
    /// The instances found so far; `None`: duplicates are not recognized.
    seen: Option<SeenInstances>,
}

impl Scan {
    pub(super) fn new(tree: &Tree) -> Self {
        let state = Some(State { walk: Walk::new(tree), seen: None });
        Self { tree: tree.clone(), state, read_ahead: None, unread: [].into(), read: VecDeque::new() }
    }

    /// Creates a scan that reports files of instances that an earlier file contains as [`EntryKind::Duplicate`].
    pub(super) fn without_duplicates(tree: &Tree) -> Self {
        let state = Some(State { walk: Walk::new(tree), seen: Some(SeenInstances::new()) });
        Self { state, ..Self::new(tree) }
    }

    /// Returns the next entry in path order.
    ///
    /// # Errors
    /// Transient errors: call it again, unless the scan [is lost](Self::is_lost).
    ///
    /// # Cancellation
    /// Dropping the future may lose the scan.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        while self.read.is_empty() {
            if self.unread.is_empty() {
                self.unread = self.with_state(|state| state.walk.next(FILES_PER_ROUND)).await?.into();
                if self.unread.is_empty() {
                    return Ok(None);
                }
            }
            self.read_heads().await?;
        }
        Ok(self.read.pop_front())
    }

    /// Reads small files completely from now on, as long as the cache has room.
    pub(super) fn enable_read_ahead(&mut self, read_ahead: ReadAhead) {
        self.read_ahead = Some(read_ahead);
    }

    /// Returns an entry; `next` yields it again.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.read.push_front(entry);
    }

    /// Whether the scan can only be restarted.
    pub(super) fn is_lost(&self) -> bool {
        self.state.is_none()
    }

    /// Reduces the memory that the scan holds until it continues.
    pub(super) async fn shrink(&mut self) -> Result<()> {
        self.with_state(|state| {
            state.walk.shrink();
            if let Some(seen) = &mut state.seen {
                seen.move_to_disk();
            }
            Ok(())
        })
        .await
    }

    /// Reads the heads of the entries that the walk found, on several threads.
    async fn read_heads(&mut self) -> Result<()> {
        let threads = available_parallelism().map_or(1, usize::from);
        let share = self.unread.len().div_ceil(threads);
        let tasks = (0..self.unread.len()).step_by(share).map(|start| {
            let (tree, unread) = (self.tree.clone(), Arc::clone(&self.unread));
            let read_ahead = self.read_ahead.clone();
            blocking(move || {
                let mut opener = tree.opener();
                let entries = &unread[start..unread.len().min(start + share)];
                Ok(entries
                    .iter()
                    .map(|entry| read(&tree, &mut opener, entry, read_ahead.as_ref()))
                    .collect::<Vec<_>>())
            })
        });
        let (mut entries, mut failure) = (Vec::new(), None);
        for entry in try_join_all(tasks).await?.into_iter().flatten() {
            match entry {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        let read = entries.len();
        let cache = self.read_ahead.clone();
        let entries = self
            .with_state(move |state| {
                if let Some(seen) = &mut state.seen {
                    mark_duplicates(seen, &mut entries, cache.as_ref())?;
                }
                Ok(entries)
            })
            .await?;
        self.read.extend(entries);
        self.unread = self.unread[read..].into();
        failure.map_or(Ok(()), Err)
    }

    /// Runs work on a blocking thread.
    async fn with_state<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let lost = || Error::new(ErrorKind::Internal, "a listing was interrupted");
        let mut state = self.state.take().ok_or_else(lost)?;
        let (state, outcome) = blocking(move || {
            let outcome = work(&mut state);
            Ok((state, outcome))
        })
        .await?;
        self.state = Some(state);
        outcome
    }
}

/// Reads the head of a file.
///
/// # Errors
/// Those of the source as a whole.
fn read(
    tree: &Tree,
    opener: &mut Opener,
    found: &WalkEntry,
    read_ahead: Option<&ReadAhead>,
) -> Result<Entry> {
    let path = found.path.clone();
    let Some(locator) = path::encode(&path) else {
        return Ok(Entry { path, locator: String::new(), kind: EntryKind::UnreadableFile });
    };
    let kind = if !found.is_file {
        EntryKind::UnreadableFolder
    } else {
        match read_file(opener, &path, &locator, read_ahead) {
            Ok(kind) => kind,
            // Something else has taken the place of the file.
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => EntryKind::Ignored,
            Err(cause) => match tree.classify(cause, &path)? {
                true => EntryKind::UnreadableFile,
                false => EntryKind::Ignored,
            },
        }
    };
    Ok(Entry { path, locator, kind })
}

fn read_file(
    opener: &mut Opener,
    path: &Path,
    locator: &str,
    read_ahead: Option<&ReadAhead>,
) -> io::Result<EntryKind> {
    let mut file = opener.open(path)?;
    let size = file.metadata()?.len();
    let whole = read_ahead.map(|cache| cache.read(&mut file, size)).transpose()?.flatten();
    let file_type = match &whole {
        Some(bytes) => identify(io::Cursor::new(bytes))?,
        None => identify(BufReader::new(file))?,
    };
    Ok(match file_type {
        FileType::Instance { identifier, has_preamble } => {
            // A file that has shrunk may be incomplete: it is read again when it is opened.
            let whole = whole.filter(|bytes| bytes.len() as u64 == size);
            if let (Some(cache), Some(bytes)) = (read_ahead, whole) {
                cache.insert(locator, bytes);
            }
            EntryKind::Instance { identifier, size, has_preamble }
        }
        FileType::Unidentified(failure) => EntryKind::Unidentified(failure),
        FileType::Directory => EntryKind::Directory,
        FileType::Other => EntryKind::Ignored,
    })
}

fn mark_duplicates(
    seen: &mut SeenInstances,
    entries: &mut [Entry],
    read_ahead: Option<&ReadAhead>,
) -> Result<()> {
    for entry in entries {
        let EntryKind::Instance { identifier, .. } = &entry.kind else { continue };
        if !seen.insert(identifier)? {
            entry.kind = EntryKind::Duplicate;
            if let Some(cache) = read_ahead {
                cache.take(&entry.locator);
            }
        }
    }
    Ok(())
}
