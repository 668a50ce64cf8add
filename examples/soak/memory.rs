//! The memory of the process.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::sleep;

use crate::Outcome;

const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);

/// The peak in each half of the time.
#[derive(Default)]
pub(crate) struct Watch {
    now: AtomicU64,
    first: AtomicU64,
    second: AtomicU64,
    is_past_half: AtomicBool,
}

impl Watch {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Samples until the future is dropped.
    pub(crate) async fn run(&self) -> Outcome {
        loop {
            let now = resident()?;
            self.now.store(now, Relaxed);
            let half = if self.is_past_half.load(Relaxed) { &self.second } else { &self.first };
            half.fetch_max(now, Relaxed);
            sleep(SAMPLE_INTERVAL).await;
        }
    }

    pub(crate) fn halfway(&self) {
        self.is_past_half.store(true, Relaxed);
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.load(Relaxed)
    }

    pub(crate) fn peaks(&self) -> (u64, u64) {
        (self.first.load(Relaxed), self.second.load(Relaxed))
    }
}

fn resident() -> Outcome<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
