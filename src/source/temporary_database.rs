//! [`temporary_database`]: a redb database that is deleted with the process.

use std::fs::File;
use std::io;

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{Builder, Database, DatabaseError, StorageBackend};

/// The size of redb's cache in bytes.
const CACHE_SIZE: usize = 16 << 20;

/// Configures a database with a small cache.
pub(super) fn database_builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_SIZE);
    builder
}

/// Creates a database that lasts as long as this value: in a temporary file, or in memory where there is none.
pub(super) fn temporary_database() -> Result<Database, DatabaseError> {
    match tempfile::tempfile() {
        Ok(file) => database_builder().create_with_backend(TemporaryFile::new(file)?),
        Err(cause) => {
            let kind = cause.kind();
            tracing::warn!(%kind, "no temporary file can be created: an index is held in memory");
            database_builder().create_with_backend(InMemoryBackend::new())
        }
    }
}

/// An unnamed file. It is never synced: no other process reads it, and it does not survive a crash.
#[derive(Debug)]
struct TemporaryFile(FileBackend);

impl TemporaryFile {
    fn new(file: File) -> Result<Self, DatabaseError> {
        FileBackend::new(file).map(Self)
    }
}

impl StorageBackend for TemporaryFile {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}
