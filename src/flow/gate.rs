//! [`Gate`]: a number of places that can change while they are taken.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

/// Lets so many in at once; first come, first served.
///
/// The semaphore's permits, free and taken, are always the places and what is owed. No lock is taken on the way in or
/// out.
#[derive(Debug)]
pub(crate) struct Gate {
    free: Semaphore,
    /// Places that are gone but still taken: they are not given back.
    owed: AtomicUsize,
    /// Held while it changes.
    places: Mutex<usize>,
}

/// A place; dropping it makes room for the next.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    gate: &'a Gate,
    permit: Option<SemaphorePermit<'a>>,
}

impl Gate {
    pub(crate) fn new(places: usize) -> Self {
        Self { free: Semaphore::new(places), owed: AtomicUsize::new(0), places: Mutex::new(places) }
    }

    /// Waits for a place. Dropping the future takes none.
    pub(crate) async fn enter(&self) -> Place<'_> {
        // The semaphore is never closed.
        Place { gate: self, permit: self.free.acquire().await.ok() }
    }

    /// Whether every place is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.free.available_permits() == 0
    }

    /// Makes it larger at once, or smaller as places are given back.
    pub(crate) fn resize(&self, places: usize) {
        let mut now = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(more) = places.checked_sub(*now) {
            let settled = self.settle(more);
            self.free.add_permits(more - settled);
        } else {
            let fewer = *now - places;
            self.owed.fetch_add(fewer - self.free.forget_permits(fewer), SeqCst);
        }
        *now = places;
    }

    /// Takes up to so many off what is owed, and says how many.
    fn settle(&self, most: usize) -> usize {
        let less = |owed: usize| (owed > 0).then(|| owed.saturating_sub(most));
        self.owed.fetch_update(SeqCst, SeqCst, less).map_or(0, |owed| owed.min(most))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take()
            && self.gate.settle(1) == 1
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
    async fn a_gate_shrinks_as_places_are_given_back_and_grows_at_once() {
        let gate = Gate::new(3);
        let mut taken = vec![gate.enter().await, gate.enter().await, gate.enter().await];
        gate.resize(1);
        taken.pop();
        taken.pop();
        assert!(gate.enter().now_or_never().is_none(), "two were owed");
        gate.resize(2);
        taken.push(gate.enter().now_or_never().expect("a new place"));
        assert!(gate.is_full());
        gate.resize(1);
        gate.resize(2);
        taken.pop();
        assert!(gate.enter().now_or_never().is_some());
    }
}
