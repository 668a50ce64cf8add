//! The engine with sources and sinks in memory.

#[path = "../support/captured_log.rs"]
mod captured_log;
#[path = "../support/hooked_sink.rs"]
mod hooked_sink;

mod concurrency;
mod copy;
mod crash;
mod events;
mod flow;
mod hanging;
mod hooked_store;
mod list_ahead;
mod log;
mod manifest;
#[cfg(feature = "metrics")]
mod metrics;
mod misbehaving;
mod outcome;
mod pausing;
mod progress;
#[cfg(feature = "testing")]
mod rate;
mod refusals;
mod running;
#[cfg(feature = "testing")]
mod starting;
mod stuck;
mod support;
