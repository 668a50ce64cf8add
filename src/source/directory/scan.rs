//! [`Scan`]: the entries of a folder tree in path order, with the UIDs from their heads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::available_parallelism;

use futures::future::try_join_all;

use super::entry::{Entry, EntryKind};
use super::head_reader::HeadReader;
use super::index::Index;
use super::index_writer::IndexWriter;
use super::read_ahead::ReadAhead;
use super::seen::SeenInstances;
use super::tree::Tree;
use super::walk::{Walk, WalkEntry};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::blocking;

/// How many files are read before the walk continues: enough to keep all threads busy, few enough to stop soon.
const FILES_PER_ROUND: usize = 128;

/// Reads the heads of the files of a tree in path order.
pub(super) struct Scan {
    tree: Tree,
    /// `None`: in use by a blocking thread, or lost with a call that was dropped.
    state: Option<State>,
    /// `None`: only the heads of files are read.
    read_ahead: Option<ReadAhead>,
    /// The files whose heads do not have to be read again.
    index: Option<Arc<Index>>,
    /// Entries of the walk whose heads have not been read.
    unread: Arc<[WalkEntry]>,
    read: VecDeque<Entry>,
}

struct State {
    walk: Walk,
    /// The instances found so far; `None`: duplicates are not recognized.
    seen: Option<SeenInstances>,
    index: Option<IndexWriter>,
}

impl Scan {
    pub(super) fn new(tree: &Tree) -> Self {
        let state = Some(State { walk: Walk::new(tree), seen: None, index: None });
        Self {
            tree: tree.clone(),
            state,
            read_ahead: None,
            index: None,
            unread: [].into(),
            read: VecDeque::new(),
        }
    }

    /// Creates a scan that reports files of instances that an earlier file contains as [`EntryKind::Duplicate`].
    pub(super) fn without_duplicates(tree: &Tree) -> Self {
        let state = Some(State { walk: Walk::new(tree), seen: Some(SeenInstances::new()), index: None });
        Self { state, ..Self::new(tree) }
    }

    /// Uses an index instead of the heads of files that have not changed, and keeps it up to date. A scan of a `whole`
    /// tree removes the files from the index that do not exist any more.
    pub(super) fn with_index(mut self, index: Arc<Index>, whole: bool) -> Self {
        if let Some(state) = &mut self.state {
            state.index = Some(IndexWriter::new(Arc::clone(&index), whole));
        }
        self.index = Some(index);
        self
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
                let walked = self.with_state(|state| state.walk.next(FILES_PER_ROUND)).await;
                if self.state.as_ref().is_some_and(|state| state.walk.is_lost()) {
                    self.state = None;
                }
                self.unread = walked?.into();
                if self.unread.is_empty() {
                    self.with_state(|state| state.index.as_mut().map_or(Ok(()), IndexWriter::finish)).await?;
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
            state.walk.shrink()?;
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
            let index = self.index.clone();
            blocking(move || {
                let mut reader = HeadReader::new(&tree, read_ahead.as_ref(), index.as_deref())?;
                let entries = &unread[start..unread.len().min(start + share)];
                Ok(entries.iter().map(|entry| reader.read(entry)).collect::<Vec<_>>())
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
        let marked = self.with_state(move |state| {
            if let Some(index) = &mut state.index {
                index.add(&entries)?;
            }
            if let Some(seen) = &mut state.seen {
                mark_duplicates(seen, &mut entries, cache.as_ref())?;
            }
            Ok(entries)
        });
        let entries = match marked.await {
            Ok(entries) => entries,
            Err(error) => {
                // Some of the entries may count as seen without having been listed.
                self.state = None;
                return Err(error);
            }
        };
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
