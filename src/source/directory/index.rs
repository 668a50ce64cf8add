//! [`Index`]: the files of a tree by path and by identifier, in a redb file.

use std::collections::HashMap;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, Weak};

use redb::{Database, DatabaseError, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition};

use super::path;
use super::record::{Record, damaged, first_key_after, prefix, split_key};
use super::tree::Tree;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Cursor, DicomIdentifier, Instance, ListFailure, Locator};
use crate::source::temporary_database::{database_builder, temporary_database};
use crate::source::writer_thread::WriterThread;
use crate::sync::lock;

/// The version of the tables. An index with another one is built again.
const FORMAT: &str = "1";

/// The format, and the tree that the files belong to.
const ABOUT: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("about");
/// Path key to record, in path order.
pub(super) const FILES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("files");
/// Identifier key, then path key.
pub(super) const BY_IDENTIFIER: TableDefinition<'_, &[u8], ()> = TableDefinition::new("by_identifier");

/// The indexes that are open in this process, by path.
static OPEN: LazyLock<Mutex<HashMap<PathBuf, Weak<Index>>>> = LazyLock::new(Mutex::default);

pub(super) struct Index {
    database: Database,
    writer: WriterThread,
}

/// The entries of a page of an identifier.
#[derive(Default)]
pub(super) struct IndexPage {
    pub(super) instances: Vec<Instance>,
    pub(super) failures: Vec<ListFailure>,
    /// Further files of the instances.
    pub(super) duplicates: u64,
    pub(super) without_preamble: u64,
    pub(super) next: Option<Cursor>,
}

impl Index {
    /// Opens or creates the index of a tree. Sources in this process share it.
    pub(super) fn open(file: &Path, tree: &Tree) -> Result<Arc<Self>> {
        let file = std::path::absolute(file).map_err(file_error)?;
        let mut open = lock(&OPEN);
        open.retain(|_, index| index.strong_count() > 0);
        if let Some(index) = open.get(&file).and_then(Weak::upgrade) {
            index.prepare(tree)?;
            return Ok(index);
        }
        let database = database_builder().create(&file).map_err(|cause| match cause {
            DatabaseError::DatabaseAlreadyOpen => {
                Error::new(ErrorKind::Conflict, "the index of the source is in use by another process")
            }
            cause => index_error(cause),
        })?;
        let index = Arc::new(Self { database, writer: WriterThread::new() });
        index.prepare(tree)?;
        open.insert(file, Arc::downgrade(&index));
        Ok(index)
    }

    /// Creates an index that lasts as long as this value: in a temporary file, or in memory where there is none.
    pub(super) fn temporary(tree: &Tree) -> Result<Arc<Self>> {
        let database = temporary_database().map_err(index_error)?;
        let index = Arc::new(Self { database, writer: WriterThread::new() });
        index.prepare(tree)?;
        Ok(index)
    }

    /// Creates the tables. Those of another tree are deleted first.
    fn prepare(&self, tree: &Tree) -> Result<()> {
        let write = self.database.begin_write().map_err(index_error)?;
        {
            let root = tree.root.as_os_str().as_encoded_bytes();
            let about = [FORMAT.as_bytes(), if tree.follow_links { b"/links" } else { b"/" }, root].concat();
            let mut table = write.open_table(ABOUT).map_err(index_error)?;
            let is_same =
                table.get("tree").map_err(index_error)?.is_some_and(|stored| stored.value() == about);
            if !is_same {
                write.delete_table(FILES).map_err(index_error)?;
                write.delete_table(BY_IDENTIFIER).map_err(index_error)?;
                table.insert("tree", &*about).map_err(index_error)?;
            }
            write.open_table(FILES).map_err(index_error)?;
            write.open_table(BY_IDENTIFIER).map_err(index_error)?;
        }
        write.commit().map_err(index_error)
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    pub(super) fn writer(&self) -> &WriterThread {
        &self.writer
    }

    pub(super) fn reader(&self) -> Result<ReadTransaction> {
        self.database.begin_read().map_err(index_error)
    }

    /// Returns the entries under an identifier that follow a cursor.
    pub(super) fn page(
        &self,
        scope: &DicomIdentifier,
        after: Option<&Cursor>,
        limit: usize,
    ) -> Result<IndexPage> {
        let reader = self.reader()?;
        let files = reader.open_table(FILES).map_err(index_error)?;
        let keys = reader.open_table(BY_IDENTIFIER).map_err(index_error)?;
        let scope = prefix(scope);
        let start = match after {
            Some(cursor) => first_key_after(cursor)?,
            None => scope.clone(),
        };
        let mut page = IndexPage::default();
        // The identifier of the last instance, and the cursor after the last entry.
        let (mut last, mut cursor): (Option<Vec<u8>>, Option<String>) = (None, None);
        let range = (Bound::Included(&*start), Bound::<&[u8]>::Unbounded);
        for key in keys.range::<&[u8]>(range).map_err(index_error)? {
            let (key, _) = key.map_err(index_error)?;
            let key = key.value();
            if !key.starts_with(&scope) {
                break;
            }
            let (identifier, path_key) = split_key(key)?;
            if last.as_deref() == Some(identifier) {
                page.duplicates += 1;
                continue;
            }
            if page.instances.len() + page.failures.len() == limit {
                page.next = cursor.map(|text| Cursor::encode(&text)).transpose()?;
                break;
            }
            let stored = files.get(path_key).map_err(index_error)?.ok_or_else(damaged)?;
            let locator =
                path::from_key(path_key).and_then(|path| path::encode(&path)).ok_or_else(damaged)?;
            match Record::decode(stored.value()).ok_or_else(damaged)? {
                Record::Instance { identifier: of, has_preamble, stamp } => {
                    cursor = Some(of.to_string());
                    last = Some(identifier.to_vec());
                    page.without_preamble += u64::from(!has_preamble);
                    let instance = Instance::new(of).with_size(stamp.size);
                    page.instances.push(instance.with_locator(Locator::new(locator)));
                }
                Record::Unidentified { failure, .. } => {
                    let mut known = failure.identifier.splitn(2, '/');
                    let (study, series) = (known.next().unwrap_or(""), known.next().unwrap_or(""));
                    cursor = Some(format!("{study}/{series}//{locator}"));
                    page.failures.push(failure);
                }
                Record::Directory { .. } | Record::Ignored { .. } => return Err(damaged()),
            }
        }
        Ok(page)
    }

    /// Counts the instances under an identifier.
    pub(super) fn count(&self, scope: &DicomIdentifier) -> Result<u64> {
        let reader = self.reader()?;
        let keys = reader.open_table(BY_IDENTIFIER).map_err(index_error)?;
        let scope = prefix(scope);
        let (mut count, mut last) = (0, Vec::new());
        for key in keys.range::<&[u8]>(&*scope..).map_err(index_error)? {
            let (key, _) = key.map_err(index_error)?;
            let key = key.value();
            if !key.starts_with(&scope) {
                break;
            }
            let (identifier, _) = split_key(key)?;
            // A UID is missing in the key of a file without three UIDs.
            if identifier != last && !identifier.ends_with(b"\0\0") {
                count += 1;
                last = identifier.to_vec();
            }
        }
        Ok(count)
    }
}

fn file_error(cause: io::Error) -> Error {
    Error::new(ErrorKind::Invalid, "the index of the source cannot be opened").with_source(cause)
}

pub(super) fn index_error(cause: impl Into<redb::Error>) -> Error {
    let message = "the index of the source cannot be used";
    Error::new(ErrorKind::Unavailable, message).with_source(cause.into())
}
