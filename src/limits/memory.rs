//! [`MemoryBudget`]: how many bytes of instance data an engine holds at once, and each operation's share of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};

use tokio::sync::{Mutex, Notify, OwnedSemaphorePermit, Semaphore};

/// The budget is counted in units of this many bytes, so that one semaphore can count terabytes.
const UNIT: u64 = 1024;

/// A number of bytes that operations share.
///
/// A transfer acquires its whole buffer before it reads the first byte and never acquires more while it holds it, so
/// transfers cannot deadlock.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    free: Arc<Semaphore>,
    units: u32,
    /// The number of operations that share the budget.
    sharers: AtomicUsize,
    /// Notified when bytes are released, or when the shares change.
    changed: Notify,
}

/// One operation's share: an equal part of three quarters of the budget, or one buffer if that is larger.
///
/// The last quarter is reserved for operations that start later, so that an operation whose destination is slow does
/// not block the others. While there are several operations, one buffer is limited to between a sixteenth and a quarter
/// of the budget.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    budget: Arc<Budget>,
    /// Units that this operation's transfers hold.
    held: Arc<AtomicU64>,
    /// Serves requests in order, so that small buffers do not starve a large one.
    queue: Mutex<()>,
}

/// Bytes acquired from the budget. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct BytePermit {
    units: u32,
    budget: Arc<Budget>,
    held: Arc<AtomicU64>,
    permit: Option<OwnedSemaphorePermit>,
}

impl MemoryBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        let free = Arc::new(Semaphore::new(units as usize));
        Self(Arc::new(Budget { free, units, sharers: AtomicUsize::new(0), changed: Notify::new() }))
    }

    /// Adds an operation and returns its share.
    pub(crate) fn share(&self) -> MemoryShare {
        self.0.sharers.fetch_add(1, SeqCst);
        MemoryShare { budget: Arc::clone(&self.0), held: Arc::default(), queue: Mutex::default() }
    }
}

impl MemoryShare {
    /// Waits for `bytes` bytes, or for the most that one buffer may hold if that is less. Requests are served in order.
    ///
    /// # Cancellation
    /// Dropping the future acquires nothing.
    pub(crate) async fn acquire(&self, bytes: u64) -> BytePermit {
        let budget = &self.budget;
        let wanted = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let queue = self.queue.lock().await;
        let units = loop {
            // Registered before the check, so that no change after it is missed.
            let changed = budget.changed.notified();
            let sharers = budget.sharers.load(SeqCst).max(1);
            let share = (u64::from(budget.units) * 3 / 4 / sharers as u64) as u32;
            let max_buffer = match sharers {
                1 => share,
                // Another operation may never release what it holds, so no buffer may need more than a part of the
                // reserved quarter.
                _ => share.clamp(budget.units / 16, budget.units / 4),
            };
            let units = wanted.clamp(1, max_buffer.max(1));
            let add = |held: u64| {
                let total = held + u64::from(units);
                (held == 0 || total <= u64::from(share)).then_some(total)
            };
            if self.held.fetch_update(SeqCst, SeqCst, add).is_ok() {
                break units;
            }
            changed.await;
        };
        drop(queue);
        // From here on, dropping the permit releases what was added to `held`.
        let (budget, held) = (Arc::clone(budget), Arc::clone(&self.held));
        let mut acquired = BytePermit { units, budget, held, permit: None };
        // The semaphore is never closed.
        acquired.permit = Arc::clone(&self.budget.free).acquire_many_owned(units).await.ok();
        acquired
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.budget.sharers.fetch_sub(1, SeqCst);
        self.budget.changed.notify_waiters();
    }
}

impl BytePermit {
    /// The number of bytes that may be held.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT
    }
}

impl Drop for BytePermit {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.held.fetch_sub(u64::from(self.units), SeqCst);
        self.budget.changed.notify_waiters();
    }
}
