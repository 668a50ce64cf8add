//! [`ObjectStoreSink`]: any store of the crate `object_store` as a container.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::object_store::path::Path;
use ::object_store::{
    Attribute, Attributes, Error as StoreError, MultipartUpload, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, UploadPart,
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::TryStreamExt;
use futures::stream::{self, FuturesUnordered};

use crate::content::{Chunk, ChunkReader, Content};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{RetryPolicy, UploadContext};
use crate::model::BlobPath;
use crate::sink::{BlobSink, LogKey, PutResult};

/// The least part of an upload in parts, but for its last: S3 takes none below 5 MiB.
const LEAST_PART: u64 = 5 << 20;

/// The most parts of an upload: S3's limit, the lowest there is.
const MOST_PARTS: u64 = 10_000;

/// How many parts one `put` holds: one that is being read, the others on their way.
const PARTS_HELD: u64 = 4;

const DICOM: &str = "application/dicom";
const LINES: &str = "application/x-ndjson";

/// Any [`ObjectStore`] as a destination, optionally below a prefix.
///
/// An instance up to 5 MiB is put in one request, a larger one in parts of 5 MiB or more, three on their way at once.
/// The first is repeated by the engine; a part cannot be, so the store's own retrying should be left on for those, and
/// past it the engine puts the whole instance again. Parts of an upload that was dropped may linger, invisible: a
/// bucket's lifecycle rule takes them away.
///
/// These stores have no append, so the log is kept in parts, `errors.log.parts/<number>` beside it, which joining it at
/// the end takes away. Until then `errors.log` holds nothing, or what it held when the operation was resumed. Joining
/// needs permission to list, read and delete; everything else only to write.
#[derive(Clone)]
pub struct ObjectStoreSink {
    store: Arc<dyn ObjectStore>,
    prefix: Option<Path>,
    /// Without a `/` at its end.
    url: Arc<str>,
    /// The store takes no content type.
    is_plain: Arc<AtomicBool>,
}

impl ObjectStoreSink {
    /// A store, with the URL of its root: what [`BlobSink::url`] begins with, and the name of its
    /// [account](BlobSink::location). A query, a fragment and a user in it are dropped, since those can be credentials.
    pub fn new(store: Arc<dyn ObjectStore>, url: &str) -> Self {
        let url = without_credentials(url).into();
        Self { store, prefix: None, url, is_plain: Arc::default() }
    }

    /// Everything goes below this prefix, `a/b` say.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when it holds anything but letters, digits and `-._~/` (RFC 3986 2.3), or an
    /// empty part, `.` or `..`.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        let parsed = Path::parse(prefix).ok().filter(|_| prefix.bytes().all(is_plain));
        let Some(path) = parsed else {
            return Err(Error::new(ErrorKind::Invalid, "the prefix holds a part that cannot stand in a URL"));
        };
        self.prefix = (!path.is_root()).then_some(path);
        Ok(self)
    }

    fn path(&self, blob: &str) -> Path {
        // Both hold plain characters only.
        self.prefix.iter().flat_map(Path::parts).chain(blob.split('/').map(Into::into)).collect()
    }

    fn parts_of(&self, log: &BlobPath) -> Path {
        self.path(&format!("{log}.parts"))
    }

    fn attributes(&self, content_type: &'static str) -> Attributes {
        match self.is_plain.load(Ordering::Relaxed) {
            true => Attributes::new(),
            false => Attributes::from_iter([(Attribute::ContentType, content_type)]),
        }
    }

    /// Whether a call failed for the content type that was given to it, and is to be made again without.
    fn is_about_attributes(&self, given: &Attributes, error: &StoreError) -> bool {
        let is = !given.is_empty()
            && matches!(error, StoreError::NotImplemented { .. } | StoreError::NotSupported { .. });
        if is {
            self.is_plain.store(true, Ordering::Relaxed);
        }
        is
    }

    async fn put_whole(
        &self,
        path: &Path,
        payload: PutPayload,
        content_type: &'static str,
    ) -> Result<object_store::PutResult> {
        loop {
            let attributes = self.attributes(content_type);
            let options = PutOptions { attributes: attributes.clone(), ..PutOptions::default() };
            match self.store.put_opts(path, payload.clone(), options).await {
                Err(error) if self.is_about_attributes(&attributes, &error) => {}
                outcome => return outcome.map_err(store_error),
            }
        }
    }

    async fn begin_parts(&self, path: &Path, content_type: &'static str) -> Result<Box<dyn MultipartUpload>> {
        loop {
            let attributes = self.attributes(content_type);
            let options =
                PutMultipartOptions { attributes: attributes.clone(), ..PutMultipartOptions::default() };
            match self.store.put_multipart_opts(path, options).await {
                Err(error) if self.is_about_attributes(&attributes, &error) => {}
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
        let mut plan = Plan::new(content.length());
        let mut chunks = ChunkReader::new(content);
        let first = chunks.next(plan.next_part()).await?;
        if first.is_last {
            let size = first.len;
            let put = || self.put_whole(path, first.parts.iter().cloned().collect(), content_type);
            return Ok(stored(size, upload.send_with_retry(put).await?));
        }
        let mut parts = upload.send_with_retry(|| self.begin_parts(path, content_type)).await?;
        let sent = send_parts(&mut *parts, first, chunks, plan, upload.buffer_limit()).await;
        let completed = match sent {
            Ok(size) => parts.complete().await.map(|result| stored(size, result)).map_err(store_error),
            Err(error) => Err(error),
        };
        if completed.is_err() {
            // What stays is invisible; why it failed is what counts.
            let _ = parts.abort().await;
        }
        completed
    }
}

impl fmt::Debug for ObjectStoreSink {
    /// Without the store: some print their keys.
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
            let attributes = self.attributes(LINES);
            let options =
                PutOptions { mode: PutMode::Create, attributes: attributes.clone(), ..PutOptions::default() };
            let refused = match self.store.put_opts(&path, PutPayload::new(), options).await {
                Ok(_) | Err(StoreError::AlreadyExists { .. }) => return Ok(()),
                Err(error) if self.is_about_attributes(&attributes, &error) => continue,
                Err(error) => error,
            };
            // Some stores cannot create and not replace: then what is there is looked at first.
            return match refused {
                StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => {
                    match self.store.head(&path).await {
                        Ok(_) => Ok(()),
                        Err(StoreError::NotFound { .. }) => {
                            self.put_whole(&path, PutPayload::new(), LINES).await.map(|_| ())
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
        self.put_whole(&part, lines.into(), LINES).await.map(|_| ())
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        let parts = self.store.list(Some(&self.parts_of(log))).map_ok(|part| part.location);
        let mut parts: Vec<Path> = parts.try_collect().await.map_err(store_error)?;
        if parts.is_empty() {
            return Ok(());
        }
        // By number: they have the same number of digits.
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
            async move { Ok(store.get(&part).await.map_err(store_error)?.into_stream().map_err(store_error)) }
        });
        let joined = Content::from_stream(None, earlier.chain(later.try_flatten()));
        let upload = UploadContext::new(self.buffer_size(None), RetryPolicy::none(), 1);
        self.write(&path, joined, LINES, &upload).await?;
        // Only now: after a failure before this, the next call joins them, some perhaps for the second time.
        let gone = self.store.delete_stream(stream::iter(parts.into_iter().map(Ok)).boxed());
        gone.try_for_each(|_| async { Ok(()) }).await.or_else(|error| match error {
            StoreError::NotFound { .. } => Ok(()),
            error => Err(store_error(error)),
        })
    }

    fn url(&self, path: &BlobPath) -> String {
        format!("{}/{}", self.url, self.path(path.as_str()))
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        let most = Plan::new(length).next_part() * PARTS_HELD;
        length.map_or(most, |length| length.min(most))
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

/// Sends a content's parts, as many at once as the window holds, and gives its size.
async fn send_parts(
    parts: &mut dyn MultipartUpload,
    first: Chunk,
    mut chunks: ChunkReader,
    mut plan: Plan,
    window: u64,
) -> Result<u64> {
    let mut sending: FuturesUnordered<UploadPart> = FuturesUnordered::new();
    let mut size = first.len;
    let mut chunk = first;
    loop {
        let is_last = chunk.is_last;
        if chunk.len > 0 {
            sending.push(parts.put_part(chunk.parts.into_iter().collect()));
        }
        if is_last {
            break;
        }
        let part = plan.next_part();
        // One part's room is for the one that is read next.
        let most = (window / part).saturating_sub(1).max(1) as usize;
        while sending.len() >= most {
            sending.next().await.transpose().map_err(store_error)?;
        }
        let read = chunks.next(part);
        tokio::pin!(read);
        // Those on their way go on while the next is read.
        chunk = loop {
            tokio::select! {
                read = &mut read => break read?,
                Some(sent) = sending.next() => sent.map_err(store_error)?,
            }
        };
        size += chunk.len;
    }
    sending.try_for_each(|()| async { Ok(()) }).await.map_err(store_error)?;
    Ok(size)
}

/// How large an upload's parts are.
struct Plan {
    part: u64,
    /// How many have been planned at that size; without a length they grow, so that any size fits.
    planned: u64,
    grows: bool,
}

impl Plan {
    fn new(length: Option<u64>) -> Self {
        let part = length.map_or(LEAST_PART, |length| length.div_ceil(MOST_PARTS).max(LEAST_PART));
        Self { part, planned: 0, grows: length.is_none() }
    }

    /// The size of the next part.
    fn next_part(&mut self) -> u64 {
        if self.grows && self.planned == MOST_PARTS / 10 {
            (self.part, self.planned) = (self.part * 2, 0);
        }
        self.planned += 1;
        self.part
    }
}

fn stored(size: u64, result: object_store::PutResult) -> PutResult {
    let stored = PutResult::new(size);
    match result.e_tag {
        Some(etag) => stored.with_etag(etag),
        None => stored,
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

/// What the store's error says; its text stays beneath, since it can hold URLs and answers.
fn store_error(cause: StoreError) -> Error {
    let (kind, message) = match &cause {
        StoreError::NotFound { .. } => (ErrorKind::NotFound, "the destination is not there"),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            (ErrorKind::Unauthorized, "the destination refuses the credential")
        }
        StoreError::AlreadyExists { .. }
        | StoreError::Precondition { .. }
        | StoreError::NotModified { .. } => {
            (ErrorKind::Conflict, "the destination's state does not allow it")
        }
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => {
            (ErrorKind::Unsupported, "the destination cannot do that")
        }
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => {
            (ErrorKind::Invalid, "the destination's settings are wrong")
        }
        StoreError::JoinError { .. } => (ErrorKind::Internal, "a thread of the destination's store stopped"),
        // The store's own retrying is over, if it was on.
        _ => (ErrorKind::Unavailable, "the destination failed or does not answer"),
    };
    Error::new(kind, message).with_source(cause)
}
