//! [`Buffer`]: memory that instances are read into, used again.
//!
//! Allocators give large pieces back to the system and take them anew, and the system clears every page of them: a
//! third of what an export costs.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use crate::sync::lock;

/// Smaller ones are the allocator's, which is good at them; larger ones that one thread takes and another gives back
/// make it hold several times what is in use.
const SMALLEST: usize = 4 << 10;

/// How many bytes are kept for later at most.
const KEPT: usize = 16 << 20;

static FREE: Pool = Pool::new(KEPT);

/// A buffer of a fixed size, filled from the front.
#[derive(Debug)]
pub(crate) struct Buffer {
    /// Set from the start, so that a reader can be given any part of it.
    bytes: Vec<u8>,
    filled: usize,
    pool: Option<&'static Pool>,
}

impl Buffer {
    /// Room for so many bytes, and up to a quarter more.
    pub(crate) fn with_room(least: usize) -> Self {
        Self::from_pool(&FREE, least)
    }

    fn from_pool(pool: &'static Pool, least: usize) -> Self {
        if least < SMALLEST {
            return Self { bytes: vec![0; least], filled: 0, pool: None };
        }
        let size = rounded(least);
        let bytes = pool.take(size).unwrap_or_else(|| vec![0; size]);
        Self { bytes, filled: 0, pool: Some(pool) }
    }

    /// What is not filled yet.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.filled..]
    }

    /// So many more bytes have been written to the room.
    pub(crate) fn fill(&mut self, written: usize) {
        self.filled = self.bytes.len().min(self.filled + written);
    }

    /// How many bytes are filled.
    pub(crate) fn len(&self) -> usize {
        self.filled
    }

    /// What was filled in; once nobody holds it any more, the memory is used again.
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

/// A few sizes in each doubling, so that instances of about one size share buffers.
fn rounded(size: usize) -> usize {
    size.next_multiple_of(size.next_power_of_two() / 8)
}

/// Free buffers, the one that came last at the back.
#[derive(Debug)]
struct Pool {
    free: Mutex<Free>,
    most: usize,
}

#[derive(Debug)]
struct Free {
    buffers: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Pool {
    const fn new(most: usize) -> Self {
        Self { free: Mutex::new(Free { buffers: VecDeque::new(), bytes: 0 }), most }
    }

    /// The one of this size that was used last.
    fn take(&self, size: usize) -> Option<Vec<u8>> {
        let mut free = self.free();
        let at = free.buffers.iter().rposition(|buffer| buffer.len() == size)?;
        free.bytes -= size;
        free.buffers.remove(at)
    }

    fn put(&self, buffer: Vec<u8>) {
        // What is let go is freed after the lock.
        let mut old = Vec::new();
        let mut free = self.free();
        free.bytes += buffer.len();
        free.buffers.push_back(buffer);
        while free.bytes > self.most
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
    fn memory_is_used_again_once_nobody_holds_it_and_no_more_is_kept_than_the_limit() {
        static POOL: Pool = Pool::new(1 << 20);
        let filled = |size: usize| {
            let mut buffer = Buffer::from_pool(&POOL, size);
            buffer.fill(size);
            buffer.into_bytes()
        };
        let first = filled(500_000);
        let at = first.as_ptr();
        let part = first.slice(10..20);
        drop(first);
        assert_ne!(filled(500_000).as_ptr(), at, "a part of it is still held");
        drop(part);
        assert_eq!(filled(510_000).as_ptr(), at, "nearly the same size");

        drop([filled(1 << 20), filled(600_000), filled(700_000)]);
        let free = POOL.free();
        assert!(free.bytes <= 1 << 20);
        assert_eq!(free.bytes, free.buffers.iter().map(Vec::len).sum::<usize>());
    }
}
