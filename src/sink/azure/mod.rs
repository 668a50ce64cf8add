//! Azure Blob Storage as a destination: the type `azureblob`.

mod answer;
mod append;
mod blocks;
mod client;
mod container;
mod identity;
mod policy;
mod sink;

pub use self::policy::{Addressing, AzureBlobPolicy, Identity};
pub use self::sink::AzureBlobSink;
