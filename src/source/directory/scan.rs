//! [`Scan`]: the files of a tree in path order, each with what its head says.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::available_parallelism;

use bytes::Bytes;
use futures::future::try_join_all;
use tokio::task::spawn_blocking;
use walkdir::WalkDir;

use super::ahead::ReadAhead;
use super::head::{Head, read_head};
use super::path;
use crate::content::read_error;
use crate::error::{Error, ErrorKind, Result};
use crate::model::InstanceIdentifier;

/// How many files are read between two trips to the walk: enough to hide the trips, few enough to stop soon.
const ROUND: usize = 128;

/// A tree to walk.
#[derive(Clone)]
pub(super) struct Tree {
    pub(super) root: Arc<Path>,
    pub(super) follow_links: bool,
}

/// Something in the tree.
pub(super) struct Entry {
    /// Below the root.
    pub(super) path: PathBuf,
    pub(super) what: What,
}

pub(super) enum What {
    Instance {
        identifier: InstanceIdentifier,
        size: u64,
        /// The path as text.
        locator: String,
        /// The whole file, if it was read.
        bytes: Option<Bytes>,
    },
    Unidentified,
    UnreadableFile,
    UnreadableFolder,
    /// No DICOM file, or gone since the walk saw it.
    Nothing,
}

/// A walk through a tree in path order: by folder, names compared as bytes.
pub(super) struct Scan {
    tree: Tree,
    /// `None`: no more is read of a file than its head.
    ahead: Option<ReadAhead>,
    walk: Walk,
    /// Files and unreadable folders that the walk came upon.
    unread: Arc<[Found]>,
    read: VecDeque<Entry>,
}

enum Walk {
    Going(Box<walkdir::IntoIter>),
    Ended,
    /// Away on another thread, or lost there: a walk cannot be repeated from the middle.
    Lost,
}

#[derive(Clone)]
struct Found {
    path: PathBuf,
    is_file: bool,
}

impl Tree {
    pub(super) fn scan(&self) -> Scan {
        let walk = WalkDir::new(&self.root).min_depth(1).follow_links(self.follow_links).sort_by_file_name();
        Scan {
            tree: self.clone(),
            ahead: None,
            walk: Walk::Going(Box::new(walk.into_iter())),
            unread: [].into(),
            read: VecDeque::new(),
        }
    }

    /// An error when the root looks unmounted: what is not found below it then is not gone.
    pub(super) fn check_root(&self) -> Result<()> {
        let message = match fs::read_dir(&self.root).and_then(|mut names| names.next().transpose()) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => return Err(Error::new(ErrorKind::Unavailable, "the source's folder is empty now")),
            Err(cause) => cause,
        };
        Err(Error::new(ErrorKind::Unavailable, "the source's folder cannot be read now").with_source(message))
    }

    /// What lies beneath a failure below the root; `None`: it is gone, and the root is not.
    fn judge(&self, cause: io::Error) -> Result<Option<()>> {
        let error = read_error(cause);
        match error.kind() {
            ErrorKind::NotFound => self.check_root().map(|()| None),
            ErrorKind::Unavailable => Err(error),
            _ => Ok(Some(())),
        }
    }

    /// Goes on with a walk for so many files, or to its end.
    fn walk(&self, walk: &mut walkdir::IntoIter, most: usize) -> Result<Vec<Found>> {
        let mut found = Vec::new();
        while found.len() < most {
            let Some(entry) = walk.next() else { break };
            match entry {
                Ok(entry) if entry.file_type().is_file() => {
                    found.push(Found { path: self.below(entry.path()), is_file: true });
                }
                Ok(_) => {}
                Err(error) => {
                    let path = error.path().map(|path| self.below(path)).unwrap_or_default();
                    let at_root = error.depth() == 0;
                    // Without a cause it is a link to a folder above it, whose files are listed there.
                    let Some(cause) = error.into_io_error() else { continue };
                    if at_root {
                        self.check_root()?;
                        return Err(read_error(cause));
                    }
                    if self.judge(cause)?.is_some() {
                        found.push(Found { path, is_file: false });
                    }
                }
            }
        }
        Ok(found)
    }

    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).unwrap_or(path).to_owned()
    }

    fn read(&self, found: &Found, ahead: Option<&ReadAhead>) -> Result<Entry> {
        let path = found.path.clone();
        if !found.is_file {
            return Ok(Entry { path, what: What::UnreadableFolder });
        }
        let read = || {
            let mut file = File::open(self.root.join(&path))?;
            let size = file.metadata()?.len();
            let whole = ahead.map(|ahead| ahead.read(&mut file, size)).transpose()?.flatten();
            Ok(match whole {
                // One that just shrank may be half written: it is read when it is opened.
                Some(bytes) => (read_head(&*bytes)?, size, (bytes.len() as u64 == size).then_some(bytes)),
                None => (read_head(BufReader::new(file))?, size, None),
            })
        };
        let what = match read() {
            Ok((Head::Instance(identifier), size, bytes)) => match path::encode(&path) {
                Some(locator) => What::Instance { identifier, size, locator, bytes },
                None => What::UnreadableFile,
            },
            Ok((Head::Unidentified, ..)) => What::Unidentified,
            Ok((Head::Other, ..)) => What::Nothing,
            Err(cause) => match self.judge(cause)? {
                Some(()) => What::UnreadableFile,
                None => What::Nothing,
            },
        };
        Ok(Entry { path, what })
    }
}

impl Scan {
    /// The next entry in path order.
    ///
    /// # Errors
    /// Transient trouble: call it again, unless it [is lost](Self::is_lost). Dropping the future may lose the scan.
    pub(super) async fn next(&mut self) -> Result<Option<Entry>> {
        while self.read.is_empty() {
            if self.unread.is_empty() && !self.walk_on().await? {
                return Ok(None);
            }
            self.read_on().await?;
        }
        Ok(self.read.pop_front())
    }

    /// Has small files read whole from now on, as far as there is room.
    pub(super) fn read_ahead(&mut self, ahead: ReadAhead) {
        self.ahead = Some(ahead);
    }

    /// Lets go of files that were read whole and not handed out yet.
    pub(super) fn forget_ahead(&mut self) {
        for entry in &mut self.read {
            if let What::Instance { bytes, .. } = &mut entry.what {
                *bytes = None;
            }
        }
    }

    /// Takes an entry back, to be the next one again.
    pub(super) fn put_back(&mut self, entry: Entry) {
        self.read.push_front(entry);
    }

    /// Whether it can only be begun again.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.walk, Walk::Lost)
    }

    async fn walk_on(&mut self) -> Result<bool> {
        let mut walk = match std::mem::replace(&mut self.walk, Walk::Lost) {
            Walk::Going(walk) => walk,
            Walk::Ended => {
                self.walk = Walk::Ended;
                return Ok(false);
            }
            Walk::Lost => return Err(Error::new(ErrorKind::Internal, "the walk was lost")),
        };
        let tree = self.tree.clone();
        let (walk, found) = on_thread(move || {
            let found = tree.walk(&mut walk, ROUND)?;
            Ok((walk, found))
        })
        .await?;
        self.walk = if found.is_empty() { Walk::Ended } else { Walk::Going(walk) };
        self.unread = found.into();
        Ok(!self.unread.is_empty())
    }

    /// Reads the heads of what the walk found, on several threads.
    async fn read_on(&mut self) -> Result<()> {
        let threads = available_parallelism().map_or(1, usize::from);
        let share = self.unread.len().div_ceil(threads);
        let tasks = (0..self.unread.len()).step_by(share).map(|start| {
            let (tree, unread) = (self.tree.clone(), Arc::clone(&self.unread));
            let ahead = self.ahead.clone();
            on_thread(move || {
                let some = &unread[start..unread.len().min(start + share)];
                Ok(some.iter().map(|found| tree.read(found, ahead.as_ref())).collect::<Vec<_>>())
            })
        });
        let mut failure = None;
        let mut done = 0;
        for entry in try_join_all(tasks).await?.into_iter().flatten() {
            match entry {
                Ok(entry) => self.read.push_back(entry),
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
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(cause) => Err(Error::new(ErrorKind::Internal, "a reading thread stopped").with_source(cause)),
    }
}
