//! [`IndexWriter`]: keeps an index up to date while a scan reads the files.

use std::ops::Bound;
use std::sync::Arc;

use redb::{ReadableTable, WriteTransaction};

use super::entry::Entry;
use super::index::{BY_IDENTIFIER, FILES, Index, index_error};
use super::path;
use super::record::{Record, damaged};
use crate::error::Result;

/// How many changes are written at once.
const CHANGES_PER_COMMIT: usize = 4_096;

/// Writes the entries of a scan to an index.
pub(super) struct IndexWriter {
    index: Arc<Index>,
    /// By path key; `None`: the file does not exist any more.
    changes: Vec<(Vec<u8>, Option<Record>)>,
    /// The last path key, if files that are not found are removed from the index.
    last: Option<Vec<u8>>,
}

impl IndexWriter {
    /// Creates a writer for a scan. One of a `whole` tree removes the files that it does not find.
    pub(super) fn new(index: Arc<Index>, whole: bool) -> Self {
        Self { index, changes: Vec::new(), last: whole.then(Vec::new) }
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
        if self.changes.len() >= CHANGES_PER_COMMIT { self.write() } else { Ok(()) }
    }

    /// Ends the scan.
    pub(super) fn finish(&mut self) -> Result<()> {
        self.remove_missing(&[], None)?;
        self.write()
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

    fn write(&mut self) -> Result<()> {
        if self.changes.is_empty() {
            return Ok(());
        }
        let write = self.index.database().begin_write().map_err(index_error)?;
        self.write_changes(&write)?;
        write.commit().map_err(index_error)?;
        self.changes.clear();
        Ok(())
    }

    fn write_changes(&self, write: &WriteTransaction) -> Result<()> {
        let mut files = write.open_table(FILES).map_err(index_error)?;
        let mut by_identifier = write.open_table(BY_IDENTIFIER).map_err(index_error)?;
        for (key, record) in &self.changes {
            let key = key.as_slice();
            let old = files
                .get(key)
                .map_err(index_error)?
                .map(|old| Record::decode(old.value()).ok_or_else(damaged));
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
}
