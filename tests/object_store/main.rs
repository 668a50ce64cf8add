//! `ObjectStoreSource` and `ObjectStoreSink` over stores in memory. `conformance.rs` runs the conformance suites.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod hooked;
mod logs;
mod source;
mod uploads;
