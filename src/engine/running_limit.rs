//! [`RunningLimit`]: limits how many operations run at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::RwLock;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Retrier;
use crate::pipeline::MaxRunning;
use crate::store::{OperationFilter, OperationStore};
use crate::sync::lock;

/// How long a caller is asked to wait if a limit is reached.
const RETRY_AFTER: Duration = Duration::from_secs(10);

/// Refuses operations above the limits.
///
/// The store is authoritative: it counts the operations that have not ended, of all replicas and of earlier processes. The
/// operations that this process has admitted and not stored yet are added to them.
pub(super) struct RunningLimit {
    limits: MaxRunning,
    store: Arc<dyn OperationStore>,
    /// Locked exclusively while operations are counted, and shared while one is stored and leaves `starting`: each
    /// operation is counted once.
    counting: RwLock<()>,
    starting: Arc<Mutex<Starting>>,
}

/// The number of admitted operations that are not stored yet, by partition.
type Starting = HashMap<Option<String>, usize>;

/// The admission of an operation that is not stored yet.
#[must_use]
pub(super) struct Slot(Option<(Arc<Mutex<Starting>>, Option<String>)>);

impl RunningLimit {
    pub(super) fn new(limits: MaxRunning, store: Arc<dyn OperationStore>) -> Self {
        Self { limits, store, counting: RwLock::default(), starting: Arc::default() }
    }

    /// Admits an operation.
    ///
    /// # Errors
    /// [`ErrorKind::LimitReached`]; otherwise the store's.
    pub(super) async fn admit(&self, partition: Option<&str>, retrier: &Retrier) -> Result<Slot> {
        let MaxRunning { overall, per_partition } = self.limits;
        let partition = partition.map(str::to_owned);
        if overall.is_none() && (per_partition.is_none() || partition.is_none()) {
            return Ok(Slot::none());
        }
        let _counting = self.counting.write().await;
        if let Some(limit) = overall {
            let starting = lock(&self.starting).values().sum();
            self.check(OperationFilter::new(limit), starting, retrier).await?;
        }
        if let (Some(limit), Some(name)) = (per_partition, &partition) {
            let starting = lock(&self.starting).get(&partition).copied().unwrap_or_default();
            self.check(OperationFilter::new(limit).partition(name), starting, retrier).await?;
        }
        *lock(&self.starting).entry(partition.clone()).or_default() += 1;
        Ok(Slot(Some((Arc::clone(&self.starting), partition))))
    }

    /// Checks that fewer operations run than the filter's limit, with those that are `starting`.
    async fn check(&self, filter: OperationFilter, starting: usize, retrier: &Retrier) -> Result<()> {
        let filter = filter.unfinished_only();
        let stored = retrier.run(|| self.store.count(&filter)).await?;
        if stored.saturating_add(starting) >= filter.limit {
            let message = match filter.partition {
                Some(_) => "the limit of running operations of the partition is reached",
                None => "the limit of running operations is reached",
            };
            return Err(Error::new(ErrorKind::LimitReached, message).with_retry_after(RETRY_AFTER));
        }
        Ok(())
    }

    /// Runs the work that stores the operation, after which the store counts it.
    pub(super) async fn fill<T>(&self, slot: Slot, store: impl Future<Output = Result<T>>) -> Result<T> {
        let _storing = self.counting.read().await;
        let stored = store.await;
        drop(slot);
        stored
    }
}

impl Slot {
    /// The admission of an operation that does not count against a limit.
    pub(super) fn none() -> Self {
        Self(None)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((starting, partition)) = &self.0 {
            let mut starting = lock(starting);
            if let Some(count) = starting.get_mut(partition) {
                *count -= 1;
                if *count == 0 {
                    starting.remove(partition);
                }
            }
        }
    }
}
