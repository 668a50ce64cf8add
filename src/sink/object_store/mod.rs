//! [`ObjectStoreSink`]: any store of the `object_store` crate as a container.

mod error;
mod log;
mod multipart;
mod objects;
mod provider;

use std::fmt;
use std::sync::Arc;

use ::object_store::ObjectStore;
use ::object_store::multipart::MultipartStore;
use ::object_store::path::Path;
use async_trait::async_trait;
use bytes::Bytes;

use self::log::LogParts;
#[cfg(any(feature = "gcs", feature = "s3"))]
use self::objects::ListUploads;
use self::objects::{Expected, Kind, Objects};
pub use self::provider::ObjectStoreProvider;
use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{RetryPolicy, UploadContext};
use crate::model::BlobPath;
use crate::object_store_prefix::parse_prefix;
use crate::sink::{BlobSink, LogKey, PutResult};

/// Any [`ObjectStore`] as a destination, optionally below a prefix.
///
/// An instance of up to 5 MiB is written with one request, a larger one as a multipart upload with parts of at least
/// 5 MiB, seven of them in flight at once, or three if the length is unknown. With [`with_multipart_store`](Self::with_multipart_store), each part waits for its turn
/// among all requests to the destination, and is retried on its own.
///
/// These stores cannot append, so the sink writes each part of a log as an object of its own,
/// `errors.log.parts/<run>-<batch>`, and joins them in this order when a run of the operation ends. Until then `errors.log`
/// is empty, or holds the lines of earlier runs. Joining requires permission to list, read and delete, which is checked when an
/// operation is prepared.
///
/// A multipart upload whose `put` fails or is dropped is aborted. A process that is killed leaves its uploads at the store,
/// where their parts are invisible but cost money. On S3, the sinks of `sink::s3` abort them when the operation is resumed and
/// when a run ends. `object_store` cannot list the uploads of other stores: give the bucket a lifecycle rule that aborts
/// incomplete multipart uploads after a day or more.
///
/// Disable the store's own retries. The engine retries requests within its budget, and it can only adapt its concurrency to
/// a destination whose failures it sees.
///
/// ```no_run
/// use std::sync::Arc;
/// use dicom_export::ObjectStoreSink;
/// use dicom_export::object_store::RetryConfig;
/// use dicom_export::object_store::aws::AmazonS3Builder;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let without_retries = RetryConfig { max_retries: 0, ..RetryConfig::default() };
/// let bucket = AmazonS3Builder::from_env().with_bucket_name("trial7").with_retry(without_retries).build()?;
/// let sink = ObjectStoreSink::new(Arc::new(bucket), "https://trial7.s3.amazonaws.com");
/// # Ok(()) }
/// ```
///
/// A store in memory:
///
/// ```
/// use std::sync::Arc;
/// use dicom_export::object_store::memory::InMemory;
/// use dicom_export::{BlobSink, ExportEngine, ExportSource, MemorySource, NewOperation, ObjectStoreSink};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
/// let source = MemorySource::new();
/// source.insert("1.2.3/4.5/6.7".parse()?, &b"the bytes of a DICOM file"[..]);
/// let bucket = Arc::new(InMemory::new());
/// let sink = ObjectStoreSink::new(bucket, "https://bucket.example").with_prefix("exports")?;
/// assert_eq!(sink.location(), "https://bucket.example/exports");
///
/// let engine = ExportEngine::builder(source).build()?;
/// let operation = engine.start(NewOperation::new(ExportSource::Everything, sink)).await?;
/// assert_eq!(engine.wait(operation.operation_id).await?.results.exported, 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ObjectStoreSink {
    objects: Objects,
    prefix: Option<Path>,
    /// Without a trailing `/`.
    url: Arc<str>,
}

impl ObjectStoreSink {
    /// Creates a sink for `store`. `url` is the URL of the store's root, which [`BlobSink::url`] and
    /// [`BlobSink::location`] begin with. Its query, fragment and user information are removed, because they can be
    /// credentials.
    pub fn new(store: Arc<dyn ObjectStore>, url: &str) -> Self {
        let url = without_credentials(url).into();
        Self { objects: Objects::new(store), prefix: None, url }
    }

    /// Writes everything below this prefix, for example `a/b`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the prefix contains other characters than letters, digits and `-._~/`
    /// (RFC 3986 2.3), or an empty segment, `.` or `..`.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self> {
        let Some(path) = parse_prefix(prefix) else {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the prefix contains a character or a segment that is not allowed",
            ));
        };
        self.prefix = (!path.is_root()).then_some(path);
        Ok(self)
    }

    /// Sends the parts of large instances through this interface of the store: usually it is the same store. Each part then
    /// waits for its turn among all requests to the destination, and is retried on its own.
    #[must_use]
    pub fn with_multipart_store(mut self, store: Arc<dyn MultipartStore>) -> Self {
        self.objects.parts = Some(store);
        self
    }

    /// Sets how the uploads of earlier runs are found.
    #[cfg(any(feature = "gcs", feature = "s3"))]
    pub(in crate::sink) fn with_upload_list(mut self, list: Arc<ListUploads>) -> Self {
        self.objects.list_uploads = Some(list);
        self
    }

    /// Sets the storage class of instances.
    #[cfg(feature = "s3")]
    pub(in crate::sink) fn with_storage_class(mut self, class: Option<String>) -> Self {
        self.objects.storage_class = class;
        self
    }

    fn path(&self, blob: &str) -> Path {
        // Neither contains a character that needs escaping.
        self.prefix.iter().flat_map(Path::parts).chain(blob.split('/').map(Into::into)).collect()
    }

    /// The folder of the operation of this log.
    fn operation(&self, log: &BlobPath) -> Path {
        self.path(log.as_str().split('/').next().unwrap_or_default())
    }

    fn log(&self, log: &BlobPath) -> LogParts {
        LogParts::new(&self.objects, self.path(log.as_str()), self.path(&format!("{log}.parts")))
    }
}

impl fmt::Debug for ObjectStoreSink {
    /// Omits the store, because some stores print their keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreSink")
            .field("url", &self.url)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobSink for ObjectStoreSink {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        let existed = self.log(log).create().await?;
        match existed {
            true => self.objects.abort_leftovers(&self.operation(log)).await,
            false => Ok(()),
        }
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        let path = self.path(path.as_str());
        self.objects.write(&path, content, Kind::Instance, &Expected::Anything, upload).await
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.log(log).append(key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        let upload = UploadContext::new(self.buffer_size(None), RetryPolicy::none(), 1);
        self.log(log).join(&upload).await?;
        // No upload of this run is left, except one whose creation was not confirmed or whose abort failed.
        self.objects.abort_leftovers(&self.operation(log)).await
    }

    fn url(&self, path: &BlobPath) -> String {
        format!("{}/{}", self.url, self.path(path.as_str()))
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        multipart::buffer_size(length)
    }

    fn location(&self) -> String {
        match &self.prefix {
            Some(prefix) => format!("{}/{prefix}", self.url),
            None => self.url.to_string(),
        }
    }

    fn throttle_key(&self) -> String {
        self.url.to_string()
    }
}

fn without_credentials(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let url = url[..end].trim_end_matches('/');
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}
