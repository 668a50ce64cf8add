//! Limits on an export: retries, concurrent requests, and memory.
//!
//! The engine creates these and passes them to a sink as an [`UploadContext`]. Sources and sinks know nothing else of
//! the engine.

mod controller;
mod limiter;
mod memory;
mod outage;
mod rate;
mod retry;
#[cfg(any(feature = "azure", feature = "dicomweb", feature = "gcs", feature = "s3"))]
mod retry_after;
mod semaphore;
mod upload;

pub use self::limiter::Concurrency;
pub(crate) use self::limiter::Limiter;
pub(crate) use self::memory::{MemoryBudget, MemoryShare};
pub(crate) use self::outage::Outage;
pub use self::outage::Side;
pub(crate) use self::rate::RateLimit;
pub use self::retry::RetryPolicy;
pub(crate) use self::retry::{Failures, Retrier};
#[cfg(feature = "azure")]
pub(crate) use self::retry_after::retry_after;
#[cfg(any(feature = "azure", feature = "dicomweb", feature = "gcs", feature = "s3"))]
pub(crate) use self::retry_after::with_retry_after;
pub use self::upload::UploadContext;
