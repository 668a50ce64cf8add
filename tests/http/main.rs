//! The HTTP API, through a real listener: every answer is held to the OpenAPI document.
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
