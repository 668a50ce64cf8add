//! [`IndexWriter`]: keeps an index up to date while a scan reads the files.

use std::ops::Bound;
use std::sync::Arc;

use redb::{Durability, ReadableTable, WriteTransaction};

use super::entry::Entry;
use super::index::{BY_IDENTIFIER, FILES, Index, index_error};
use super::path;
use super::record::{Record, damaged};
use crate::error::Result;

/// How many changes are written at once. Each changes a page of the index, and these pages are in memory meanwhile.
const CHANGES_PER_COMMIT: usize = 512;

/// How many times changes are written until the file is synced. A crash loses what was not.
const COMMITS_PER_SYNC: u32 = 64;

/// The record of a path key; `None`: the file does not exist any more.
type Change = (Vec<u8>, Option<Record>);

/// Writes the entries of a scan to an index.
pub(super) struct IndexWriter {
    index: Arc<Index>,
    changes: Vec<Change>,
    commits: u32,
    /// The last path key, if files that are not found are removed from the index.
    last: Option<Vec<u8>>,
}

impl IndexWriter {
    /// Creates a writer for a scan. One of a `whole` tree removes the files that it does not find.
    pub(super) fn new(index: Arc<Index>, whole: bool) -> Self {
        Self { index, changes: Vec::new(), commits: 0, last: whole.then(Vec::new) }
    }

    /// Adds entries in path order.
    pub(super) fn add(&mut self, entries: &[Entry]) -> Result<()> {
        let mut found = Vec::new();
        for entry in entries {
            let Some(key) = path::to_key(&entry.path) else { continue };
            let Some(stamp) = entry.stamp else { continue };
            let Some(record) = Record::new(&entry.kind, stamp) else { continue };
            if !entry.is_known {
                self.changes.push((key.clone(), Some(record)));
            }
            found.push(key);
        }
        if let Some(end) = entries.last().and_then(|entry| path::to_key(&entry.path)) {
            self.remove_missing(&found, Some(end))?;
        }
        if self.changes.len() < CHANGES_PER_COMMIT {
            return Ok(());
        }
        self.commits += 1;
        let is_synced = self.commits.is_multiple_of(COMMITS_PER_SYNC);
        self.write(if is_synced { Durability::Immediate } else { Durability::None })
    }

    /// Ends the scan.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.remove_missing(&[], None)?;
        self.write(Durability::Immediate)
    }

    /// Removes the files up to a path that are not among those found.
    fn remove_missing(&mut self, found: &[Vec<u8>], end: Option<Vec<u8>>) -> Result<()> {
        let Some(last) = &self.last else { return Ok(()) };
        let reader = self.index.reader()?;
        let files = reader.open_table(FILES).map_err(index_error)?;
        let start = if last.is_empty() { Bound::Unbounded } else { Bound::Excluded(&**last) };
        let until = end.as_deref().map_or(Bound::Unbounded, Bound::Included);
        let mut found = found.iter().peekable();
        for stored in files.range::<&[u8]>((start, until)).map_err(index_error)? {
            let (key, _) = stored.map_err(index_error)?;
            while found.next_if(|found| found.as_slice() < key.value()).is_some() {}
            if found.peek().is_none_or(|found| found.as_slice() != key.value()) {
                self.changes.push((key.value().to_vec(), None));
            }
        }
        if let Some(end) = end {
            self.last = Some(end);
        }
        Ok(())
    }

    fn write(&mut self, durability: Durability) -> Result<()> {
        if self.changes.is_empty() && self.commits == 0 {
            return Ok(());
        }
        let (index, changes) = (Arc::clone(&self.index), std::mem::take(&mut self.changes));
        let (changes, written) = self.index.writer().run(move || {
            let written = write(&index, &changes, durability);
            (changes, written)
        })?;
        if written.is_err() {
            self.changes = changes;
        }
        written
    }
}

fn write(index: &Index, changes: &[Change], durability: Durability) -> Result<()> {
    let mut write = index.database().begin_write().map_err(index_error)?;
    write.set_durability(durability).map_err(index_error)?;
    write_changes(&write, changes)?;
    write.commit().map_err(index_error)
}

fn write_changes(write: &WriteTransaction, changes: &[Change]) -> Result<()> {
    let mut files = write.open_table(FILES).map_err(index_error)?;
    let mut by_identifier = write.open_table(BY_IDENTIFIER).map_err(index_error)?;
    for (key, record) in changes {
        let key = key.as_slice();
        let old =
            files.get(key).map_err(index_error)?.map(|old| Record::decode(old.value()).ok_or_else(damaged));
        let old = old.transpose()?.and_then(|old| old.identifier_key(key));
        if let Some(old) = old {
            by_identifier.remove(&*old).map_err(index_error)?;
        }
        match record {
            Some(record) => {
                files.insert(key, &*record.encode()).map_err(index_error)?;
                if let Some(new) = record.identifier_key(key) {
                    by_identifier.insert(&*new, ()).map_err(index_error)?;
                }
            }
            None => _ = files.remove(key).map_err(index_error)?,
        }
    }
    Ok(())
}
