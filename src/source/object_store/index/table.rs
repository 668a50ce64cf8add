//! [`IndexTable`]: the lines of an index by identifier, in a temporary redb database.

use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{DicomIdentifier, Instance, InstanceIdentifier, ListFailure, Locator};
use crate::source::temporary_database::temporary_database;
use crate::source::writer_thread::WriterThread;
use crate::sync::blocking;

/// Identifier key to record. The key of an instance is its UIDs, each followed by a NUL; the number of the line follows the
/// UIDs of a broken line, of which some may be empty.
const LINES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("lines");

/// How many times lines are written until redb reuses the pages that it has replaced.
const COMMITS_PER_SYNC: u64 = 64;

/// A line of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Instance { identifier: InstanceIdentifier, path: String, size: Option<u64>, etag: Option<String> },
    Broken { known: String, fault: Cow<'static, str> },
}

/// What the table stores of a line.
#[derive(Serialize, Deserialize)]
enum Record {
    Instance {
        line: u64,
        size: Option<u64>,
        object: IndexedObject,
        /// How many earlier lines name the instance.
        repeats: u64,
    },
    Broken {
        fault: Cow<'static, str>,
    },
}

/// The object of an instance. It is the locator of the instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::source::object_store) struct IndexedObject {
    /// The key below the prefix of the source.
    pub(in crate::source::object_store) path: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::source::object_store) etag: Option<String>,
}

/// The position of an entry in the order of a listing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The UIDs that are known, separated by `/`.
    identifier: String,
    /// The number of a broken line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    line: Option<u64>,
}

impl Position {
    fn key(&self) -> Vec<u8> {
        let mut uids = self.identifier.split('/');
        let mut key = Vec::new();
        for _ in 0..3 {
            key.extend(uids.next().unwrap_or_default().bytes().chain([0]));
        }
        key.extend(self.line.into_iter().flat_map(u64::to_be_bytes));
        key
    }

    fn from_key(key: &[u8]) -> Result<Self> {
        let mut parts = key.splitn(4, |byte| *byte == 0);
        let mut uids = Vec::new();
        for _ in 0..3 {
            let uid = parts.next().and_then(|uid| std::str::from_utf8(uid).ok()).ok_or_else(damaged)?;
            uids.extend(Some(uid).filter(|uid| !uid.is_empty()));
        }
        let line = parts.next().and_then(|line| line.try_into().ok()).map(u64::from_be_bytes);
        Ok(Self { identifier: uids.join("/"), line })
    }
}

/// The lines of one version of an index.
pub(super) struct IndexTable {
    /// The version of the index.
    pub(super) version: String,
    database: Database,
    thread: WriterThread,
    commits: AtomicU64,
    instances: AtomicU64,
    /// The number of broken lines of which no UID is known.
    unidentified: AtomicU64,
}

/// A page of entries.
#[derive(Default)]
pub(super) struct TablePage {
    pub(super) instances: Vec<Instance>,
    pub(super) failures: Vec<ListFailure>,
    /// The number of lines that later lines replace.
    pub(super) repeats: u64,
    /// The position of the last entry, if others follow.
    pub(super) next: Option<Position>,
}

impl IndexTable {
    pub(super) fn new(version: String) -> Result<Self> {
        let database = temporary_database().map_err(table_error)?;
        let write = database.begin_write().map_err(table_error)?;
        write.open_table(LINES).map_err(table_error)?;
        write.commit().map_err(table_error)?;
        let thread = WriterThread::new();
        let (commits, instances, unidentified) = (0.into(), 0.into(), 0.into());
        Ok(Self { version, database, thread, commits, instances, unidentified })
    }

    /// The number of instances.
    pub(super) fn instances(&self) -> u64 {
        self.instances.load(Ordering::Relaxed)
    }

    /// Returns the number of broken lines of which no UID is known, once.
    pub(super) fn take_unidentified(&self) -> u64 {
        self.unidentified.swap(0, Ordering::Relaxed)
    }

    /// Adds lines with their numbers. Adding the same lines again changes nothing.
    pub(super) async fn insert(self: &Arc<Self>, lines: Arc<Vec<(u64, Line)>>) -> Result<()> {
        self.run(move |table| table.write(&lines)).await
    }

    /// Returns the entries under an identifier, or all, that follow a position.
    pub(super) async fn page(
        self: &Arc<Self>,
        scope: Option<DicomIdentifier>,
        after: Option<Position>,
        limit: usize,
    ) -> Result<TablePage> {
        self.run(move |table| table.read(scope.as_ref(), after.as_ref(), limit)).await
    }

    /// Runs work on the thread of the database.
    async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let table = Arc::clone(self);
        blocking(move || {
            let shared = Arc::clone(&table);
            table.thread.run(move || work(&shared))?
        })
        .await
    }

    fn write(&self, lines: &[(u64, Line)]) -> Result<()> {
        let mut write = self.database.begin_write().map_err(table_error)?;
        let is_synced =
            self.commits.fetch_add(1, Ordering::Relaxed) % COMMITS_PER_SYNC == COMMITS_PER_SYNC - 1;
        let durability = if is_synced { Durability::Immediate } else { Durability::None };
        write.set_durability(durability).map_err(table_error)?;
        let (mut instances, mut unidentified) = (0, 0);
        {
            let mut stored = write.open_table(LINES).map_err(table_error)?;
            for (number, line) in lines {
                let position = match line {
                    Line::Instance { identifier, .. } => {
                        Position { identifier: identifier.to_string(), line: None }
                    }
                    Line::Broken { known, .. } => Position { identifier: known.clone(), line: Some(*number) },
                };
                let key = position.key();
                let earlier = stored.get(&*key).map_err(table_error)?;
                let earlier = earlier.map(|stored| decode(stored.value())).transpose()?;
                let record = match (line, earlier) {
                    (Line::Instance { .. }, Some(Record::Instance { line, .. })) if line >= *number => {
                        continue;
                    }
                    (Line::Instance { path, size, etag, .. }, earlier) => {
                        let repeats = match earlier {
                            Some(Record::Instance { repeats, .. }) => repeats + 1,
                            _ => 0,
                        };
                        instances += u64::from(repeats == 0);
                        let object = IndexedObject { path: path.clone(), etag: etag.clone() };
                        Record::Instance { line: *number, size: *size, object, repeats }
                    }
                    (Line::Broken { .. }, Some(_)) => continue,
                    (Line::Broken { known, fault }, None) => {
                        unidentified += u64::from(known.is_empty());
                        Record::Broken { fault: fault.clone() }
                    }
                };
                let record = serde_json::to_vec(&record).map_err(|_| damaged())?;
                stored.insert(&*key, &*record).map_err(table_error)?;
            }
        }
        write.commit().map_err(table_error)?;
        self.instances.fetch_add(instances, Ordering::Relaxed);
        self.unidentified.fetch_add(unidentified, Ordering::Relaxed);
        Ok(())
    }

    fn read(
        &self,
        scope: Option<&DicomIdentifier>,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<TablePage> {
        let read = self.database.begin_read().map_err(table_error)?;
        let lines = read.open_table(LINES).map_err(table_error)?;
        let prefix: Vec<u8> = scope
            .map(DicomIdentifier::to_string)
            .iter()
            .flat_map(|scope| scope.split('/'))
            .fold(Vec::new(), |mut prefix, uid| {
                prefix.extend(uid.bytes().chain([0]));
                prefix
            });
        let after = after.map(Position::key);
        let start = after.as_deref().map_or(Bound::Included(&*prefix), Bound::Excluded);
        let mut page = TablePage::default();
        let mut last = None;
        for stored in lines.range::<&[u8]>((start, Bound::Unbounded)).map_err(table_error)? {
            let (key, record) = stored.map_err(table_error)?;
            if !key.value().starts_with(&prefix) {
                break;
            }
            if page.instances.len() + page.failures.len() == limit {
                page.next = last;
                break;
            }
            let position = Position::from_key(key.value())?;
            match decode(record.value())? {
                Record::Instance { size, object, repeats, .. } => {
                    let identifier = position.identifier.parse().map_err(|_| damaged())?;
                    let instance = Instance::new(identifier).with_locator(Locator::encode(&object)?);
                    page.instances.push(match size {
                        Some(size) => instance.with_size(size),
                        None => instance,
                    });
                    page.repeats += repeats;
                }
                Record::Broken { fault } => {
                    let number = position.line.unwrap_or_default();
                    let message = format!("line {number} of the source's index {fault}");
                    page.failures.push(ListFailure::new(position.identifier.as_str(), message));
                }
            }
            last = Some(position);
        }
        Ok(page)
    }
}

fn decode(record: &[u8]) -> Result<Record> {
    serde_json::from_slice(record).map_err(|_| damaged())
}

fn damaged() -> Error {
    Error::new(ErrorKind::Internal, "the temporary database of an index is damaged")
}

fn table_error(cause: impl Into<redb::Error>) -> Error {
    let message = "the temporary database of an index cannot be used";
    Error::new(ErrorKind::Unavailable, message).with_source(cause.into())
}
