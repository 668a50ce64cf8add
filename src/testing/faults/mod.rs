//! Fault injection: wrappers that make a source, a sink or a store fail according to a plan.

#![deny(clippy::missing_trait_methods, reason = "a method that is not forwarded would bypass the plan")]

mod operation_store;
mod plan;
mod secret_store;
mod sink;
mod source;
mod stream;

pub use self::operation_store::FaultyOperationStore;
pub use self::plan::{Call, FaultPlan};
pub use self::secret_store::FaultySecretStore;
pub use self::sink::FaultySink;
pub use self::source::FaultySource;
pub use self::stream::StreamFault;
