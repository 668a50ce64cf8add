//! [`RateLimit`]: how many bytes a second are transferred.

use std::num::NonZeroU64;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::time::{Instant, sleep_until};

use crate::sync::lock;

/// How far bytes may be behind schedule without losing their share of the rate, so that a timer that fires late does not
/// lower the rate.
const MAX_DELAY: Duration = Duration::from_millis(200);

/// A limit on bytes per second, which can change at any time.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Whether there is a rate, so that an acquisition takes no lock without one.
    is_limited: AtomicBool,
    rate: Mutex<Option<NonZeroU64>>,
    /// Notified when the rate changes.
    changed: Notify,
    /// When the bytes that were acquired so far have passed. Locked in the order of the acquisitions.
    schedule: AsyncMutex<Instant>,
}

impl RateLimit {
    /// A rate of zero means no limit.
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        let rate = NonZeroU64::new(bytes_per_second);
        Self {
            is_limited: AtomicBool::new(rate.is_some()),
            rate: Mutex::new(rate),
            changed: Notify::new(),
            schedule: AsyncMutex::new(Instant::now()),
        }
    }

    /// Changes the rate, also for bytes that are waiting. Zero removes the limit.
    pub(crate) fn set(&self, bytes_per_second: u64) {
        let rate = NonZeroU64::new(bytes_per_second);
        if std::mem::replace(&mut *lock(&self.rate), rate) == rate {
            return;
        }
        self.is_limited.store(rate.is_some(), SeqCst);
        self.changed.notify_waiters();
    }

    /// Waits as long as this number of bytes takes at the rate, after all bytes that were acquired before.
    ///
    /// # Cancellation
    /// Dropping the future acquires nothing.
    pub(crate) async fn acquire(&self, bytes: usize) {
        if !self.is_limited.load(SeqCst) {
            return;
        }
        let mut schedule = self.schedule.lock().await;
        let mut remaining = bytes as f64;
        let mut began = (*schedule).max(Instant::now().checked_sub(MAX_DELAY).unwrap_or(*schedule));
        loop {
            // Registered before the rate is read, so that no change after it is missed.
            let changed = self.changed.notified();
            let Some(rate) = *lock(&self.rate) else { break };
            let rate = rate.get() as f64;
            let end =
                Duration::try_from_secs_f64(remaining / rate).ok().and_then(|time| began.checked_add(time));
            let passed = async {
                match end {
                    Some(end) => sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = passed => {
                    *schedule = end.unwrap_or(began);
                    return;
                }
                () = changed => {
                    let now = Instant::now();
                    remaining -= now.saturating_duration_since(began).as_secs_f64() * rate;
                    began = began.max(now);
                }
            }
        }
        *schedule = began.max(Instant::now());
    }
}
