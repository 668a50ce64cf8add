//! Azure Blob Storage as a destination: the type `azureblob`.

mod append;
mod blocks;
mod checksum;
mod client;
mod connection_string;
mod connections;
mod container;
mod copy;
mod fresh;
mod hosts;
mod identity;
mod policy;
mod provider;
mod response;
mod sas;
mod schema;
mod settings;
mod signer;
mod sink;
mod writer;

pub use self::hosts::Addressing;
pub use self::policy::{AzureBlobPolicy, Identity};
pub use self::provider::AzureBlobProvider;
pub use self::sink::AzureBlobSink;
