//! What holds whatever goes wrong: random archives, destinations, faults and crashes, in virtual time.
//!
//! Every case follows from its seed. `DICOM_EXPORT_SEEDS=5000` tries so many; a seed that fails is named with the
//! command that runs it alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod archive;
mod case;
mod check;
mod destination;
mod lives;
mod outage;
mod wrappers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// What a run without a number tries: some seconds' worth.
const SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Holds these seeds to something, on every processor, and names those that fail.
fn on_seeds(test: &str, seeds: u64, hold: impl Fn(u64) + Sync) {
    if let Some(seed) = number("DICOM_EXPORT_SEED") {
        return hold(seed);
    }
    let (seeds, next) = (number("DICOM_EXPORT_SEEDS").unwrap_or(seeds), AtomicU64::new(0));
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                while let seed = next.fetch_add(1, SeqCst)
                    && seed < seeds
                {
                    if catch_unwind(AssertUnwindSafe(|| hold(seed))).is_err() {
                        eprintln!(
                            "seed {seed} failed: DICOM_EXPORT_SEED={seed} cargo test --all-features --test invariants {test}"
                        );
                        failed.lock().unwrap().push(seed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "of {seeds} seeds these failed: {failed:?}");
}

/// A clock that does not wait; dropping it is a crash.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}
