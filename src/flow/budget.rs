//! The byte budget: how much instance data an engine holds at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes are counted in units of this size, so that one semaphore counts terabytes.
const UNIT: u64 = 1024;

/// A number of bytes that transfers share.
///
/// A transfer takes its whole window before it reads the first byte and never asks for more while it holds it, so
/// transfers cannot wait for each other in a circle. First come, first served.
#[derive(Debug, Clone)]
pub(crate) struct ByteBudget {
    free: Arc<Semaphore>,
    units: u32,
}

/// A window taken from the budget; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct ByteLease {
    bytes: u64,
    _units: Option<OwnedSemaphorePermit>,
}

impl ByteBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).max(1);
        Self { free: Arc::new(Semaphore::new(units as usize)), units }
    }

    /// Waits for so many bytes, or for the whole budget if it is smaller than that. Dropping the future takes
    /// nothing.
    pub(crate) async fn acquire(&self, bytes: u64) -> ByteLease {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX).clamp(1, self.units);
        // The semaphore is never closed.
        let permit = Arc::clone(&self.free).acquire_many_owned(units).await.ok();
        ByteLease { bytes: u64::from(units) * UNIT, _units: permit }
    }
}

impl ByteLease {
    /// How many bytes may be held under it.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}
