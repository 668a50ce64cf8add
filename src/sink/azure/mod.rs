//! Azure Blob Storage as a destination: the type `azureblob`.

mod container;
mod policy;

pub use self::policy::{Addressing, AzureBlobPolicy, Identity};
