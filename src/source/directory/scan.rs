//! [`Scan`]: the entries of a folder tree in path order, with the UIDs from their heads.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use futures::future::try_join_all;
use walkdir::WalkDir;

use super::head::{FileType, identify};
use super::path;
use super::read_ahead::ReadAhead;
use super::seen::SeenInstances;
use crate::content::read_error;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{InstanceIdentifier, ListFailure};
use crate::sync::blocking;

/// How many files are read before the walk continues: enough to keep all threads busy, few enough to stop soon.
const FILES_PER_ROUND: usize = 128;

/// A folder and everything below it.
#[derive(Clone)]
pub(super) struct Tree {
    pub(super) root: Arc<Path>,
    pub(super) follow_links: bool,
}

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

/// A walk through a tree in path order: folder by folder, names compared as bytes.
pub(super) struct Scan {
    tree: Tree,
    /// The instances found so far; `None`: duplicates are not recognized.
    seen: Option<SeenInstances>,
    /// `None`: only the heads of files are read.
    read_ahead: Option<ReadAhead>,
    walk: Walk,
    /// Entries of the walk whose heads have not been read.
    unread: Arc<[WalkEntry]>,
    read: VecDeque<Entry>,
}

enum Walk {
    Running(Box<walkdir::IntoIter>),
    Ended,
    /// In use by a blocking thread, or lost with a call that was dropped: a walk cannot restart in the middle.
    Lost,
}

#[derive(Clone)]
struct WalkEntry {
    path: PathBuf,
    is_file: bool,
}

impl Tree {
    pub(super) fn scan(&self) -> Scan {
        let walk = WalkDir::new(&self.root).min_depth(1).follow_links(self.follow_links).sort_by_file_name();
        Scan {
            tree: self.clone(),
            seen: None,
            read_ahead: None,
            walk: Walk::Running(Box::new(walk.into_iter())),
            unread: [].into(),
            read: VecDeque::new(),
        }
    }

    /// Fails if the root looks unmounted: its files have not been deleted then.
    pub(super) fn check_root(&self) -> Result<()> {
        let cause = match fs::read_dir(&self.root).and_then(|mut names| names.next().transpose()) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {
                return Err(Error::new(ErrorKind::Unavailable, "the source's folder has become empty"));
            }
            Err(cause) => cause,
        };
        Err(Error::new(ErrorKind::Unavailable, "the source's folder cannot be read any more")
            .with_source(cause))
    }

    /// Converts a failure below the root; `None`: the entry has been deleted, and the root still exists.
    fn classify(&self, cause: io::Error) -> Result<Option<()>> {
        let error = read_error(cause);
        match error.kind() {
            ErrorKind::NotFound => self.check_root().map(|()| None),
            ErrorKind::Unavailable => Err(error),
            _ => Ok(Some(())),
        }
    }

    /// Continues a walk for up to `limit` entries.
    fn walk(&self, walk: &mut walkdir::IntoIter, limit: usize) -> Result<Vec<WalkEntry>> {
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(entry) = walk.next() else { break };
            match entry {
                Ok(entry) if entry.file_type().is_file() => {
                    found.push(WalkEntry { path: self.relative(entry.path()), is_file: true });
                }
                Ok(_) => {}
                Err(error) => {
                    let path = error.path().map(|path| self.relative(path)).unwrap_or_default();
                    let at_root = error.depth() == 0;
                    // No I/O error: a link to a folder above it, whose files are listed there.
                    let Some(cause) = error.into_io_error() else { continue };
                    if at_root {
                        self.check_root()?;
                        return Err(read_error(cause));
                    }
                    if self.classify(cause)?.is_some() {
                        found.push(WalkEntry { path, is_file: false });
                    }
                }
            }
        }
        Ok(found)
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    fn read(&self, found: &WalkEntry, read_ahead: Option<&ReadAhead>) -> Result<Entry> {
        let path = found.path.clone();
        let entry = |locator, kind| Ok(Entry { path: path.clone(), locator, kind });
        let Some(locator) = path::encode(&path) else {
            return entry(String::new(), EntryKind::UnreadableFile);
        };
        if !found.is_file {
            return entry(locator, EntryKind::UnreadableFolder);
        }
        let kind = match self.read_file(&path, &locator, read_ahead) {
            Ok(kind) => kind,
            Err(cause) => match self.classify(cause)? {
                Some(()) => EntryKind::UnreadableFile,
                None => EntryKind::Ignored,
            },
        };
        entry(locator, kind)
    }

    fn read_file(&self, path: &Path, locator: &str, read_ahead: Option<&ReadAhead>) -> io::Result<EntryKind> {
        let mut file = File::open(self.root.join(path))?;
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
}

impl Scan {
    /// Returns the next entry in path order.
    ///
    /// # Errors
    /// Transient errors: call it again, unless the scan [is lost](Self::is_lost).
    ///
    /// # Cancellation
    /// Dropping the future may lose the scan.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        while self.read.is_empty() {
            if self.unread.is_empty() && !self.continue_walk().await? {
                return Ok(None);
            }
            self.read_heads().await?;
        }
        Ok(self.read.pop_front())
    }

    /// Reports files of instances that an earlier file contains as [`EntryKind::Duplicate`].
    pub(super) fn without_duplicates(mut self) -> Self {
        self.seen = Some(SeenInstances::new());
        self
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
        matches!(self.walk, Walk::Lost)
    }

    async fn continue_walk(&mut self) -> Result<bool> {
        let mut walk = match std::mem::replace(&mut self.walk, Walk::Lost) {
            Walk::Running(walk) => walk,
            Walk::Ended => {
                self.walk = Walk::Ended;
                return Ok(false);
            }
            Walk::Lost => return Err(Error::new(ErrorKind::Internal, "the walk was lost")),
        };
        let tree = self.tree.clone();
        let (walk, found) = blocking(move || {
            let found = tree.walk(&mut walk, FILES_PER_ROUND)?;
            Ok((walk, found))
        })
        .await?;
        self.walk = if found.is_empty() { Walk::Ended } else { Walk::Running(walk) };
        self.unread = found.into();
        Ok(!self.unread.is_empty())
    }

    /// Reads the heads of the entries that the walk found, on several threads.
    async fn read_heads(&mut self) -> Result<()> {
        let threads = available_parallelism().map_or(1, usize::from);
        let share = self.unread.len().div_ceil(threads);
        let tasks = (0..self.unread.len()).step_by(share).map(|start| {
            let (tree, unread) = (self.tree.clone(), Arc::clone(&self.unread));
            let read_ahead = self.read_ahead.clone();
            blocking(move || {
                let some = &unread[start..unread.len().min(start + share)];
                Ok(some.iter().map(|found| tree.read(found, read_ahead.as_ref())).collect::<Vec<_>>())
            })
        });
        let mut failure = None;
        let mut done = 0;
        for entry in try_join_all(tasks).await?.into_iter().flatten() {
            match entry {
                Ok(mut entry) => {
                    self.mark_duplicate(&mut entry);
                    self.read.push_back(entry);
                }
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
            done += 1;
        }
        self.unread = self.unread[done..].into();
        failure.map_or(Ok(()), Err)
    }

    fn mark_duplicate(&mut self, entry: &mut Entry) {
        let (Some(seen), EntryKind::Instance { identifier, .. }) = (&mut self.seen, &entry.kind) else {
            return;
        };
        if seen.insert(identifier) {
            return;
        }
        entry.kind = EntryKind::Duplicate;
        if let Some(cache) = &self.read_ahead {
            cache.take(&entry.locator);
        }
    }
}
