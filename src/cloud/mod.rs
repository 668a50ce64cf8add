//! Clients of cloud storage, for sinks and sources: connections, hosts and URIs, and the buckets of S3 and Google Cloud Storage.

mod clients;
#[cfg(feature = "gcs")]
pub(crate) mod gcs;
mod hosts;
#[cfg(feature = "s3")]
pub(crate) mod s3;
#[cfg(any(feature = "gcs", feature = "s3"))]
mod service;
#[cfg(any(feature = "gcs", feature = "s3"))]
mod uploads;
#[cfg(any(feature = "azure", feature = "s3"))]
mod uri;

pub(crate) use self::clients::HttpClients;
pub(crate) use self::hosts::is_loopback;
#[cfg(feature = "azure")]
pub(crate) use self::hosts::label_before;
#[cfg(any(feature = "azure", feature = "s3"))]
pub(crate) use self::hosts::{ListedHost, not_a_host};
#[cfg(any(feature = "gcs", feature = "s3"))]
pub(crate) use self::service::{BodyChecksum, CredentialConnector, StoreConnector};
#[cfg(any(feature = "gcs", feature = "s3"))]
pub(crate) use self::uploads::{SignRequest, UploadLister};
#[cfg(any(feature = "azure", feature = "s3"))]
pub(crate) use self::uri::PlainUri;
