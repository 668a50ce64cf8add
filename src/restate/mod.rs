//! The same export over any number of workers, on a [Restate](https://restate.dev) server.
//!
//! One process is bounded by its network card. Here the steps of the engine (plan, export a batch, finish), unchanged,
//! are called by Restate, which remembers what has been done, on as many workers as there are:
//!
//! - A **worker** process serves an [`endpoint`]. It is made of an [`ExportEngine`](crate::ExportEngine) that states
//!   sources, destinations and options as for one process.
//! - A [`Client`] starts operations and answers for them. It is an [`ExportService`](crate::ExportService), so the HTTP
//!   API works over it.
//! - The Restate **server** is installed and run by whoever operates all this; so is the registration of the workers,
//!   behind one URL.
//!
//! `docs/restate.md` has a picture of who talks to whom, how much of everything is needed, and what is guaranteed.
//!
//! # How an operation runs
//!
//! The object `ExportOperation` keeps what a poll reads. The workflow `Export` runs an operation, under its id, and a
//! resumption under `<id>.<n>`. It hands stretches of the listing to the service `ExportSegment`, one after the other:
//! each lists some hundreds of batches in small durable steps, has them exported by the service `ExportBatch`, a
//! bounded number at a time, and appends what failed to `errors.log`. What an operation exports is fetched by workers
//! from the object `ExportSpec`, in pieces: no message comes near Restate's limit of 32 MiB, also with a million
//! identifiers. Secrets are never sent to Restate.
//!
//! # Canceling
//!
//! Each worker asks once a second whether the operations that it works on are wanted still, and drops an unwanted one's
//! transfers where they are: between two blocks too, and without a partial blob. Short batches alone would not do, since
//! one large instance may take minutes; Restate's own cancellation does not reach a step that is running.

mod batch;
mod client;
mod endpoint;
mod ingress;
mod lister;
mod operations;
mod segment;
mod specs;
mod wire;
mod worker;
mod workflow;

pub use self::client::Client;
pub use self::endpoint::{Endpoint, endpoint};
