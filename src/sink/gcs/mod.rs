//! Google Cloud Storage as a destination: the type `googlecloudstorage`.
//!
//! [`GcsProvider`] opens the sinks, which are [`ObjectStoreSink`]s with these properties:
//!
//! - **Large instances** are multipart uploads. Each part waits for its turn among all requests to the bucket, and is retried on
//!   its own. Uploads are aborted when a `put` fails or is dropped, when the operation is resumed, and when a run ends, if the
//!   credential may list uploads (`storage.multipartUploads.list`).
//! - **Logs** are written in parts and joined when a run ends, as [`ObjectStoreSink`] describes. The credential must be permitted
//!   to list, read, create and delete objects, which is checked when an operation is prepared.
//! - **Requests** follow no redirects, and are not retried by `object_store`. 429 and 503 reduce the number of concurrent
//!   requests, and `Retry-After` is honored.
//! - **Checksums**: each body is sent with its CRC32C, which Google Cloud Storage verifies. A store that reports another checksum
//!   than that of the data sent is a destination failure, and the request is retried.

mod provider;

pub use self::provider::GcsProvider;
pub use crate::cloud::gcs::GcsPolicy;
#[cfg(doc)]
use crate::sink::ObjectStoreSink;
