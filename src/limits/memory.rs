//! [`MemoryBudget`]: how many bytes of instance data an engine holds at once, and each operation's share of it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, SemaphorePermit};
use tokio::time::sleep;

use crate::sync::lock;

/// The budget is counted in units of this many bytes, so that one semaphore can count terabytes.
const UNIT: u64 = 1024;

/// How long an operation waits without a single byte before permits are revoked of another that releases none meanwhile.
const STARVATION_TIMEOUT: Duration = Duration::from_secs(5);

/// A number of bytes that operations share.
///
/// A transfer acquires its whole buffer before it reads the first byte and never acquires more while it holds it, so
/// transfers cannot deadlock. An operation whose destination does not respond could hold its buffers for as long as it
/// retries. If another operation gets nothing meanwhile, permits above the fair share of the first are revoked: their
/// transfers start over.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<Budget>);

#[derive(Debug)]
struct Budget {
    free: Semaphore,
    units: u32,
    /// The operations that share the budget.
    shares: Mutex<Vec<Arc<ShareState>>>,
    /// The number of `shares`, so that an acquisition takes no lock.
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
    state: Arc<ShareState>,
    /// Serves requests in order, so that small buffers do not starve a large one.
    queue: AsyncMutex<()>,
}

#[derive(Debug, Default)]
struct ShareState {
    /// Units that this operation's transfers hold or wait for.
    requested: AtomicU64,
    /// Units that its transfers hold.
    acquired: AtomicU64,
    /// The number of permits released so far.
    releases: AtomicU64,
    /// Units of permits that are revoked and not released yet.
    excess: AtomicU64,
    /// Notified when permits are revoked.
    revocation: Notify,
}

/// Bytes acquired from the budget. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct BytePermit<'a> {
    units: u32,
    share: &'a MemoryShare,
    /// `None` until the bytes are acquired.
    permit: Option<SemaphorePermit<'a>>,
    is_revoked: bool,
}

impl Budget {
    fn sharers(&self) -> usize {
        self.sharers.load(SeqCst).max(1)
    }

    /// The part of the budget that one operation may hold, in units.
    fn fair_share(&self) -> u32 {
        (u64::from(self.units) * 3 / 4 / self.sharers() as u64) as u32
    }

    /// The operations and the number of permits that each has released.
    fn releases(&self) -> Vec<(Arc<ShareState>, u64)> {
        lock(&self.shares).iter().map(|share| (Arc::clone(share), share.releases.load(SeqCst))).collect()
    }

    /// Revokes permits of the operation that holds the most, has released none since `before`, and holds more than its
    /// fair share.
    fn revoke_excess(&self, before: &[(Arc<ShareState>, u64)]) {
        let fair_share = u64::from(self.fair_share());
        let largest = before
            .iter()
            .filter(|(share, releases)| share.releases.load(SeqCst) == *releases)
            .map(|(share, _)| (share.acquired.load(SeqCst).saturating_sub(fair_share), share))
            .max_by_key(|(excess, _)| *excess);
        if let Some((excess, share)) = largest
            && excess > 0
        {
            tracing::debug!(excess, "revoking memory of an operation that makes no progress");
            share.excess.store(excess, SeqCst);
            share.revocation.notify_waiters();
        }
    }
}

impl MemoryBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        Self(Arc::new(Budget {
            free: Semaphore::new(units as usize),
            units,
            shares: Mutex::default(),
            sharers: AtomicUsize::new(0),
            changed: Notify::new(),
        }))
    }

    /// The number of bytes that are in use.
    #[cfg(feature = "metrics")]
    pub(crate) fn used(&self) -> u64 {
        self.bytes().saturating_sub(self.0.free.available_permits() as u64 * UNIT)
    }

    /// The budget in bytes.
    #[cfg(feature = "metrics")]
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.0.units) * UNIT
    }

    /// Adds an operation and returns its share.
    pub(crate) fn share(&self) -> MemoryShare {
        let state = Arc::<ShareState>::default();
        lock(&self.0.shares).push(Arc::clone(&state));
        self.0.sharers.fetch_add(1, SeqCst);
        MemoryShare { budget: Arc::clone(&self.0), state, queue: AsyncMutex::default() }
    }
}

impl MemoryShare {
    /// Waits for `bytes` bytes, or for the most that one buffer may hold if that is less. Requests are served in order.
    ///
    /// # Cancellation
    /// Dropping the future acquires nothing.
    pub(crate) async fn acquire(&self, bytes: u64) -> BytePermit<'_> {
        let budget = &self.budget;
        let wanted = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let queue = self.queue.lock().await;
        let units = loop {
            // Registered before the check, so that no change after it is missed.
            let changed = budget.changed.notified();
            let share = budget.fair_share();
            let max_buffer = match budget.sharers() {
                1 => share,
                // Another operation may never release what it holds, so no buffer may need more than a part of the
                // reserved quarter.
                _ => share.clamp(budget.units / 16, budget.units / 4),
            };
            let units = wanted.clamp(1, max_buffer.max(1));
            let add = |requested: u64| {
                let total = requested + u64::from(units);
                (requested == 0 || total <= u64::from(share)).then_some(total)
            };
            if self.state.requested.fetch_update(SeqCst, SeqCst, add).is_ok() {
                break units;
            }
            changed.await;
        };
        drop(queue);
        // From here on, dropping the permit releases what was added to `requested`.
        let mut permit = BytePermit { units, share: self, permit: None, is_revoked: false };
        // The semaphore is never closed, and nothing is free while a request waits.
        permit.permit = match budget.free.try_acquire_many(units) {
            Ok(acquired) => Some(acquired),
            Err(_) => self.wait_for(units).await,
        };
        self.state.acquired.fetch_add(u64::from(units), SeqCst);
        permit
    }

    async fn wait_for(&self, units: u32) -> Option<SemaphorePermit<'_>> {
        let acquiring = self.budget.free.acquire_many(units);
        tokio::pin!(acquiring);
        loop {
            let releases = self.budget.releases();
            tokio::select! {
                biased;
                acquired = &mut acquiring => return acquired.ok(),
                () = sleep(STARVATION_TIMEOUT) => {
                    if self.state.acquired.load(SeqCst) == 0 {
                        self.budget.revoke_excess(&releases);
                    }
                }
            }
        }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        lock(&self.budget.shares).retain(|share| !Arc::ptr_eq(share, &self.state));
        self.budget.sharers.fetch_sub(1, SeqCst);
        self.budget.changed.notify_waiters();
    }
}

impl BytePermit<'_> {
    /// Waits until the bytes are to be released, because another operation gets none.
    pub(crate) async fn revoked(&mut self) {
        let state = &self.share.state;
        loop {
            // Registered before the check, so that no revocation after it is missed.
            let notified = state.revocation.notified();
            if state.reduce_excess(self.units) {
                self.is_revoked = true;
                return;
            }
            notified.await;
        }
    }

    /// The number of bytes that may be held.
    pub(crate) fn bytes(&self) -> u64 {
        u64::from(self.units) * UNIT
    }
}

impl ShareState {
    /// Reduces the excess by at most `units` and returns whether there was any.
    fn reduce_excess(&self, units: u32) -> bool {
        let reduce = |excess: u64| (excess > 0).then(|| excess.saturating_sub(u64::from(units)));
        self.excess.fetch_update(SeqCst, SeqCst, reduce).is_ok()
    }
}

impl Drop for BytePermit<'_> {
    fn drop(&mut self) {
        let (units, MemoryShare { budget, state, .. }) = (u64::from(self.units), self.share);
        if let Some(permit) = self.permit.take() {
            state.acquired.fetch_sub(units, SeqCst);
            state.releases.fetch_add(1, SeqCst);
            if !self.is_revoked {
                state.reduce_excess(self.units);
            }
            drop(permit);
        }
        state.requested.fetch_sub(units, SeqCst);
        budget.changed.notify_waiters();
    }
}
