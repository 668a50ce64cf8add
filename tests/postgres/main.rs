//! The PostgreSQL stores, on a real server.
#![allow(clippy::unwrap_used)]

mod clocks;
mod guide;
mod outage;
mod replicas;
mod rows;
mod stores;

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/hooked_sink.rs"]
mod hooked_sink;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/postgres.rs"]
mod postgres;
#[path = "../support/proxy.rs"]
mod proxy;
