//! What bounds an export: how often a call is repeated, how many run at once, how many bytes are held.
//!
//! The engine makes these and hands a destination its share of them as an [`Upload`]; sources and sinks know
//! nothing of the engine.

mod budget;
mod climber;
mod gate;
mod limiter;
mod retry;
mod upload;

pub(crate) use budget::{ByteBudget, Share};
pub use limiter::Concurrency;
pub(crate) use limiter::Limiter;
pub use retry::Retry;
pub(crate) use retry::{Failures, Retrier};
pub use upload::Upload;
