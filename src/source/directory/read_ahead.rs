//! [`ReadAhead`]: a cache of small files that were read completely while they were listed.
//!
//! Opening a small file costs more than reading it, and a listing opens each file for its UIDs anyway.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::content::read_up_to;
use crate::sync::lock;

/// Larger files are not cached.
const MAX_FILE: u64 = 64 << 10;

/// The default capacity in bytes: a few pages of files of 16 KiB.
pub(super) const DEFAULT_CAPACITY: u64 = 16 << 20;

/// The memory of an entry besides its bytes.
const ENTRY_OVERHEAD: u64 = 256;

/// When the cache is full, files that have not been opened for this long are removed: their listing may have been
/// dropped.
const MAX_AGE: Duration = Duration::from_secs(60);

/// The minimum time between two searches for entries older than [`MAX_AGE`].
const EVICTION_INTERVAL: Duration = Duration::from_secs(1);

/// The cache. All listings of a source share it.
#[derive(Debug, Clone)]
pub(super) struct ReadAhead(Arc<Mutex<Cache>>);

#[derive(Debug)]
struct Cache {
    /// By locator.
    files: HashMap<Box<str>, CachedFile>,
    /// How many more bytes fit.
    free: u64,
    last_eviction: Option<Instant>,
}

#[derive(Debug)]
struct CachedFile {
    bytes: Bytes,
    since: Instant,
}

impl ReadAhead {
    pub(super) fn with_capacity(bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Cache { files: HashMap::new(), free: bytes, last_eviction: None })))
    }

    /// Reads a whole file if it is small and fits into the cache. Otherwise it reads nothing.
    pub(super) fn read(&self, file: &mut File, size: u64) -> io::Result<Option<Bytes>> {
        if size > MAX_FILE || !self.has_room(size) {
            return Ok(None);
        }
        read_up_to(file, size as usize).map(Some)
    }

    /// Keeps a file until it is [taken](Self::take) or other files need its room. Does nothing if it does not fit.
    pub(super) fn insert(&self, locator: &str, bytes: Bytes) {
        let mut cache = lock(&self.0);
        cache.remove(locator);
        let needed = bytes.len() as u64 + ENTRY_OVERHEAD;
        if let Some(free) = cache.free.checked_sub(needed) {
            cache.free = free;
            cache.files.insert(locator.into(), CachedFile { bytes, since: Instant::now() });
        }
    }

    /// Removes a file from the cache and returns its bytes.
    pub(super) fn take(&self, locator: &str) -> Option<Bytes> {
        lock(&self.0).remove(locator)
    }

    fn has_room(&self, size: u64) -> bool {
        let mut cache = lock(&self.0);
        let needed = size + ENTRY_OVERHEAD;
        if cache.free < needed {
            cache.evict();
        }
        cache.free >= needed
    }
}

impl Cache {
    fn remove(&mut self, locator: &str) -> Option<Bytes> {
        let bytes = self.files.remove(locator)?.bytes;
        self.free += bytes.len() as u64 + ENTRY_OVERHEAD;
        Some(bytes)
    }

    fn evict(&mut self) {
        let now = Instant::now();
        if self.last_eviction.is_some_and(|last| now - last < EVICTION_INTERVAL) {
            return;
        }
        self.last_eviction = Some(now);
        let mut freed = 0;
        self.files.retain(|_, file| {
            let keep = now - file.since <= MAX_AGE;
            if !keep {
                freed += file.bytes.len() as u64 + ENTRY_OVERHEAD;
            }
            keep
        });
        self.free += freed;
    }
}
