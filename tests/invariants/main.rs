//! The invariants of an export under any failures: random archives, destinations, faults, panics and crashes, in virtual
//! time.
//!
//! Each case is determined by its seed. `DICOM_EXPORT_SEEDS=5000` sets the number of seeds. A seed that fails is printed
//! with the command that runs it alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod archive;
mod case;
mod check;
mod destination;
mod lives;
mod outage;
mod replicas;
mod wrappers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// The default number of seeds, which takes some seconds.
const SEEDS: u64 = 1_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// Runs a check for each seed, on every processor, and prints the seeds that fail.
fn on_seeds(test: &str, seeds: u64, check: impl Fn(u64) + Sync) {
    hide_planned_panics();
    if let Some(seed) = number("DICOM_EXPORT_SEED") {
        // The log shows what happened, with RUST_LOG.
        let filter = tracing_subscriber::EnvFilter::from_default_env();
        _ = tracing_subscriber::fmt().with_env_filter(filter).without_time().with_test_writer().try_init();
        return check(seed);
    }
    let (seeds, next) = (number("DICOM_EXPORT_SEEDS").unwrap_or(seeds), AtomicU64::new(0));
    let failed = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|threads| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            threads.spawn(|| {
                while let seed = next.fetch_add(1, SeqCst)
                    && seed < seeds
                {
                    if catch_unwind(AssertUnwindSafe(|| check(seed))).is_err() {
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
    assert!(failed.is_empty(), "{} of {seeds} seeds failed: {failed:?}", failed.len());
}

/// Keeps the messages of planned panics out of the output.
fn hide_planned_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if panic.payload().downcast_ref() != Some(&"planned panic") {
                print(panic);
            }
        }));
    });
}

/// A runtime whose clock advances when every task is idle. Dropping it simulates a crash.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}
