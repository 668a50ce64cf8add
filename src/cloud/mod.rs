//! Clients of cloud storage, for sinks and sources: connections, hosts and URIs, and the buckets of S3.

mod clients;
mod hosts;
#[cfg(feature = "s3")]
pub(crate) mod s3;
#[cfg(feature = "s3")]
mod service;
#[cfg(feature = "s3")]
mod uploads;
mod uri;

pub(crate) use self::clients::HttpClients;
#[cfg(feature = "azure")]
pub(crate) use self::hosts::label_before;
pub(crate) use self::hosts::{ListedHost, is_loopback, not_a_host};
#[cfg(feature = "s3")]
pub(crate) use self::service::{CredentialConnector, StoreConnector};
#[cfg(feature = "s3")]
pub(crate) use self::uploads::{SignRequest, UploadLister};
pub(crate) use self::uri::PlainUri;
