//! [`HeadReader`]: finds out what the files of a walk are.

use std::fs;
use std::io::{self, BufReader};
use std::path::Path;

use redb::ReadOnlyTable;

use super::entry::{Entry, EntryKind, Stamp};
use super::head::{FileType, identify};
use super::index::{FILES, Index, index_error};
use super::opener::Opener;
use super::path;
use super::read_ahead::ReadAhead;
use super::record::Record;
use super::tree::Tree;
use super::walk::WalkEntry;
use crate::error::Result;

/// Reads the heads of files, of a few in one folder after another.
pub(super) struct HeadReader<'a> {
    tree: &'a Tree,
    opener: Opener,
    read_ahead: Option<&'a ReadAhead>,
    known: Option<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl<'a> HeadReader<'a> {
    pub(super) fn new(
        tree: &'a Tree,
        read_ahead: Option<&'a ReadAhead>,
        index: Option<&Index>,
    ) -> Result<Self> {
        let table = |index: &Index| index.reader()?.open_table(FILES).map_err(index_error);
        let known = index.map(table).transpose()?;
        Ok(Self { tree, opener: tree.opener(), read_ahead, known })
    }

    /// Returns what an entry of the walk is: from the index if the file has not changed, otherwise from its head.
    ///
    /// # Errors
    /// Those of the source as a whole.
    pub(super) fn read(&mut self, found: &WalkEntry) -> Result<Entry> {
        let path = found.path.clone();
        let entry = |locator, kind| Entry { path: path.clone(), locator, kind, stamp: None, is_known: false };
        let Some(locator) = path::encode(&path) else {
            return Ok(entry(String::new(), EntryKind::UnreadableFile));
        };
        if !found.is_file {
            return Ok(entry(locator, EntryKind::UnreadableFolder));
        }
        // Before the head is read: a change after this shows in the next stamp.
        let stamp = self.known.is_some().then(|| self.stamp(&path)).flatten();
        if let Some(kind) = self.known_kind(&path, stamp)? {
            return Ok(Entry { stamp, is_known: true, ..entry(locator, kind) });
        }
        let kind = match self.read_head(&path, &locator) {
            Ok(kind) => kind,
            // Something else has taken the place of the file.
            Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => EntryKind::Ignored,
            Err(cause) => match self.tree.classify(cause, &path)? {
                true => EntryKind::UnreadableFile,
                false => EntryKind::Ignored,
            },
        };
        Ok(Entry { stamp, ..entry(locator, kind) })
    }

    fn stamp(&self, path: &Path) -> Option<Stamp> {
        let path = self.tree.root.join(path);
        let metadata = if self.tree.follow_links { fs::metadata(path) } else { fs::symlink_metadata(path) };
        metadata.ok().filter(fs::Metadata::is_file).map(|metadata| Stamp::of(&metadata))
    }

    fn known_kind(&self, path: &Path, stamp: Option<Stamp>) -> Result<Option<EntryKind>> {
        let (Some(known), Some(stamp), Some(key)) = (&self.known, stamp, path::to_key(path)) else {
            return Ok(None);
        };
        let stored = known.get(&*key).map_err(index_error)?.and_then(|stored| Record::decode(stored.value()));
        Ok(stored.filter(|stored| stamp.vouches_for(&stored.stamp())).map(Record::into_kind))
    }

    fn read_head(&mut self, path: &Path, locator: &str) -> io::Result<EntryKind> {
        let mut file = self.opener.open(path)?;
        let size = file.metadata()?.len();
        let whole = self.read_ahead.map(|cache| cache.read(&mut file, size)).transpose()?.flatten();
        let file_type = match &whole {
            Some(bytes) => identify(io::Cursor::new(bytes))?,
            None => identify(BufReader::new(file))?,
        };
        Ok(match file_type {
            FileType::Instance { identifier, has_preamble } => {
                // A file that has shrunk may be incomplete: it is read again when it is opened.
                let whole = whole.filter(|bytes| bytes.len() as u64 == size);
                if let (Some(cache), Some(bytes)) = (self.read_ahead, whole) {
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
