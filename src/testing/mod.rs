//! What a host's tests need: valid DICOM instances, and conformance suites for its own sources, sinks and stores.
//!
//! The suites are async functions that panic with a message where an implementation breaks its trait's contract. Every
//! implementation in this crate passes them.

#![allow(clippy::future_not_send, reason = "a suite runs in its test's own task")]

pub mod fixtures;
mod sink;
mod source;
mod store;

pub use self::sink::{SinkQuirks, sink_conformance};
pub use self::source::source_conformance;
pub use self::store::store_conformance;
