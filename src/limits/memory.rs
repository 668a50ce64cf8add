//! [`MemoryBudget`]: how many bytes of instance data an engine holds at once, and each operation's share of it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};

use crate::sync::lock;

/// The budget is counted in units of this many bytes, so that one semaphore can count terabytes.
const UNIT: u64 = 1024;

/// How long an operation waits without a single byte before permits of others are revoked, and how long an operation may
/// hold permits without releasing any before it can lose some.
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
    free: Arc<Semaphore>,
    units: u32,
    /// The operations that share the budget.
    shares: Mutex<Vec<Weak<ShareState>>>,
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

#[derive(Debug)]
struct ShareState {
    /// Units that this operation's transfers hold or wait for.
    held: AtomicU64,
    permits: Mutex<Permits>,
    /// Notified when permits are revoked.
    revocation: Notify,
}

/// The permits whose bytes an operation has acquired.
#[derive(Debug)]
struct Permits {
    /// Units, in the order of acquisition.
    by_number: BTreeMap<u64, u32>,
    next_number: u64,
    revoked: Range<u64>,
    last_release: Instant,
}

impl Permits {
    fn units(&self) -> u64 {
        self.by_number.values().copied().map(u64::from).sum()
    }
}

/// Bytes acquired from the budget. Dropping it releases them.
#[derive(Debug)]
pub(crate) struct BytePermit {
    units: u32,
    budget: Arc<Budget>,
    state: Arc<ShareState>,
    /// The number of the permit, once its bytes are acquired.
    acquired: Option<(u64, OwnedSemaphorePermit)>,
}

impl Budget {
    fn sharers(&self) -> usize {
        lock(&self.shares).len().max(1)
    }

    /// The part of the budget that one operation may hold, in units.
    fn fair_share(&self) -> u32 {
        (u64::from(self.units) * 3 / 4 / self.sharers() as u64) as u32
    }

    /// Revokes permits of the operation that holds the most, has released none for a while, and holds more than its fair
    /// share.
    fn revoke_for(&self, starving: &Arc<ShareState>) {
        let fair_share = u64::from(self.fair_share());
        let victim = lock(&self.shares)
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|share| !Arc::ptr_eq(share, starving))
            .filter_map(|share| {
                let permits = lock(&share.permits);
                let units = permits.units();
                let is_stuck = permits.last_release.elapsed() >= STARVATION_TIMEOUT;
                drop(permits);
                (is_stuck && units > fair_share).then_some((units, share))
            })
            .max_by_key(|(units, _)| *units);
        let Some((units, victim)) = victim else { return };
        let mut excess = units - fair_share;
        tracing::debug!(excess, "revoking memory of an operation that makes no progress");
        let mut permits = lock(&victim.permits);
        let mut revoked = permits.next_number..permits.next_number;
        // The newest first.
        for (number, units) in permits.by_number.iter().rev() {
            if excess == 0 {
                break;
            }
            revoked.start = *number;
            excess = excess.saturating_sub(u64::from(*units));
        }
        permits.revoked = revoked;
        drop(permits);
        victim.revocation.notify_waiters();
    }
}

impl MemoryBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        let free = Arc::new(Semaphore::new(units as usize));
        Self(Arc::new(Budget { free, units, shares: Mutex::default(), changed: Notify::new() }))
    }

    /// Adds an operation and returns its share.
    pub(crate) fn share(&self) -> MemoryShare {
        let permits = Permits {
            by_number: BTreeMap::new(),
            next_number: 0,
            revoked: 0..0,
            last_release: Instant::now(),
        };
        let state = Arc::new(ShareState {
            held: AtomicU64::new(0),
            permits: Mutex::new(permits),
            revocation: Notify::new(),
        });
        lock(&self.0.shares).push(Arc::downgrade(&state));
        MemoryShare { budget: Arc::clone(&self.0), state, queue: AsyncMutex::default() }
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
            let share = budget.fair_share();
            let max_buffer = match budget.sharers() {
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
            if self.state.held.fetch_update(SeqCst, SeqCst, add).is_ok() {
                break units;
            }
            changed.await;
        };
        drop(queue);
        // From here on, dropping the permit releases what was added to `held`.
        let mut acquired = BytePermit::new(units, Arc::clone(budget), Arc::clone(&self.state));
        let permit = Arc::clone(&budget.free).acquire_many_owned(units);
        tokio::pin!(permit);
        loop {
            tokio::select! {
                biased;
                permit = &mut permit => {
                    // The semaphore is never closed.
                    if let Ok(permit) = permit {
                        acquired.set_acquired(permit);
                    }
                    return acquired;
                }
                () = sleep(STARVATION_TIMEOUT) => {
                    if lock(&self.state.permits).by_number.is_empty() {
                        budget.revoke_for(&self.state);
                    }
                }
            }
        }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        lock(&self.budget.shares).retain(|share| share.as_ptr() != Arc::as_ptr(&self.state));
        self.budget.changed.notify_waiters();
    }
}

impl BytePermit {
    /// Creates the permit for units that are counted in `held` and not acquired yet.
    fn new(units: u32, budget: Arc<Budget>, state: Arc<ShareState>) -> Self {
        Self { units, budget, state, acquired: None }
    }

    fn set_acquired(&mut self, permit: OwnedSemaphorePermit) {
        let mut permits = lock(&self.state.permits);
        let number = permits.next_number;
        permits.next_number += 1;
        permits.by_number.insert(number, self.units);
        self.acquired = Some((number, permit));
    }

    /// Waits until the bytes are to be released, because another operation gets none.
    pub(crate) async fn revoked(&self) {
        loop {
            // Registered before the check, so that no revocation after it is missed.
            let notified = self.state.revocation.notified();
            let revoked = lock(&self.state.permits).revoked.clone();
            if self.acquired.as_ref().is_some_and(|(number, _)| revoked.contains(number)) {
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

impl Drop for BytePermit {
    fn drop(&mut self) {
        if let Some((number, permit)) = self.acquired.take() {
            drop(permit);
            let mut permits = lock(&self.state.permits);
            permits.by_number.remove(&number);
            permits.last_release = Instant::now();
        }
        self.state.held.fetch_sub(u64::from(self.units), SeqCst);
        self.budget.changed.notify_waiters();
    }
}
