//! Wrappers that make a source, a sink or a store fail on a seed.

#![deny(clippy::missing_trait_methods, reason = "a call that is not passed on would get around its faults")]

mod plan;
mod secrets;
mod sink;
mod source;
mod store;
mod stream;

pub use self::plan::{Call, FaultPlan};
pub use self::secrets::FaultySecretStore;
pub use self::sink::FaultySink;
pub use self::source::FaultySource;
pub use self::store::FaultyOperationStore;
pub use self::stream::StreamFault;
