//! Guarantee 6: canary values stand for patients' names and credentials, and must not occur in the log of any crate at any
//! level, in `Debug`, errors, HTTP responses, the OpenAPI document, `errors.log` or the state file.
//!
//! `tests/command/privacy.rs` tests the output of the command, including its progress bar.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/canary.rs"]
mod canary;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/responder.rs"]
mod responder;

mod archive;
mod debug;
mod dicomweb;
mod errors;
mod identity;
mod log;
mod responses;
