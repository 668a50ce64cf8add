//! The HTTP API over a TCP listener. Every response is checked against the OpenAPI document.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests")]

#[path = "../support/azurite.rs"]
mod azurite;

mod authorize;
mod clients;
mod errors;
mod lenient;
mod lifecycle;
mod links;
mod listing;
mod openapi;
mod schemathesis;
mod server;
mod support;
