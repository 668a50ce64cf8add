//! Where instances go: [`BlobSink`], and [`SinkProvider`], which opens one from a request's settings.

#[cfg(feature = "azure")]
pub mod azure;
#[cfg(feature = "fs")]
mod directory;
mod memory;
#[cfg(feature = "object_store")]
mod object_store;
mod provider;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[cfg(feature = "fs")]
pub use self::directory::DirectorySink;
pub use self::memory::{MemorySink, MemorySinkProvider};
#[cfg(feature = "object_store")]
pub use self::object_store::ObjectStoreSink;
pub use self::provider::{SinkProvider, ValidatedSettings};
pub use crate::content::{Content, CopySource};
use crate::error::Result;
pub use crate::limits::UploadContext;
pub use crate::model::{BlobPath, OperationSpec};
pub use crate::secret::Secret;

/// What [`BlobSink::buffer_size`] asks for by default: a chunk or two on their way.
const STREAMING_WINDOW: u64 = 4 << 20;

/// A container that blobs are written to.
///
/// # Contract
/// - [`put`](Self::put): the whole blob becomes visible at once, or nothing does. A content whose stream ends in an
///   error leaves nothing, and the sink returns an error (any: the engine knows the source's own). Putting twice
///   leaves one blob.
/// - [`copy_from`](Self::copy_from) leaves what `put` would have left of the same bytes, content type included, or
///   nothing. `Ok(None)` means that the instance is to be streamed; a source that cannot be read from the
///   destination's side (it is gone, it changed, it refuses, no network leads there) is that, and no error: the
///   source's own [`open`](crate::InstanceSource::open) then says what is wrong with it.
/// - [`append`](Self::append) adds whole lines to the log; none is cut or mixed with another's. Once it has returned,
///   they are durable. An operation has one log or two, `errors.log` and `manifest.jsonl`, with the same keys.
/// - [`prepare`](Self::prepare) proves that the sink can be written by leaving an empty log, and changes nothing if
///   the log is there already: resuming calls it again.
///
/// # Errors
/// [`Throttled`](crate::ErrorKind::Throttled) and [`Unavailable`](crate::ErrorKind::Unavailable) are repeated within the
/// retry budget. Everything else, and those past it, fails the operation, which can be resumed: trouble at the
/// destination never skips an instance.
///
/// # Cancellation
/// Dropping a future commits nothing. What it had sent may linger, invisible.
///
/// # Retry and idempotence
/// Every call may be repeated, also while an earlier one with the same arguments is still under way elsewhere.
/// A repeated `append` may leave its lines twice, or once where the sink can tell by the key.
///
/// # Concurrency
/// Many calls run at once, `append`s to one log among them.
#[async_trait]
pub trait BlobSink: Send + Sync + 'static {
    /// Leaves an empty log where there is none, to prove that the sink can be written.
    async fn prepare(&self, log: &BlobPath) -> Result<()>;

    /// Writes a blob: `Content-Type: application/dicom` where there is such a thing.
    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult>;

    /// Has the destination fetch a blob's bytes itself, none of them through this process; `None`, as by default: it
    /// cannot, or not from there. `upload` is for the requests that this takes, with a window of no bytes. The URL is
    /// a secret: it is in no log and no error.
    async fn copy_from(
        &self,
        path: &BlobPath,
        source: &CopySource,
        upload: &UploadContext,
    ) -> Result<Option<PutResult>> {
        let _ = (path, source, upload);
        Ok(None)
    }

    /// Appends whole lines, each ended by `\n`, to the log.
    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()>;

    /// The operation has ended, in whatever way; there may be more appends if it is resumed. Joins the log's parts,
    /// say, or flushes.
    async fn finish(&self, log: &BlobPath) -> Result<()>;

    /// The blob's URL, without a credential.
    fn url(&self, path: &BlobPath) -> String;

    /// How many bytes one `put` of this length holds in memory at once. The engine takes them from its byte budget
    /// before it opens the content, and tells the sink what it got as [`UploadContext::buffer_limit`].
    fn buffer_size(&self, length: Option<u64>) -> u64 {
        length.map_or(STREAMING_WINDOW, |length| length.min(STREAMING_WINDOW))
    }

    /// The container and the prefix that blobs are written to, without a credential. It identifies the destination: an
    /// operation is resumed only with a sink that has the same location. Two sinks that write to different places must
    /// have different locations.
    fn location(&self) -> String;

    /// The part of the destination that limits requests, for example the storage account. Operations whose sinks have
    /// the same key share the engine's concurrency limit. Default: [`location`](Self::location).
    fn throttle_key(&self) -> String {
        self.location()
    }
}

/// What a [`BlobSink::put`] or [`BlobSink::copy_from`] left behind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PutResult {
    /// The blob's length in bytes.
    pub size: u64,
    /// The destination's tag of this version of the blob, if it has such a thing.
    pub etag: Option<String>,
}

impl PutResult {
    /// So many bytes.
    pub fn new(size: u64) -> Self {
        Self { size, etag: None }
    }

    /// With the destination's tag.
    pub fn with_etag(mut self, etag: impl Into<String>) -> Self {
        self.etag = Some(etag.into());
        self
    }
}

/// Which part of a log lines belong to: appending the same key again replaces what it left, where the sink has no real
/// append. Keys of one operation sort in the order of its batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogKey(u64);

impl LogKey {
    /// The lines of the batch of this number, and of those after it up to the next key.
    pub fn batch(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for LogKey {
    /// Twenty digits, so that keys sort as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}", self.0)
    }
}

macro_rules! delegate {
    ($pointer:ident) => {
        #[async_trait]
        impl<S: BlobSink + ?Sized> BlobSink for $pointer<S> {
            async fn prepare(&self, log: &BlobPath) -> Result<()> {
                (**self).prepare(log).await
            }

            async fn put(
                &self,
                path: &BlobPath,
                content: Content,
                upload: &UploadContext,
            ) -> Result<PutResult> {
                (**self).put(path, content, upload).await
            }

            async fn copy_from(
                &self,
                path: &BlobPath,
                source: &CopySource,
                upload: &UploadContext,
            ) -> Result<Option<PutResult>> {
                (**self).copy_from(path, source, upload).await
            }

            async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
                (**self).append(log, key, lines).await
            }

            async fn finish(&self, log: &BlobPath) -> Result<()> {
                (**self).finish(log).await
            }

            fn url(&self, path: &BlobPath) -> String {
                (**self).url(path)
            }

            fn buffer_size(&self, length: Option<u64>) -> u64 {
                (**self).buffer_size(length)
            }

            fn location(&self) -> String {
                (**self).location()
            }

            fn throttle_key(&self) -> String {
                (**self).throttle_key()
            }
        }
    };
}

delegate!(Arc);
delegate!(Box);
