//! The engine over sources and sinks in memory: what ends up where, what is counted, what is repeated.

#[path = "../support/captured_log.rs"]
mod captured_log;
#[path = "../support/hooked_sink.rs"]
mod hooked_sink;

mod adapt;
mod ahead;
mod copy;
mod crash;
mod flow;
mod log;
mod manifest;
mod misbehaving;
mod outcome;
mod progress;
mod refusals;
mod running;
mod stuck;
mod support;
