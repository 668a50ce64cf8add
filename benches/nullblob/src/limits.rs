//! Which requests the server rejects, how slow it is, and which checksums it returns.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::checksums::Checksums;

/// Limits on writes. A limit is off while it is 0, which is the default.
#[derive(Default)]
pub struct Limits {
    /// Every Nth write is rejected with 503.
    busy: AtomicU64,
    /// The delay of each response in milliseconds.
    latency: AtomicU64,
    /// The number of concurrent writes; further ones are rejected with 503.
    slots: AtomicU64,
    /// Writes per second, with bursts of a tenth of that; further ones are rejected with 503 and `Retry-After: 1`.
    rate: AtomicU64,
    /// Responses contain the CRC64 of the body, like Azure's.
    crc64: AtomicU64,
    /// Responses contain the MD5 of the body, like the storage emulator's for a small blob.
    md5: AtomicU64,
    writes: AtomicU64,
    bucket: Mutex<Option<Bucket>>,
}

/// How a write is rejected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    Busy,
    RetryAfter,
}

impl Limits {
    /// Sets the limits in a query such as `slots=8&rate=0`; the others do not change.
    pub fn set(&self, query: &str) -> Result<(), String> {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let limit = match name {
                "busy" => &self.busy,
                "latency" => &self.latency,
                "slots" => &self.slots,
                "rate" => &self.rate,
                "crc64" => &self.crc64,
                "md5" => &self.md5,
                _ => return Err(format!("unknown limit '{name}'\n")),
            };
            limit.store(value.parse().map_err(|_| format!("'{name}' must be a number\n"))?, Relaxed);
        }
        *self.bucket() = None;
        Ok(())
    }

    /// Whether a write is rejected. `in_flight` is the number of concurrent writes, including this one.
    pub fn reject(&self, in_flight: u64) -> Option<Rejection> {
        let write = self.writes.fetch_add(1, Relaxed) + 1;
        let busy = self.busy.load(Relaxed);
        let slots = self.slots.load(Relaxed);
        if (busy > 0 && write.is_multiple_of(busy)) || (slots > 0 && in_flight > slots) {
            return Some(Rejection::Busy);
        }
        let rate = self.rate.load(Relaxed);
        if rate == 0 {
            return None;
        }
        let taken = self.bucket().get_or_insert_with(|| Bucket::full(rate)).take(rate);
        (!taken).then_some(Rejection::RetryAfter)
    }

    pub fn latency(&self) -> Duration {
        Duration::from_millis(self.latency.load(Relaxed))
    }

    /// The checksums for a new body.
    pub fn checksums(&self) -> Checksums {
        Checksums::new(self.crc64.load(Relaxed) > 0, self.md5.load(Relaxed) > 0)
    }

    fn bucket(&self) -> std::sync::MutexGuard<'_, Option<Bucket>> {
        self.bucket.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A token bucket.
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn full(rate: u64) -> Self {
        Self { tokens: Self::size(rate), filled: Instant::now() }
    }

    fn size(rate: u64) -> f64 {
        (rate as f64 / 10.0).max(1.0)
    }

    fn take(&mut self, rate: u64) -> bool {
        let now = Instant::now();
        let new = now.duration_since(self.filled).as_secs_f64() * rate as f64;
        self.tokens = (self.tokens + new).min(Self::size(rate));
        self.filled = now;
        let taken = self.tokens >= 1.0;
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}
