//! The distributed runner: exports over any number of workers, on a [Restate](https://restate.dev) server.
//!
//! A single process is limited by its network interface. Here Restate calls the steps of the pipeline (list, export a
//! batch, finish) on any number of workers, and records what is done:
//!
//! - A **worker** process serves an [`endpoint`]. It is created from an [`ExportConfig`](crate::ExportConfig) with the
//!   sources, destinations and options, as for one process.
//! - A [`Client`] starts operations and manages them. It is an [`ExportService`](crate::ExportService), so the HTTP API
//!   works with it.
//! - The operator installs and runs the Restate **server**, and registers the workers behind one URL.
//!
//! The Restate guide shows how the processes communicate, how to size them, and what is guaranteed.
//!
//! # How an operation runs
//!
//! The object `ExportOperation` holds the state that a poll reads. The workflow `Export` runs an operation, under its id;
//! a resumption runs under `<id>.<n>`. The workflow calls the service `ExportSegment` for one part of the listing after the
//! other. A segment lists some hundreds of batches in small durable steps, calls the service `ExportBatch` for each, a
//! bounded number concurrently, and appends the log lines. Workers fetch the operation's spec from the object `ExportSpec`,
//! in pieces, so that no message approaches Restate's limit of 32 MiB, even with a million identifiers. Secrets are never
//! sent to Restate.
//!
//! # Cancellation
//!
//! Each worker polls once a second whether its operations are canceled, and then drops their transfers, also between two
//! blocks of one instance, without leaving a partial blob. Restate's own cancellation does not reach a step that is
//! running, and one large instance may take minutes.

mod batch;
mod client;
mod endpoint;
mod http_client;
mod list;
mod messages;
mod operations;
mod segment;
mod specs;
mod worker;
mod workflow;

pub use self::client::Client;
pub use self::endpoint::{Endpoint, endpoint};
