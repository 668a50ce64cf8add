//! The PostgreSQL stores, on a real server.
#![allow(clippy::unwrap_used)]

mod rows;
mod stores;

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/postgres.rs"]
mod postgres;
