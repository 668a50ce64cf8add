//! Destinations: the trait [`BlobSink`], its implementations, and [`SinkProvider`], which opens a sink from the settings of
//! a request.
//!
//! To export to other storage, implement [`BlobSink`]. To let requests name it as a destination type, implement
//! [`SinkProvider`] and register it with [`ExportEngineBuilder::destination`](crate::ExportEngineBuilder::destination).
//! The conformance suites in `testing` check both.

#[cfg(feature = "azure")]
pub mod azure;
mod destination_type;
#[cfg(feature = "fs")]
mod directory;
#[cfg(feature = "gcs")]
pub mod gcs;
mod memory;
#[cfg(feature = "object_store")]
mod object_store;
mod provider;
#[cfg(feature = "s3")]
pub mod s3;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use self::destination_type::DestinationType;
#[cfg(feature = "fs")]
pub use self::directory::DirectorySink;
pub use self::memory::{MemorySink, MemorySinkProvider};
#[cfg(feature = "object_store")]
pub use self::object_store::{ObjectStoreProvider, ObjectStoreSink};
pub use self::provider::{SinkProvider, ValidatedSettings};
pub use crate::content::{Content, CopySource};
use crate::error::Result;
pub use crate::limits::UploadContext;
pub use crate::model::{BlobPath, OperationSpec, StoredDestination, Timestamp};
pub use crate::secret::Secret;

/// The default of [`BlobSink::buffer_size`].
const DEFAULT_BUFFER_SIZE: u64 = 4 << 20;

/// A container that blobs are written to.
///
/// # Contract
/// - [`put`](Self::put) makes the whole blob visible at once, or nothing. If the content's stream ends in an error, the
///   sink leaves nothing and returns an error of any kind; the engine knows the source's own error. Putting the same path
///   twice leaves one blob.
/// - [`copy_from`](Self::copy_from) leaves what `put` would have left for the same bytes, including the content type, or
///   nothing. It returns `Ok(None)` if the instance must be streamed instead. A source that the destination cannot read
///   (missing, changed, refused, or unreachable) is not an error: the engine opens the instance with
///   [`InstanceSource::open`](crate::InstanceSource::open), which reports the cause.
/// - [`append`](Self::append) adds whole lines to a log without cutting them or mixing them with the lines of other
///   calls. When it returns, the lines are durable. An operation has one or two logs, `errors.log` and `manifest.jsonl`,
///   which use the same keys.
/// - [`prepare`](Self::prepare) creates an empty log, which proves that the sink can be written. It does not change an
///   existing log, because every resumption calls it again.
///
/// # Errors
/// [`Throttled`](crate::ErrorKind::Throttled) and [`Unavailable`](crate::ErrorKind::Unavailable) are retried within the
/// retry budget. [`TooLarge`](crate::ErrorKind::TooLarge) from `put` skips the instance. All other errors, and an exhausted
/// budget, fail the operation, which can then be resumed.
///
/// # Cancellation
/// Dropping a future commits nothing. Data that was already sent may remain at the destination, but not as a visible blob.
///
/// # Retry and idempotence
/// Every call may be repeated, even while an earlier call with the same arguments is still in progress elsewhere. A
/// repeated `append` may add its lines twice, unless the sink can detect the repetition by the key.
///
/// # Concurrency
/// Many calls run at once, including `append`s to the same log.
///
/// # Examples
/// A sink that keeps blobs in a map. A sink for real storage also makes `put` atomic and `append` durable.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Mutex;
///
/// use async_trait::async_trait;
/// use bytes::Bytes;
/// use dicom_export::sink::{BlobPath, Content, LogKey, PutResult, UploadContext};
/// use dicom_export::{BlobSink, ExportEngine, ExportSource, MemorySource, NewOperation, Result};
/// use futures::TryStreamExt;
///
/// #[derive(Default)]
/// struct MapSink(Mutex<BTreeMap<String, Vec<u8>>>);
///
/// #[async_trait]
/// impl BlobSink for MapSink {
///     async fn prepare(&self, log: &BlobPath) -> Result<()> {
///         self.0.lock().unwrap().entry(log.to_string()).or_default();
///         Ok(())
///     }
///
///     async fn put(&self, path: &BlobPath, content: Content, _: &UploadContext) -> Result<PutResult> {
///         let chunks: Vec<Bytes> = content.into_stream().try_collect().await?;
///         let bytes = chunks.concat();
///         let result = PutResult::new(bytes.len() as u64);
///         self.0.lock().unwrap().insert(path.to_string(), bytes);
///         Ok(result)
///     }
///
///     async fn append(&self, log: &BlobPath, _: LogKey, lines: Bytes) -> Result<()> {
///         self.0.lock().unwrap().entry(log.to_string()).or_default().extend_from_slice(&lines);
///         Ok(())
///     }
///
///     async fn finish(&self, _: &BlobPath) -> Result<()> {
///         Ok(())
///     }
///
///     fn url(&self, path: &BlobPath) -> String {
///         format!("map:///{path}")
///     }
///
///     fn location(&self) -> String {
///         "map:///".to_owned()
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let source = MemorySource::new();
/// source.insert("1.2.3/4.5/6.7".parse()?, &b"the bytes of a DICOM file"[..]);
/// let engine = ExportEngine::builder(source).build()?;
/// let operation = engine.start(NewOperation::new(ExportSource::Everything, MapSink::default())).await?;
/// assert_eq!(engine.wait(operation.operation_id).await?.results.exported, 1);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait BlobSink: Send + Sync + 'static {
    /// Creates an empty log if it does not exist, to prove that the sink can be written.
    async fn prepare(&self, log: &BlobPath) -> Result<()>;

    /// Writes a blob, with `Content-Type: application/dicom` if the destination has content types.
    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult>;

    /// Lets the destination fetch a blob's bytes itself, so that they do not pass through this process. Returns `None`
    /// if the destination cannot do that, or not from this source. Default: `None`.
    ///
    /// `upload` limits and retries the requests; its buffer limit is zero. The URL in `source` is a secret and must not
    /// appear in a log or an error.
    async fn copy_from(
        &self,
        path: &BlobPath,
        source: &CopySource,
        upload: &UploadContext,
    ) -> Result<Option<PutResult>> {
        let _ = (path, source, upload);
        Ok(None)
    }

    /// Appends whole lines to a log. Each line ends with `\n`.
    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()>;

    /// Completes a log when a run of the operation ends, for example by joining the log's parts. More lines may be
    /// appended if the operation is resumed.
    async fn finish(&self, log: &BlobPath) -> Result<()>;

    /// The blob's URL, without a credential.
    fn url(&self, path: &BlobPath) -> String;

    /// How many bytes one `put` of a content of this length holds in memory. Default: the length, at most 4 MiB.
    ///
    /// The engine reserves this amount in its memory budget before it opens the content, and passes what it reserved as
    /// [`UploadContext::buffer_limit`].
    fn buffer_size(&self, length: Option<u64>) -> u64 {
        length.map_or(DEFAULT_BUFFER_SIZE, |length| length.min(DEFAULT_BUFFER_SIZE))
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

    /// The limits on appends to a log. Default: [`AppendLimits::default`].
    fn append_limits(&self) -> AppendLimits {
        AppendLimits::default()
    }
}

/// The result of a successful [`BlobSink::put`] or [`BlobSink::copy_from`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PutResult {
    /// The blob's length in bytes.
    pub size: u64,
    /// The destination's entity tag of this version of the blob, if it has one.
    pub etag: Option<String>,
}

impl PutResult {
    /// Creates a result for a blob of `size` bytes, without an entity tag.
    pub fn new(size: u64) -> Self {
        Self { size, etag: None }
    }

    /// Sets the entity tag.
    #[must_use]
    pub fn with_etag(mut self, etag: impl Into<String>) -> Self {
        self.etag = Some(etag.into());
        self
    }
}

/// A destination's limits on appends to one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct AppendLimits {
    /// The maximum number of bytes that one request appends. The sink splits longer lines into several requests. Default:
    /// 4 MiB.
    pub max_bytes: u64,
    /// The maximum number of requests that append to one log; `None`, the default, if there is none. The engine makes
    /// appends less frequent as the number grows.
    pub max_appends: Option<u32>,
}

impl Default for AppendLimits {
    fn default() -> Self {
        Self { max_bytes: 4 << 20, max_appends: None }
    }
}

impl AppendLimits {
    /// Creates limits.
    pub fn new(max_bytes: u64, max_appends: Option<u32>) -> Self {
        Self { max_bytes, max_appends }
    }
}

/// The key of the lines that one [`BlobSink::append`] adds to a log: the run of the operation, and the first batch that the
/// lines belong to.
///
/// In a sink without a real append, appending with the same key replaces the lines that were appended with it before. A
/// runner that has lost its lease and does not know it yet uses the keys of an earlier run, so it cannot replace the lines
/// of its successor. The keys of an operation sort by run, then by batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogKey {
    run: u64,
    batch: u64,
}

impl LogKey {
    /// Creates the key of the lines of `batch` and of the batches after it, up to the next key. Each start and each
    /// resumption of an operation has a higher `run` than the ones before.
    pub fn new(run: u64, batch: u64) -> Self {
        Self { run, batch }
    }

    /// The run of the operation.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// The first batch of the lines.
    pub fn batch(&self) -> u64 {
        self.batch
    }
}

impl fmt::Display for LogKey {
    /// Writes `<run>-<batch>` with twenty digits each, so that keys sort as text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{:020}", self.run, self.batch)
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

            fn append_limits(&self) -> AppendLimits {
                (**self).append_limits()
            }
        }
    };
}

delegate!(Arc);
delegate!(Box);
