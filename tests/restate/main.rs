//! Exports over worker processes on a Restate server, into Azurite.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/proxy.rs"]
mod proxy;

mod archive;
mod cluster;
mod export;
mod process;
mod server;
