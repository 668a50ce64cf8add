//! Azure Blob Storage as a destination: the type `azureblob`.

mod connection_string;
mod container;
mod policy;
mod provider;
mod sas;
mod settings;
mod sink;
mod uri;

pub use self::policy::{Addressing, AzureBlobPolicy, Identity};
pub use self::provider::AzureBlobProvider;
