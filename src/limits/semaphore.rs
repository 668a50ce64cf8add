//! [`ResizableSemaphore`]: a semaphore whose number of permits can change while permits are held.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::sync::lock;

/// A fair semaphore that can grow and shrink. Acquiring and releasing a permit takes no lock.
///
/// Invariant: the inner semaphore's permits, free and held, equal `size` + `surplus`.
#[derive(Debug)]
pub(crate) struct ResizableSemaphore {
    inner: Semaphore,
    /// Permits that are still held and are not returned when they are released.
    surplus: AtomicUsize,
    /// Locked while the size changes.
    size: Mutex<usize>,
}

/// A permit. Dropping it releases it.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    semaphore: &'a ResizableSemaphore,
    permit: Option<SemaphorePermit<'a>>,
}

impl ResizableSemaphore {
    pub(crate) fn new(size: usize) -> Self {
        Self { inner: Semaphore::new(size), surplus: AtomicUsize::new(0), size: Mutex::new(size) }
    }

    /// Waits for a permit.
    ///
    /// # Cancellation
    /// Dropping the future acquires nothing.
    pub(crate) async fn acquire(&self) -> Permit<'_> {
        // The semaphore is never closed.
        Permit { semaphore: self, permit: self.inner.acquire().await.ok() }
    }

    /// Returns whether all permits are held.
    pub(crate) fn is_exhausted(&self) -> bool {
        self.inner.available_permits() == 0
    }

    /// The number of permits.
    #[cfg(feature = "metrics")]
    pub(crate) fn size(&self) -> usize {
        *lock(&self.size)
    }

    /// Changes the number of permits. It grows at once; it shrinks as permits are released.
    pub(crate) fn resize(&self, new_size: usize) {
        let mut size = lock(&self.size);
        if let Some(added) = new_size.checked_sub(*size) {
            let absorbed = self.reduce_surplus(added);
            self.inner.add_permits(added - absorbed);
        } else {
            let removed = *size - new_size;
            self.surplus.fetch_add(removed - self.inner.forget_permits(removed), SeqCst);
        }
        *size = new_size;
    }

    /// Reduces the surplus by at most `max` and returns the reduction.
    fn reduce_surplus(&self, max: usize) -> usize {
        let reduce = |surplus: usize| (surplus > 0).then(|| surplus.saturating_sub(max));
        self.surplus.fetch_update(SeqCst, SeqCst, reduce).map_or(0, |surplus| surplus.min(max))
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.semaphore.reduce_surplus(1) == 1
        {
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn it_shrinks_as_permits_are_released_and_grows_at_once() {
        let semaphore = ResizableSemaphore::new(3);
        let mut held = vec![semaphore.acquire().await, semaphore.acquire().await, semaphore.acquire().await];
        semaphore.resize(1);
        held.pop();
        held.pop();
        assert!(semaphore.acquire().now_or_never().is_none(), "two permits were in surplus");
        semaphore.resize(2);
        held.push(semaphore.acquire().now_or_never().expect("a new permit"));
        assert!(semaphore.is_exhausted());
        semaphore.resize(1);
        semaphore.resize(2);
        held.pop();
        assert!(semaphore.acquire().now_or_never().is_some());
    }
}
