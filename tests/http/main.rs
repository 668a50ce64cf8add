//! The HTTP API over a TCP listener. Every response is checked against the OpenAPI document.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/captured_log.rs"]
mod captured_log;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/hooked_sink.rs"]
mod hooked_sink;
#[path = "../support/port.rs"]
mod port;
#[cfg(feature = "redb")]
#[path = "../support/proxy.rs"]
mod proxy;

mod authorize;
mod clients;
mod cloud_events;
mod errors;
mod idempotency;
mod lenient;
mod lifecycle;
mod links;
mod listing;
mod openapi;
mod partitions;
mod pausing;
#[cfg(feature = "redb")]
mod restart;
mod schemathesis;
mod server;
mod support;
