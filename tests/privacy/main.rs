//! Guarantee 6: canaries are planted where patients' names and credentials stand, and must show nowhere else: at no log
//! level of any crate, in no `Debug`, error, HTTP answer, OpenAPI document, log of errors or state file.
//!
//! What the command prints, its progress bar included, is looked at in `tests/command/privacy.rs`.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/canary.rs"]
mod canary;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/responder.rs"]
mod responder;

mod answers;
mod archive;
mod debug;
mod dicomweb;
mod errors;
mod identity;
mod log;
