//! Amazon S3 and compatible stores as destinations: the type `s3`.
//!
//! [`S3Provider`] opens the sinks, which are [`ObjectStoreSink`]s with these properties:
//!
//! - **Checksums**: each body is sent with its SHA-256 as part of the signature, and with its CRC64-NVME, which S3 verifies and
//!   stores with the object. A store that reports another checksum than that of the data sent is a destination failure, and the
//!   request is retried.
//! - **Large instances** are multipart uploads. Each part waits for its turn among all requests to the bucket, and is retried on
//!   its own. Uploads are aborted when a `put` fails or is dropped. What a killed process leaves is aborted when the operation is
//!   resumed and when the run ends, if the credential may list uploads (`s3:ListBucketMultipartUploads`).
//! - **Logs** are written in parts and joined when a run ends, as [`ObjectStoreSink`] describes. The credential must be permitted
//!   to list, read, write and delete objects, which is checked when an operation is prepared.
//! - **Requests** follow no redirects, and are not retried by `object_store`. 429, 503 and `SlowDown` reduce the number of
//!   concurrent requests, and `Retry-After` is honored. Each request has a timeout of one minute, plus the time that its body
//!   takes at 64 KiB/s.
//!
//! The guide `docs/s3.md`, also in the module `docs` of the API documentation, describes how to set up a bucket.

mod provider;
mod sink;

pub use self::provider::S3Provider;
pub use crate::cloud::s3::{BucketAddressing, S3Policy};
#[cfg(doc)]
use crate::sink::ObjectStoreSink;
