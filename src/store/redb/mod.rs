//! [`RedbOperationStore`]: operations in one durable file.

mod file;
mod key;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use redb::{Database, ReadableDatabase, ReadableTable, WriteTransaction};
use serde::Deserialize;

pub use redb::StorageBackend;

use self::file::{BY_AGE, CHECKPOINTS, SPECS, StateFile, UNFINISHED, is_indexed, redb_error, write};
use self::key::{AGE_MAX, AgeKey, age_of, first_age_at, key_of};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Checkpoint, OperationId, OperationKey, OperationSpec, Timestamp};
use crate::store::record::{decode, encode};
use crate::store::{OperationFilter, OperationStore, log_skipped};
use crate::sync::blocking;

/// Operations in one file, for a server without a database. Clones share it.
///
/// When a call returns, its change is on the disk. A crash at any moment leaves the state after the last call that
/// returned, or after the call that was in progress. The file has **one owner**: while it is open, it cannot be opened
/// again, by this process or another. Several replicas need a store over a database instead. Opening the file releases all
/// leases, because their holders have stopped.
///
/// The file contains no credentials. Of patients' data it contains what requests name: identifiers, and the cursors of the
/// source.
///
/// No call blocks an async thread. After a failed read or write (for example on a full disk), the file is closed, and the
/// next call opens it again.
///
/// ```
/// use dicom_export::store::RedbOperationStore;
/// use dicom_export::{ExportEngine, MemorySource};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("exports.redb");
/// let store = RedbOperationStore::open(&path)?;
/// let engine = ExportEngine::builder(MemorySource::new()).operation_store(store).build()?;
/// assert!(RedbOperationStore::open(&path).is_err(), "the file is in use");
/// # let _ = engine;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedbOperationStore {
    file: Arc<StateFile>,
}

impl RedbOperationStore {
    /// Opens the file, and creates it if it does not exist. Its folder must exist.
    ///
    /// This call blocks: it reads the whole file to check it.
    ///
    /// # Errors
    /// - [`Conflict`](ErrorKind::Conflict): the file is in use by this process or another.
    /// - [`Unsupported`](ErrorKind::Unsupported): a later version of this crate has written the file.
    /// - [`Invalid`](ErrorKind::Invalid): the file is not a state file. It is not changed.
    /// - [`Unreadable`](ErrorKind::Unreadable): the file is damaged.
    /// - [`NotFound`](ErrorKind::NotFound): the folder does not exist.
    /// - [`Unavailable`](ErrorKind::Unavailable): the file cannot be read or written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        StateFile::open(path.as_ref()).map(Self::over)
    }

    /// Opens a store on other storage than a file, and creates it if the storage is empty. Tests use this to simulate
    /// power failures. `open` is called now, and again after a failure.
    ///
    /// # Errors
    /// As [`open`](Self::open). The backend must ensure that the storage is opened only once at a time.
    pub fn open_backend<B: StorageBackend>(
        open: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        StateFile::open_backend(open).map(Self::over)
    }

    fn over(file: StateFile) -> Self {
        Self { file: Arc::new(file) }
    }

    /// Runs `work` on a blocking thread. It runs to its end even if the future is dropped.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = Arc::clone(&self.file);
        blocking(move || file.with(work)).await
    }
}

impl fmt::Debug for RedbOperationStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbOperationStore").finish_non_exhaustive()
    }
}

fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, "the operation does not exist")
}

#[async_trait]
impl OperationStore for RedbOperationStore {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        let (id, age) = (spec.id.as_u128(), age_of(spec.into()));
        let spec = encode(spec)?;
        let is_indexed = is_indexed(checkpoint);
        let checkpoint = encode(&Checkpoint { version: 1, ..checkpoint.clone() })?;
        self.call(move |database| {
            write(database, |transaction| {
                let mut specs = transaction.open_table(SPECS).map_err(redb_error)?;
                if specs.get(id).map_err(redb_error)?.is_some() {
                    return Err(Error::new(ErrorKind::Conflict, "the operation already exists"));
                }
                specs.insert(id, spec.as_bytes()).map_err(redb_error)?;
                let mut checkpoints = transaction.open_table(CHECKPOINTS).map_err(redb_error)?;
                checkpoints.insert(id, (1, checkpoint.as_bytes())).map_err(redb_error)?;
                let mut by_age = transaction.open_table(BY_AGE).map_err(redb_error)?;
                by_age.insert(age, ()).map_err(redb_error)?;
                if is_indexed {
                    let mut unfinished = transaction.open_table(UNFINISHED).map_err(redb_error)?;
                    unfinished.insert(id, (age.0, age.1)).map_err(redb_error)?;
                }
                Ok(())
            })
        })
        .await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.call(move |database| {
            let reading = database.begin_read().map_err(redb_error)?;
            let specs = reading.open_table(SPECS).map_err(redb_error)?;
            let spec = specs.get(id.as_u128()).map_err(redb_error)?.ok_or_else(not_found)?;
            decode(spec.value()).map(Arc::new)
        })
        .await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.call(move |database| {
            let reading = database.begin_read().map_err(redb_error)?;
            let checkpoints = reading.open_table(CHECKPOINTS).map_err(redb_error)?;
            let stored = checkpoints.get(id.as_u128()).map_err(redb_error)?.ok_or_else(not_found)?;
            let (version, checkpoint) = stored.value();
            Ok(Checkpoint { version, ..decode(checkpoint)? })
        })
        .await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        let (id, expected) = (id.as_u128(), checkpoint.version);
        let version = expected.saturating_add(1);
        let is_indexed = is_indexed(checkpoint);
        let checkpoint = encode(&Checkpoint { version, ..checkpoint.clone() })?;
        self.call(move |database| {
            write(database, |transaction| {
                let mut checkpoints = transaction.open_table(CHECKPOINTS).map_err(redb_error)?;
                let stored = checkpoints.get(id).map_err(redb_error)?.map(|stored| stored.value().0);
                if stored.ok_or_else(not_found)? != expected {
                    return Err(Error::new(ErrorKind::Conflict, "the operation was changed concurrently"));
                }
                checkpoints.insert(id, (version, checkpoint.as_bytes())).map_err(redb_error)?;
                let mut unfinished = transaction.open_table(UNFINISHED).map_err(redb_error)?;
                if !is_indexed {
                    unfinished.remove(id).map_err(redb_error)?;
                } else if unfinished.get(id).map_err(redb_error)?.is_none()
                    && let Some((seconds, nanoseconds, _)) = stored_age(transaction, id)?
                {
                    unfinished.insert(id, (seconds, nanoseconds)).map_err(redb_error)?;
                }
                Ok(version)
            })
        })
        .await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        self.call(move |database| {
            let reading = database.begin_read().map_err(redb_error)?;
            let by_age = reading.open_table(BY_AGE).map_err(redb_error)?;
            let newest_first = by_age.range(..after.map_or(AGE_MAX, age_of));
            let mut keys = Vec::new();
            for entry in newest_first.map_err(redb_error)?.rev() {
                if keys.len() == limit {
                    break;
                }
                let age = entry.map_err(redb_error)?.0.value();
                match key_of(age) {
                    Ok(key) => keys.push(key),
                    Err(error) => log_skipped(OperationId::from_u128(age.2), &error),
                }
            }
            Ok(keys)
        })
        .await
    }

    async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        let filter = filter.clone();
        self.call(move |database| {
            let reading = database.begin_read().map_err(redb_error)?;
            let checkpoints = reading.open_table(CHECKPOINTS).map_err(redb_error)?;
            let mut found = Vec::new();
            // Returns whether the query is complete.
            let mut visit = |age: AgeKey| -> Result<bool> {
                if let Some(stored) = checkpoints.get(age.2).map_err(redb_error)? {
                    let (version, json) = stored.value();
                    match key_of(age).and_then(|key| Ok((key, decode::<Checkpoint>(json)?))) {
                        Ok((key, checkpoint)) if filter.matches(&checkpoint) => {
                            found.push((key, Checkpoint { version, ..checkpoint }));
                        }
                        Ok(_) => {}
                        Err(error) => log_skipped(OperationId::from_u128(age.2), &error),
                    }
                }
                Ok(found.len() >= filter.limit)
            };
            let after = filter.after.map_or(AGE_MAX, age_of);
            // What was created later cannot have ended before.
            let end = after.min(filter.ended_before.map_or(AGE_MAX, first_age_at));
            if filter.limit == 0 {
                // Nothing to visit.
            } else if filter.is_unfinished_only() || filter.end_pending_only {
                let unfinished = reading.open_table(UNFINISHED).map_err(redb_error)?;
                let mut ages = Vec::new();
                for entry in unfinished.iter().map_err(redb_error)? {
                    let (id, time) = entry.map_err(redb_error)?;
                    let (seconds, nanoseconds) = time.value();
                    ages.push((seconds, nanoseconds, id.value()));
                }
                ages.retain(|age| *age < end);
                ages.sort_unstable_by(|one, other| other.cmp(one));
                for age in ages {
                    if visit(age)? {
                        break;
                    }
                }
            } else {
                let by_age = reading.open_table(BY_AGE).map_err(redb_error)?;
                for entry in by_age.range(..end).map_err(redb_error)?.rev() {
                    if visit(entry.map_err(redb_error)?.0.value())? {
                        break;
                    }
                }
            }
            Ok(found)
        })
        .await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        let id = id.as_u128();
        self.call(move |database| {
            write(database, |transaction| {
                if let Some(age) = stored_age(transaction, id)? {
                    transaction.open_table(BY_AGE).map_err(redb_error)?.remove(age).map_err(redb_error)?;
                }
                transaction.open_table(SPECS).map_err(redb_error)?.remove(id).map_err(redb_error)?;
                transaction.open_table(CHECKPOINTS).map_err(redb_error)?.remove(id).map_err(redb_error)?;
                transaction.open_table(UNFINISHED).map_err(redb_error)?.remove(id).map_err(redb_error)?;
                Ok(())
            })
        })
        .await
    }
}

/// The key by which an operation is listed: from its spec, or by a search if that is damaged. `None` if it is not listed.
fn stored_age(transaction: &WriteTransaction, id: u128) -> Result<Option<AgeKey>> {
    /// The only member that is needed of a spec, which may contain a million identifiers.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Created {
        created_time: Timestamp,
    }
    let by_age = transaction.open_table(BY_AGE).map_err(redb_error)?;
    let specs = transaction.open_table(SPECS).map_err(redb_error)?;
    if let Some(spec) = specs.get(id).map_err(redb_error)?
        && let Ok(Created { created_time }) = serde_json::from_slice(spec.value())
    {
        let age = age_of(OperationKey { created_time, id: OperationId::from_u128(id) });
        if by_age.get(age).map_err(redb_error)?.is_some() {
            return Ok(Some(age));
        }
    }
    for entry in by_age.iter().map_err(redb_error)? {
        let age = entry.map_err(redb_error)?.0.value();
        if age.2 == id {
            return Ok(Some(age));
        }
    }
    Ok(None)
}
