//! [`Buffer`]: memory that instances are read into, from a pool.
//!
//! Allocators return large allocations to the system and request them again, and the system clears every page of them.
//! Without the pool that is a third of the cost of an export.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use crate::sync::lock;

/// Smaller buffers come from the allocator. Larger ones that one thread allocates and another frees make the allocator
/// hold several times what is in use.
const MIN_POOLED: usize = 4 << 10;

/// How many bytes of free buffers the pool holds.
const MAX_FREE: usize = 16 << 20;

static POOL: Pool = Pool::new(MAX_FREE);

/// A buffer of a fixed size, filled from the front.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Initialized as a whole, so that any part of it can be passed to a reader.
    bytes: Vec<u8>,
    filled: usize,
    pool: Option<&'static Pool>,
}

impl Buffer {
    /// Takes a buffer for at least `capacity` bytes, and at most a quarter more.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self::from_pool(&POOL, capacity)
    }

    fn from_pool(pool: &'static Pool, capacity: usize) -> Self {
        if capacity < MIN_POOLED {
            return Self { bytes: vec![0; capacity], filled: 0, pool: None };
        }
        let size = round_up(capacity);
        let bytes = pool.take(size).unwrap_or_else(|| vec![0; size]);
        Self { bytes, filled: 0, pool: Some(pool) }
    }

    /// The part that is not filled yet.
    pub(crate) fn unfilled(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// Counts bytes that were written to the unfilled part as filled.
    pub(crate) fn advance(&mut self, written: usize) {
        self.filled = self.bytes.len().min(self.filled + written);
    }

    /// The number of filled bytes.
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    /// Returns the filled part. The memory returns to the pool once the last reference to it is dropped.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        match self.pool {
            Some(_) => Bytes::from_owner(self),
            None => {
                let mut bytes = std::mem::take(&mut self.bytes);
                bytes.truncate(self.filled);
                bytes.into()
            }
        }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = self.pool {
            pool.put(std::mem::take(&mut self.bytes));
        }
    }
}

/// Rounds up to one of a few sizes in each power of two, so that instances of similar sizes share buffers.
fn round_up(size: usize) -> usize {
    size.next_multiple_of(size.next_power_of_two() / 8)
}

/// Free buffers, the most recently used at the back.
#[derive(Debug)]
struct Pool {
    free: Mutex<Free>,
    max_bytes: usize,
}

#[derive(Debug)]
struct Free {
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    const fn new(max_bytes: usize) -> Self {
        Self { free: Mutex::new(Free { buffers: VecDeque::new(), bytes: 0 }), max_bytes }
    }

    /// Takes the most recently used buffer of this size.
    fn take(&self, size: usize) -> Option<Vec<u8>> {
        let mut free = self.free();
        let at = free.buffers.iter().rposition(|buffer| buffer.len() == size)?;
        free.bytes -= size;
        free.buffers.remove(at)
    }

    fn put(&self, buffer: Vec<u8>) {
        // Freed after the lock is released.
        let mut old = Vec::new();
        let mut free = self.free();
        free.bytes += buffer.len();
        free.buffers.push_back(buffer);
        while free.bytes > self.max_bytes
            && let Some(oldest) = free.buffers.pop_front()
        {
            free.bytes -= oldest.len();
            old.push(oldest);
        }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        lock(&self.free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reused_once_it_is_dropped_and_the_pool_stays_below_its_limit() {
        static POOL: Pool = Pool::new(1 << 20);
        let filled = |size: usize| {
            let mut buffer = Buffer::from_pool(&POOL, size);
            buffer.advance(size);
            buffer.into_bytes()
        };
        let first = filled(500_000);
        let at = first.as_ptr();
        let part = first.slice(10..20);
        drop(first);
        assert_ne!(filled(500_000).as_ptr(), at, "a part of it is still referenced");
        drop(part);
        assert_eq!(filled(510_000).as_ptr(), at, "similar sizes share a buffer");

        drop([filled(1 << 20), filled(600_000), filled(700_000)]);
        let free = POOL.free();
        assert!(free.bytes <= 1 << 20);
        assert_eq!(free.bytes, free.buffers.iter().map(Vec::len).sum::<usize>());
    }
}
