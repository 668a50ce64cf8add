//! Azure Blob Storage as a destination: the type `azureblob`.

mod answer;
mod append;
mod blocks;
mod client;
mod connection_string;
mod connections;
mod container;
mod copy;
mod identity;
mod integrity;
mod policy;
mod provider;
mod sas;
mod settings;
mod sink;
mod uri;

pub use self::policy::{Addressing, AzureBlobPolicy, Identity};
pub use self::provider::AzureBlobProvider;
pub use self::sink::AzureBlobSink;
