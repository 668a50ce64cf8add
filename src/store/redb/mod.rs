//! [`RedbOperationStore`]: operations in one durable file.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use chrono::DateTime;
use redb::{
    Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::Timestamp;
use crate::model::{Checkpoint, OperationKey};
use crate::model::{OperationId, OperationSpec};
use crate::store::OperationStore;

pub use redb::StorageBackend;

/// The format of the tables below. A file of a later one is refused.
const FORMAT: u64 = 1;

/// `format`, and whatever else is of the file and not of an operation.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// The specs, as JSON.
const SPECS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("specs");
/// The checkpoints: their version, and their JSON.
const CHECKPOINTS: TableDefinition<'_, u128, (u64, &[u8])> = TableDefinition::new("checkpoints");
/// Creation time (seconds and nanoseconds since 1970) and id, for listing.
const BY_AGE: TableDefinition<'_, AgeKey, ()> = TableDefinition::new("by_age");

type AgeKey = (i64, u32, u128);

/// redb's own default is 1 GiB. Checkpoints are small and specs are read once, so little is gained by more.
const CACHE_BYTES: usize = 8 << 20;

/// Operations in one file, for a server without a database of its own. Clones share it.
///
/// A call that has returned is on the disk: a crash at any moment leaves what the last call left, or that and the
/// whole of one that had not returned. The file has **one owner**: while it is open here, nobody else opens it.
/// Several replicas need a store over a database instead. Opening it frees every lease: who held one is gone.
///
/// The file holds no credentials. What it holds of patients is what requests name: identifiers, and the places
/// of the source's cursors.
///
/// Calls block no async thread. After a failed read or write (a full disk, say) the file is closed, and the next
/// call opens it again.
#[derive(Clone)]
pub struct RedbOperationStore {
    file: Arc<StateFile>,
}

impl RedbOperationStore {
    /// Opens the file, or makes it where there is none. Its folder must be there.
    ///
    /// This blocks: it reads the whole file to check it.
    ///
    /// # Errors
    /// - [`Conflict`](ErrorKind::Conflict): it is in use, by another process or by this one.
    /// - [`Unsupported`](ErrorKind::Unsupported): a later version of this crate has written it.
    /// - [`Invalid`](ErrorKind::Invalid): it is something else, and is left as it is.
    /// - [`Unreadable`](ErrorKind::Unreadable): it is damaged.
    /// - [`NotFound`](ErrorKind::NotFound): its folder is not there.
    /// - [`Unavailable`](ErrorKind::Unavailable): it cannot be read or written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        if !path.try_exists().map_err(failed)? {
            make(&path)?;
        }
        let database = builder().create(&path).map_err(failed)?;
        // Not made anew if it is gone: that would forget its operations and call it success.
        Self::over(database, move || builder().open(&path).map_err(failed))
    }

    /// Opens storage that is no file, or makes the store in it when it is empty; also for tests that cut the power.
    /// `open` is called now, and again after a failure.
    ///
    /// # Errors
    /// As [`open`](Self::open). That nobody else has it open is for the backend to see to.
    pub fn open_backend<B: StorageBackend>(
        open: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        let open = move || builder().create_with_backend(open().map_err(failed)?).map_err(failed);
        Self::over(open()?, open)
    }

    fn over(
        database: Database,
        reopen: impl Fn() -> Result<Database> + Send + Sync + 'static,
    ) -> Result<Self> {
        prepare(&database)?;
        free_leases(&database)?;
        let file = StateFile { database: RwLock::new(Some(database)), reopen: Box::new(reopen) };
        Ok(Self { file: Arc::new(file) })
    }

    /// Runs this where it may block. It ends even if the future is dropped: done or not done, never half done.
    async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Database) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let file = Arc::clone(&self.file);
        match tokio::task::spawn_blocking(move || file.with(work)).await {
            Ok(result) => result,
            Err(stopped) if stopped.is_cancelled() => {
                Err(Error::new(ErrorKind::Unavailable, "the runtime is shutting down").with_source(stopped))
            }
            Err(panic) => {
                Err(Error::new(ErrorKind::Internal, "the state file's code panicked").with_source(panic))
            }
        }
    }
}

impl fmt::Debug for RedbOperationStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbOperationStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl OperationStore for RedbOperationStore {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        let (id, age) = (spec.id.as_u128(), age_of(spec.into()));
        let spec = to_json(spec)?;
        let checkpoint = to_json(&Checkpoint { version: 1, ..checkpoint.clone() })?;
        self.call(move |database| {
            write(database, |transaction| {
                let mut specs = transaction.open_table(SPECS).map_err(failed)?;
                if specs.get(id).map_err(failed)?.is_some() {
                    return Err(Error::new(ErrorKind::Conflict, "there is an operation of this id"));
                }
                specs.insert(id, &*spec).map_err(failed)?;
                let mut checkpoints = transaction.open_table(CHECKPOINTS).map_err(failed)?;
                checkpoints.insert(id, (1, &*checkpoint)).map_err(failed)?;
                let mut by_age = transaction.open_table(BY_AGE).map_err(failed)?;
                by_age.insert(age, ()).map_err(failed)?;
                Ok(())
            })
        })
        .await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.call(move |database| {
            let specs = database.begin_read().map_err(failed)?.open_table(SPECS).map_err(failed)?;
            let spec = specs.get(id.as_u128()).map_err(failed)?.ok_or_else(unknown)?;
            from_json(spec.value()).map(Arc::new)
        })
        .await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.call(move |database| {
            let checkpoints =
                database.begin_read().map_err(failed)?.open_table(CHECKPOINTS).map_err(failed)?;
            let stored = checkpoints.get(id.as_u128()).map_err(failed)?.ok_or_else(unknown)?;
            let (version, checkpoint) = stored.value();
            Ok(Checkpoint { version, ..from_json(checkpoint)? })
        })
        .await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        let (id, over) = (id.as_u128(), checkpoint.version);
        let version = over.saturating_add(1);
        let checkpoint = to_json(&Checkpoint { version, ..checkpoint.clone() })?;
        self.call(move |database| {
            write(database, |transaction| {
                let mut checkpoints = transaction.open_table(CHECKPOINTS).map_err(failed)?;
                let stored = checkpoints.get(id).map_err(failed)?.map(|stored| stored.value().0);
                if stored.ok_or_else(unknown)? != over {
                    return Err(Error::new(ErrorKind::Conflict, "the operation was changed meanwhile"));
                }
                checkpoints.insert(id, (version, &*checkpoint)).map_err(failed)?;
                Ok(version)
            })
        })
        .await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        self.call(move |database| {
            let by_age = database.begin_read().map_err(failed)?.open_table(BY_AGE).map_err(failed)?;
            let newest_first = match after {
                Some(after) => by_age.range(..age_of(after)),
                None => by_age.range::<AgeKey>(..),
            };
            let newest_first = newest_first.map_err(failed)?.rev().take(limit);
            newest_first.map(|entry| key_of(entry.map_err(failed)?.0.value())).collect()
        })
        .await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        /// The one thing to know of a spec of perhaps a million identifiers.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Created {
            created_time: Timestamp,
        }
        self.call(move |database| {
            write(database, |transaction| {
                let mut specs = transaction.open_table(SPECS).map_err(failed)?;
                let Some(spec) = specs.remove(id.as_u128()).map_err(failed)? else {
                    return Ok(());
                };
                let Created { created_time } = from_json(spec.value())?;
                let mut checkpoints = transaction.open_table(CHECKPOINTS).map_err(failed)?;
                checkpoints.remove(id.as_u128()).map_err(failed)?;
                let mut by_age = transaction.open_table(BY_AGE).map_err(failed)?;
                by_age.remove(age_of(OperationKey { created_time, id })).map_err(failed)?;
                Ok(())
            })
        })
        .await
    }
}

/// The open file, and how to open it again.
struct StateFile {
    /// Empty after a failure: redb refuses everything after one until the file is opened anew.
    database: RwLock<Option<Database>>,
    reopen: Box<dyn Fn() -> Result<Database> + Send + Sync>,
}

impl StateFile {
    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = if database.is_some() {
            database
        } else {
            drop(database);
            self.reopen()?;
            self.database.read().unwrap_or_else(PoisonError::into_inner)
        };
        // Empty only if another call has failed since.
        let result = database.as_ref().ok_or_else(unavailable).and_then(work);
        drop(database);
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
    }

    fn reopen(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            let opened = (self.reopen)().and_then(|opened| prepare(&opened).map(|()| opened));
            // Whatever is wrong, it is not that the operation is unknown or was changed meanwhile.
            *database = Some(opened.map_err(|cause| unavailable().with_source(cause))?);
        }
        Ok(())
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    // Without this, a file that was damaged while it was closed may panic later instead of being refused now.
    builder.set_check_integrity_on_open(true);
    builder
}

/// Makes the file under another name and then gives it its own, so that a crash meanwhile leaves no half-made file
/// that is refused ever after.
fn make(path: &Path) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", Uuid::new_v4().simple()));
    let new = path.with_file_name(name);
    let made = builder().create(&new).map_err(failed).and_then(|database| {
        prepare(&database)?;
        database.close().map_err(failed)
    });
    let linked = made.and_then(|()| match fs::hard_link(&new, path) {
        Ok(()) => Ok(()),
        // Another process was quicker, and may be using it already: that one counts.
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // A file system without hard links: it is made in place, and only a crash in that very moment would show.
        Err(cause) if cause.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(cause) => Err(failed(cause)),
    });
    // Its content has another name now, or is of no use: a failure to remove it changes nothing of that.
    let _ = fs::remove_file(&new);
    linked?;
    // The folder's entry is to be as durable as the content. Not every system lets a folder be opened for that.
    if let Some(folder) = new.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// Checks the format, or lays the tables out when there are none.
fn prepare(database: &Database) -> Result<()> {
    let stored = {
        let reading = database.begin_read().map_err(failed)?;
        if reading.list_tables().map_err(failed)?.next().is_none() {
            None
        } else {
            let about = reading.open_table(ABOUT).map_err(failed)?;
            let format = about.get("format").map_err(failed)?.map(|format| format.value());
            Some(format.ok_or_else(foreign)?)
        }
    };
    match stored {
        Some(FORMAT) => Ok(()),
        Some(later) if later > FORMAT => {
            Err(Error::new(ErrorKind::Unsupported, "the state file was written by a later version"))
        }
        Some(_) => Err(foreign()),
        None => write(database, |transaction| {
            transaction.open_table(ABOUT).map_err(failed)?.insert("format", FORMAT).map_err(failed)?;
            transaction.open_table(SPECS).map_err(failed)?;
            transaction.open_table(CHECKPOINTS).map_err(failed)?;
            transaction.open_table(BY_AGE).map_err(failed)?;
            Ok(())
        }),
    }
}

/// Takes every lease back: the file has one owner, so whoever held one is gone. What it ran can go on at once.
fn free_leases(database: &Database) -> Result<()> {
    let mut freed = Vec::new();
    {
        let checkpoints = database.begin_read().map_err(failed)?.open_table(CHECKPOINTS).map_err(failed)?;
        for entry in checkpoints.iter().map_err(failed)? {
            let (id, stored) = entry.map_err(failed)?;
            let (version, json) = stored.value();
            let checkpoint: Checkpoint = from_json(json)?;
            if checkpoint.lease.is_some() {
                freed.push((id.value(), version, to_json(&Checkpoint { lease: None, ..checkpoint })?));
            }
        }
    }
    if freed.is_empty() {
        return Ok(());
    }
    write(database, |transaction| {
        let mut checkpoints = transaction.open_table(CHECKPOINTS).map_err(failed)?;
        for (id, version, json) in &freed {
            checkpoints.insert(*id, (*version, &**json)).map_err(failed)?;
        }
        Ok(())
    })
}

/// Makes a change that is all there, on the disk, when this returns, or not at all.
fn write<T>(database: &Database, change: impl FnOnce(&WriteTransaction) -> Result<T>) -> Result<T> {
    let mut transaction = database.begin_write().map_err(failed)?;
    transaction.set_durability(Durability::Immediate).map_err(failed)?;
    let value = change(&transaction)?;
    transaction.commit().map_err(failed)?;
    Ok(value)
}

fn age_of(key: OperationKey) -> AgeKey {
    let time = key.created_time.to_utc();
    (time.timestamp(), time.timestamp_subsec_nanos(), key.id.as_u128())
}

fn key_of((seconds, nanoseconds, id): AgeKey) -> Result<OperationKey> {
    let created_time = DateTime::from_timestamp(seconds, nanoseconds).ok_or_else(damaged)?.into();
    Ok(OperationKey { created_time, id: OperationId::from_u128(id) })
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|cause| {
        Error::new(ErrorKind::Internal, "the operation cannot be written").with_source(cause)
    })
}

fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|fault| {
        // Its text would quote what stands there: a cursor's path, say.
        damaged().with_source(Damage { line: fault.line(), column: fault.column() })
    })
}

/// Where a stored document is not what was written.
#[derive(Debug, thiserror::Error)]
#[error("a stored document cannot be read at line {line}, column {column}")]
struct Damage {
    line: usize,
    column: usize,
}

fn unknown() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such operation")
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the state file cannot be read or written")
}

fn damaged() -> Error {
    Error::new(ErrorKind::Unreadable, "the state file is damaged")
}

fn foreign() -> Error {
    Error::new(ErrorKind::Invalid, "the state file is not one of this crate's")
}

/// What redb's error means to the engine and to whoever opens the file.
fn failed(cause: impl Into<redb::Error>) -> Error {
    use redb::Error as Cause;
    let cause = cause.into();
    let error = match &cause {
        Cause::DatabaseAlreadyOpen | Cause::LockProtocolMismatch => {
            Error::new(ErrorKind::Conflict, "the state file is in use")
        }
        Cause::UpgradeRequired(_) => {
            Error::new(ErrorKind::Unsupported, "the state file has another version of redb's format")
        }
        // redb's word for a file without its magic number.
        Cause::Io(io) if io.kind() == io::ErrorKind::InvalidData => foreign(),
        Cause::Io(io) if io.kind() == io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, "the state file or its folder is not there")
        }
        Cause::Io(_) | Cause::PreviousIo | Cause::DatabaseClosed => unavailable(),
        Cause::Corrupted(_) => damaged(),
        Cause::TableTypeMismatch { .. }
        | Cause::TableIsMultimap(_)
        | Cause::TableIsNotMultimap(_)
        | Cause::TypeDefinitionChanged { .. }
        | Cause::TableDoesNotExist(_) => foreign(),
        Cause::ValueTooLarge(_) => {
            Error::new(ErrorKind::Invalid, "the operation is too large for the state file")
        }
        _ => Error::new(ErrorKind::Internal, "the state file cannot be used"),
    };
    error.with_source(cause)
}
