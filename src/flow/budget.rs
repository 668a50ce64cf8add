//! The byte budget: how much instance data an engine holds at once, and each operation's share of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of this size, so that one semaphore counts terabytes.
const UNIT: u64 = 1024;

/// A number of bytes that operations share.
///
/// A transfer takes its whole window before it reads the first byte and never asks for more while it holds it, so
/// transfers cannot wait for each other in a circle.
#[derive(Debug, Clone)]
pub(crate) struct ByteBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    free: Arc<Semaphore>,
    units: u32,
    /// How many operations take from it.
    sharers: AtomicUsize,
    /// A share grew, or was given back.
    changed: Notify,
}

/// One operation's share: an equal part of three quarters of the budget, or one window where that is more. The last
/// quarter is for whoever comes next, so that an operation whose destination is slow does not hold up the others; so
/// while there are others, a window is a sixteenth to a quarter at most.
#[derive(Debug)]
pub(crate) struct Share {
    budget: Arc<Budget>,
    /// Units that this operation's transfers hold.
    held: Arc<AtomicU64>,
    turn: Mutex<()>,
}

/// A window taken from the budget; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct ByteLease {
    units: u32,
    budget: Arc<Budget>,
    held: Arc<AtomicU64>,
    permit: Option<OwnedSemaphorePermit>,
}

impl ByteBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        let free = Arc::new(Semaphore::new(units as usize));
        Self(Arc::new(Budget { free, units, sharers: AtomicUsize::new(0), changed: Notify::new() }))
    }

    /// A share for one more operation.
    pub(crate) fn share(&self) -> Share {
        self.0.sharers.fetch_add(1, SeqCst);
        Share { budget: Arc::clone(&self.0), held: Arc::default(), turn: Mutex::default() }
    }
}

impl Share {
    /// Waits for so many bytes, or for as many as an operation may hold at once if that is less. First come, first
    /// served within the share. Dropping the future takes nothing.
    pub(crate) async fn acquire(&self, bytes: u64) -> ByteLease {
        let budget = &self.budget;
        let wanted = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        // One at a time, in order: a large window is not passed by small ones for ever.
        let turn = self.turn.lock().await;
        let units = loop {
            // It counts from here, so that no change after the look is missed.
            let changed = budget.changed.notified();
            let sharers = budget.sharers.load(SeqCst).max(1);
            let part = (u64::from(budget.units) * 3 / 4 / sharers as u64) as u32;
            let most = match sharers {
                1 => part,
                // What another operation may never give back must not be waited for, by this one or by those behind it
                // in the queue; and the last quarter is for several.
                _ => part.clamp(budget.units / 16, budget.units / 4),
            };
            let units = wanted.clamp(1, most.max(1));
            let fits = |held: u64| {
                (held == 0 || held + u64::from(units) <= u64::from(part)).then_some(held + u64::from(units))
            };
            if self.held.fetch_update(SeqCst, SeqCst, fits).is_ok() {
                break units;
            }
            changed.await;
        };
        drop(turn);
        // From here on the drop of the lease gives back what was taken.
        let (budget, held) = (Arc::clone(budget), Arc::clone(&self.held));
        let mut lease = ByteLease { units, budget, held, permit: None };
        // The semaphore is never closed.
        lease.permit = Arc::clone(&self.budget.free).acquire_many_owned(units).await.ok();
        lease
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.sharers.fetch_sub(1, SeqCst);
        self.budget.changed.notify_waiters();
    }
}

impl ByteLease {
    /// How many bytes may be held under it.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT
    }
}

impl Drop for ByteLease {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.held.fetch_sub(u64::from(self.units), SeqCst);
        self.budget.changed.notify_waiters();
    }
}
