//! `ObjectStoreSource` and `ObjectStoreSink` over stores in memory. `conformance.rs` runs the conformance suites.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod hooked;
mod index;
mod logs;
#[path = "../support/responder.rs"]
mod responder;
mod source;
mod statuses;
mod uploads;
