//! [`Gate`]: a number of places that can change while they are taken.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Lets so many in at once; first come, first served.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<Places>);

#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    size: Mutex<Size>,
}

#[derive(Debug)]
struct Size {
    places: usize,
    /// Places that are gone but still taken: they are not given back.
    owed: usize,
}

/// A place; dropping it makes room for the next.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Gate,
    permit: Option<OwnedSemaphorePermit>,
}

impl Gate {
    pub(crate) fn new(places: usize) -> Self {
        let size = Mutex::new(Size { places, owed: 0 });
        Self(Arc::new(Places { free: Arc::new(Semaphore::new(places)), size }))
    }

    /// Waits for a place. Dropping the future takes none.
    pub(crate) async fn enter(&self) -> Place {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.0.free).acquire_owned().await.ok();
        Place { gate: self.clone(), permit }
    }

    /// Whether every place is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.0.free.available_permits() == 0
    }

    /// Makes it larger at once, or smaller as places are given back.
    pub(crate) fn resize(&self, places: usize) {
        let mut size = self.size();
        if let Some(more) = places.checked_sub(size.places) {
            let settled = more.min(size.owed);
            size.owed -= settled;
            self.0.free.add_permits(more - settled);
        } else {
            let fewer = size.places - places;
            size.owed += fewer - self.0.free.forget_permits(fewer);
        }
        size.places = places;
    }

    fn size(&self) -> MutexGuard<'_, Size> {
        self.0.size.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut size = self.gate.size();
        match self.permit.take() {
            Some(permit) if size.owed > 0 => {
                size.owed -= 1;
                permit.forget();
            }
            // Given back under the lock, before anybody changes the size.
            permit => drop(permit),
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
