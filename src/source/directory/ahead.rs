//! [`ReadAhead`]: small files that were read whole when they were listed, until they are opened.
//!
//! Opening a small file and reading it costs more than its bytes do, and a listing opens each file anyway.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bytes::Bytes;

use crate::content::read_up_to;

/// Larger files are read when they are opened.
const LARGEST: u64 = 64 << 10;

/// How many bytes are kept by default: a few pages of files of 16 KiB.
pub(super) const DEFAULT: u64 = 16 << 20;

/// Room for files, which those that wait for an export take together.
#[derive(Debug, Clone)]
pub(super) struct ReadAhead {
    free: Arc<AtomicU64>,
}

impl ReadAhead {
    pub(super) fn new(bytes: u64) -> Self {
        Self { free: Arc::new(AtomicU64::new(bytes)) }
    }

    /// The whole file, if it is small and there is room for it until the bytes are dropped. Otherwise nothing of the
    /// file has been read.
    pub(super) fn read(&self, file: &mut File, size: u64) -> io::Result<Option<Bytes>> {
        if size > LARGEST {
            return Ok(None);
        }
        let Some(room) = self.take(size) else { return Ok(None) };
        let bytes = read_up_to(file, size as usize)?;
        Ok(Some(Bytes::from_owner(Kept { bytes, _room: room })))
    }

    fn take(&self, bytes: u64) -> Option<Room> {
        let taken = self.free.fetch_update(Relaxed, Relaxed, |free| free.checked_sub(bytes));
        taken.is_ok().then(|| Room { free: Arc::clone(&self.free), bytes })
    }
}

/// A file's bytes, and their room.
struct Kept {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Given back when it is dropped.
struct Room {
    free: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.free.fetch_add(self.bytes, Relaxed);
    }
}
