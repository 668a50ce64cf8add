//! What a host's tests need: valid DICOM instances, and conformance suites for its own sources, sinks and stores.
//!
//! The suites are async functions that panic with a message where an implementation breaks its trait's contract. Every
//! implementation in this crate passes them.

pub mod fixtures;
