//! [`StateFile`]: opens, creates and checks the file, and opens it again after a failure.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use redb::{
    Builder, Database, Durability, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition,
    WriteTransaction,
};
use uuid::Uuid;

use super::key::AgeKey;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Checkpoint, OperationId};
use crate::store::log_skipped;
use crate::store::record::{decode, encode};

/// The format of the tables below. A file with a later format is refused.
const FORMAT: u64 = 1;

/// Properties of the file: `format`.
const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// Operation id to spec, as JSON.
pub(super) const SPECS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("specs");
/// Operation id to checkpoint: its version and its JSON.
pub(super) const CHECKPOINTS: TableDefinition<'_, u128, (u64, &[u8])> = TableDefinition::new("checkpoints");
/// The operations in the order in which they are listed.
pub(super) const BY_AGE: TableDefinition<'_, AgeKey, ()> = TableDefinition::new("by_age");

/// The operations that have not ended, or whose end is still to be delivered, by id, with the times of their keys in
/// [`BY_AGE`]. Rebuilt when the file is opened,
/// because earlier versions do not maintain it.
pub(super) const UNFINISHED: TableDefinition<'_, u128, (i64, u32)> = TableDefinition::new("unfinished");

/// The size of redb's cache, in bytes. Checkpoints are small and specs are read once, so a larger one would gain little;
/// redb's default is 1 GiB.
const CACHE_SIZE: usize = 8 << 20;

/// An open file, and how to open it again.
pub(super) struct StateFile {
    /// `None` after a failure, because redb then refuses all calls until the file is opened again.
    database: RwLock<Option<Database>>,
    reopen: Box<dyn Fn() -> Result<Database> + Send + Sync>,
}

impl StateFile {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        if !path.try_exists().map_err(redb_error)? {
            create(&path)?;
        }
        let database = builder().create(&path).map_err(redb_error)?;
        // A file that has disappeared is not created again, because that would hide the loss of its operations.
        Self::over(database, move || builder().open(&path).map_err(redb_error))
    }

    pub(super) fn open_backend<B: StorageBackend>(
        open: impl Fn() -> io::Result<B> + Send + Sync + 'static,
    ) -> Result<Self> {
        let open = move || builder().create_with_backend(open().map_err(redb_error)?).map_err(redb_error);
        Self::over(open()?, open)
    }

    fn over(
        database: Database,
        reopen: impl Fn() -> Result<Database> + Send + Sync + 'static,
    ) -> Result<Self> {
        check_format(&database)?;
        recover(&database)?;
        Ok(Self { database: RwLock::new(Some(database)), reopen: Box::new(reopen) })
    }

    /// Calls `work` with the database, and closes the file if that fails with [`ErrorKind::Unavailable`].
    pub(super) fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let mut database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        if database.is_none() {
            drop(database);
            self.reopen()?;
            database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        }
        // `None` only if another call has failed since.
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
            let opened = (self.reopen)().and_then(|opened| check_format(&opened).map(|()| opened));
            // Whatever the cause, it must not be mistaken for a missing or concurrently changed operation.
            *database = Some(opened.map_err(|cause| unavailable().with_source(cause))?);
        }
        Ok(())
    }
}

fn builder() -> Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_SIZE);
    // Without this check, redb may panic later on a file that was damaged while it was closed.
    builder.set_check_integrity_on_open(true);
    builder
}

/// Creates the file under a temporary name and links it to its own, so that a crash does not leave an incomplete file that
/// would be refused from then on.
fn create(path: &Path) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", Uuid::new_v4().simple()));
    let temporary = path.with_file_name(name);
    let created = builder().create(&temporary).map_err(redb_error).and_then(|database| {
        check_format(&database)?;
        database.close().map_err(redb_error)
    });
    let linked = created.and_then(|()| match fs::hard_link(&temporary, path) {
        Ok(()) => Ok(()),
        // Another process has created the file first and may be using it already.
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // The file system has no hard links. The caller creates the file in place.
        Err(cause) if cause.kind() == io::ErrorKind::Unsupported => Ok(()),
        Err(cause) if cause.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        Err(cause) => Err(redb_error(cause)),
    });
    // A temporary file that cannot be deleted does no harm.
    let _ = fs::remove_file(&temporary);
    linked?;
    // Makes the folder's entry durable. Not every system can open a folder for that.
    if let Some(folder) = temporary.parent() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// Checks the format, or creates the tables if there are none.
fn check_format(database: &Database) -> Result<()> {
    let stored = {
        let reading = database.begin_read().map_err(redb_error)?;
        if reading.list_tables().map_err(redb_error)?.next().is_none() {
            None
        } else {
            let about = reading.open_table(ABOUT).map_err(redb_error)?;
            let format = about.get("format").map_err(redb_error)?.map(|format| format.value());
            Some(format.ok_or_else(not_a_state_file)?)
        }
    };
    match stored {
        Some(FORMAT) => Ok(()),
        Some(later) if later > FORMAT => Err(Error::new(
            ErrorKind::Unsupported,
            format!("the state file has format {later}, which a later version has written"),
        )),
        Some(_) => Err(not_a_state_file()),
        None => write(database, |transaction| {
            let mut about = transaction.open_table(ABOUT).map_err(redb_error)?;
            about.insert("format", FORMAT).map_err(redb_error)?;
            transaction.open_table(SPECS).map_err(redb_error)?;
            transaction.open_table(CHECKPOINTS).map_err(redb_error)?;
            transaction.open_table(BY_AGE).map_err(redb_error)?;
            transaction.open_table(UNFINISHED).map_err(redb_error)?;
            Ok(())
        }),
    }
}

/// Whether [`UNFINISHED`] contains an operation.
pub(super) fn is_indexed(checkpoint: &Checkpoint) -> bool {
    checkpoint.status.is_running() || checkpoint.end_pending
}

/// Releases all leases, because the file has one owner, so their holders have stopped. Rebuilds [`UNFINISHED`].
///
/// A damaged record is skipped: it affects its operation only.
fn recover(database: &Database) -> Result<()> {
    let (mut released, mut unfinished) = (Vec::new(), BTreeMap::new());
    let reading = database.begin_read().map_err(redb_error)?;
    let checkpoints = reading.open_table(CHECKPOINTS).map_err(redb_error)?;
    let by_age = reading.open_table(BY_AGE).map_err(redb_error)?;
    for entry in by_age.iter().map_err(redb_error)? {
        let (seconds, nanoseconds, id) = entry.map_err(redb_error)?.0.value();
        let Some(stored) = checkpoints.get(id).map_err(redb_error)? else { continue };
        let (version, json) = stored.value();
        match decode::<Checkpoint>(json) {
            Ok(checkpoint) => {
                if is_indexed(&checkpoint) {
                    unfinished.insert(id, (seconds, nanoseconds));
                }
                if checkpoint.lease.is_some() {
                    released.push((id, version, encode(&Checkpoint { lease: None, ..checkpoint })?));
                }
            }
            Err(error) => log_skipped(OperationId::from_u128(id), &error),
        }
    }
    drop((checkpoints, by_age, reading));
    write(database, |transaction| {
        let mut checkpoints = transaction.open_table(CHECKPOINTS).map_err(redb_error)?;
        for (id, version, json) in &released {
            checkpoints.insert(*id, (*version, json.as_bytes())).map_err(redb_error)?;
        }
        let mut table = transaction.open_table(UNFINISHED).map_err(redb_error)?;
        table.retain(|id, time| unfinished.get(&id) == Some(&time)).map_err(redb_error)?;
        for (id, time) in &unfinished {
            table.insert(*id, *time).map_err(redb_error)?;
        }
        Ok(())
    })
}

/// Makes a change in one transaction, which is on the disk when this returns.
pub(super) fn write<T>(
    database: &Database,
    change: impl FnOnce(&WriteTransaction) -> Result<T>,
) -> Result<T> {
    let mut transaction = database.begin_write().map_err(redb_error)?;
    transaction.set_durability(Durability::Immediate).map_err(redb_error)?;
    let value = change(&transaction)?;
    transaction.commit().map_err(redb_error)?;
    Ok(value)
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "the state file cannot be read or written")
}

fn damaged() -> Error {
    Error::new(ErrorKind::Unreadable, "the state file is damaged")
}

fn not_a_state_file() -> Error {
    Error::new(ErrorKind::Invalid, "the file is not a state file of this crate")
}

/// Converts an error of redb.
pub(super) fn redb_error(cause: impl Into<redb::Error>) -> Error {
    use redb::Error as Cause;
    let cause = cause.into();
    let error = match &cause {
        Cause::DatabaseAlreadyOpen | Cause::LockProtocolMismatch => {
            Error::new(ErrorKind::Conflict, "the state file is in use")
        }
        Cause::UpgradeRequired(_) => {
            Error::new(ErrorKind::Unsupported, "the state file has another version of redb's format")
        }
        // redb's error for a file without its magic number.
        Cause::Io(io) if io.kind() == io::ErrorKind::InvalidData => not_a_state_file(),
        Cause::Io(io) if io.kind() == io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, "the state file or its folder does not exist")
        }
        Cause::Io(_) | Cause::PreviousIo | Cause::DatabaseClosed => unavailable(),
        Cause::Corrupted(_) => damaged(),
        Cause::TableTypeMismatch { .. }
        | Cause::TableIsMultimap(_)
        | Cause::TableIsNotMultimap(_)
        | Cause::TypeDefinitionChanged { .. }
        | Cause::TableDoesNotExist(_) => not_a_state_file(),
        Cause::ValueTooLarge(_) => {
            Error::new(ErrorKind::Invalid, "the operation is too large for the state file")
        }
        _ => Error::new(ErrorKind::Internal, "the state file cannot be used"),
    };
    error.with_source(cause)
}
