//! [`ObjectStoreSink`]: any store of the `object_store` crate as a container.

mod multipart;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::object_store::path::Path;
use ::object_store::{
    Attribute, Attributes, Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use self::multipart::{PARTS_IN_MEMORY, PartSizes, send_parts};
use crate::content::{ChunkReader, Content};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{RetryPolicy, UploadContext};
use crate::model::BlobPath;
use crate::sink::{BlobSink, LogKey, PutResult};

const DICOM: &str = "application/dicom";
const JSON_LINES: &str = "application/x-ndjson";

/// Any [`ObjectStore`] as a destination, optionally below a prefix.
///
/// An instance of up to 5 MiB is written with one request, a larger one as a multipart upload with parts of at least
/// 5 MiB, three of them in flight at once.
///
/// These stores cannot append, so the sink writes each part of a log as an object of its own,
/// `errors.log.parts/<number>`, and joins them when a run of the operation ends. Until then `errors.log` is empty, or holds
/// the lines of earlier runs. Joining requires permission to list, read and delete; everything else only requires
/// permission to write.
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
/// let sink: Arc<dyn BlobSink> = Arc::new(sink);
/// let operation = engine.start(NewOperation::new(ExportSource::Everything, sink)).await?;
/// assert_eq!(engine.wait(operation.operation_id).await?.results.exported, 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ObjectStoreSink {
    store: Arc<dyn ObjectStore>,
    prefix: Option<Path>,
    /// Without a trailing `/`.
    url: Arc<str>,
    /// Whether the store has refused content types.
    without_content_types: Arc<AtomicBool>,
}

impl ObjectStoreSink {
    /// Creates a sink for `store`. `url` is the URL of the store's root, which [`BlobSink::url`] and
    /// [`BlobSink::location`] begin with. Its query, fragment and user information are removed, because they can be
    /// credentials.
    pub fn new(store: Arc<dyn ObjectStore>, url: &str) -> Self {
        let url = without_credentials(url).into();
        Self { store, prefix: None, url, without_content_types: Arc::default() }
    }

    /// Writes everything below this prefix, for example `a/b`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if the prefix contains other characters than letters, digits and `-._~/`
    /// (RFC 3986 2.3), or an empty segment, `.` or `..`.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        let parsed = Path::parse(prefix).ok().filter(|_| prefix.bytes().all(is_allowed));
        let Some(path) = parsed else {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the prefix contains a character or a segment that is not allowed",
            ));
        };
        self.prefix = (!path.is_root()).then_some(path);
        Ok(self)
    }

    fn path(&self, blob: &str) -> Path {
        // Neither contains a character that needs escaping.
        self.prefix.iter().flat_map(Path::parts).chain(blob.split('/').map(Into::into)).collect()
    }

    fn parts_of(&self, log: &BlobPath) -> Path {
        self.path(&format!("{log}.parts"))
    }

    fn attributes(&self, content_type: &'static str) -> Attributes {
        match self.without_content_types.load(Ordering::Relaxed) {
            true => Attributes::new(),
            false => Attributes::from_iter([(Attribute::ContentType, content_type)]),
        }
    }

    /// Whether a call failed because of these attributes, and must be repeated without attributes.
    fn refuses_attributes(&self, attributes: &Attributes, error: &StoreError) -> bool {
        let refuses = !attributes.is_empty()
            && matches!(error, StoreError::NotImplemented { .. } | StoreError::NotSupported { .. });
        if refuses {
            self.without_content_types.store(true, Ordering::Relaxed);
        }
        refuses
    }

    async fn put_object(
        &self,
        path: &Path,
        payload: PutPayload,
        content_type: &'static str,
    ) -> Result<object_store::PutResult> {
        loop {
            let attributes = self.attributes(content_type);
            let options = PutOptions { attributes: attributes.clone(), ..PutOptions::default() };
            match self.store.put_opts(path, payload.clone(), options).await {
                Err(error) if self.refuses_attributes(&attributes, &error) => {}
                outcome => return outcome.map_err(store_error),
            }
        }
    }

    async fn create_upload(
        &self,
        path: &Path,
        content_type: &'static str,
    ) -> Result<Box<dyn MultipartUpload>> {
        loop {
            let attributes = self.attributes(content_type);
            let options =
                PutMultipartOptions { attributes: attributes.clone(), ..PutMultipartOptions::default() };
            match self.store.put_multipart_opts(path, options).await {
                Err(error) if self.refuses_attributes(&attributes, &error) => {}
                outcome => return outcome.map_err(store_error),
            }
        }
    }

    async fn write(
        &self,
        path: &Path,
        content: Content,
        content_type: &'static str,
        upload: &UploadContext,
    ) -> Result<PutResult> {
        let mut sizes = PartSizes::new(content.length());
        let mut chunks = ChunkReader::new(content);
        let first = chunks.next(sizes.next_size()).await?;
        if first.is_last {
            let size = first.len;
            let put = || self.put_object(path, first.parts.iter().cloned().collect(), content_type);
            return Ok(put_result(size, upload.send_with_retry(put).await?));
        }
        let mut parts = upload.send_with_retry(|| self.create_upload(path, content_type)).await?;
        let sent = send_parts(&mut *parts, first, chunks, sizes, upload.buffer_limit()).await;
        let completed = match sent {
            Ok(size) => parts.complete().await.map(|result| put_result(size, result)).map_err(store_error),
            Err(error) => Err(error),
        };
        if completed.is_err() {
            // A failed abort must not hide the cause.
            let _ = parts.abort().await;
        }
        completed
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
        let path = self.path(log.as_str());
        loop {
            let attributes = self.attributes(JSON_LINES);
            let options =
                PutOptions { mode: PutMode::Create, attributes: attributes.clone(), ..PutOptions::default() };
            let refused = match self.store.put_opts(&path, PutPayload::new(), options).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => return Ok(()),
                Err(error) if self.refuses_attributes(&attributes, &error) => continue,
                Err(error) => error,
            };
            // A store without conditional writes: check whether the log exists first.
            return match refused {
                StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
                    match self.store.head(&path).await {
                        Ok(_) => Ok(()),
                        Err(StoreError::NotFound { .. }) => {
                            self.put_object(&path, PutPayload::new(), JSON_LINES).await.map(|_| ())
                        }
                        Err(error) => Err(store_error(error)),
                    }
                }
                error => Err(store_error(error)),
            };
        }
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        self.write(&self.path(path.as_str()), content, DICOM, upload).await
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        let part = self.parts_of(log).join(key.to_string());
        self.put_object(&part, lines.into(), JSON_LINES).await.map(|_| ())
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        let parts = self.store.list(Some(&self.parts_of(log))).map_ok(|part| part.location);
        let mut parts: Vec<Path> = parts.try_collect().await.map_err(store_error)?;
        if parts.is_empty() {
            return Ok(());
        }
        // By number: all numbers have the same number of digits.
        parts.sort_unstable();
        let path = self.path(log.as_str());
        let earlier = match self.store.get(&path).await {
            Ok(earlier) => earlier.into_stream().map_err(store_error).boxed(),
            Err(StoreError::NotFound { .. }) => stream::empty().boxed(),
            Err(error) => return Err(store_error(error)),
        };
        let store = Arc::clone(&self.store);
        let later = stream::iter(parts.clone()).then(move |part| {
            let store = Arc::clone(&store);
            async move {
                Ok::<_, Error>(
                    store.get(&part).await.map_err(store_error)?.into_stream().map_err(store_error),
                )
            }
        });
        let joined = Content::from_stream(None, earlier.chain(later.try_flatten()));
        let upload = UploadContext::new(self.buffer_size(None), RetryPolicy::none(), 1);
        self.write(&path, joined, JSON_LINES, &upload).await?;
        // Deleted last: after a failure before this line, the next call joins them, possibly for the second time.
        let deleted = self.store.delete_stream(stream::iter(parts.into_iter().map(Ok)).boxed());
        deleted.try_for_each(|_| async { Ok(()) }).await.or_else(|error| match error {
            StoreError::NotFound { .. } => Ok(()),
            error => Err(store_error(error)),
        })
    }

    fn url(&self, path: &BlobPath) -> String {
        format!("{}/{}", self.url, self.path(path.as_str()))
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        let max = PartSizes::new(length).next_size() * PARTS_IN_MEMORY;
        length.map_or(max, |length| length.min(max))
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

fn put_result(size: u64, stored: object_store::PutResult) -> PutResult {
    let result = PutResult::new(size);
    match stored.e_tag {
        Some(etag) => result.with_etag(etag),
        None => result,
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

/// Converts a store's error. Its text, which can hold URLs and responses, is the source of the converted error.
fn store_error(cause: StoreError) -> Error {
    let (kind, message) = match &cause {
        StoreError::NotFound { .. } => (ErrorKind::NotFound, "the destination does not exist"),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            (ErrorKind::Unauthorized, "the destination refuses the credential")
        }
        StoreError::AlreadyExists { .. }
        | StoreError::Precondition { .. }
        | StoreError::NotModified { .. } => {
            (ErrorKind::Conflict, "the destination's state does not allow the request")
        }
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            (ErrorKind::Unsupported, "the destination does not support the request")
        }
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            (ErrorKind::Invalid, "the destination's settings are invalid")
        }
        StoreError::JoinError { .. } => (ErrorKind::Internal, "an internal task of the object store failed"),
        _ => (ErrorKind::Unavailable, "the destination failed or does not respond"),
    };
    Error::new(kind, message).with_source(cause)
}
