//! [`Upload`]: a multipart upload that is completed or aborted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::object_store::multipart::{MultipartStore, PartId};
use ::object_store::path::Path;
use ::object_store::retry::{RetryContext, RetryPolicy};
use ::object_store::{Error as StoreError, MultipartId, MultipartUpload, PutPayload};
use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::error::store_error;
use crate::content::{Chunk, ChunkReader};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Failures, UploadContext};
use crate::object_store_error::failure_kind;
use crate::sync::panicked;

/// The minimum size of a part except the last: S3's limit.
const MIN_PART_SIZE: u64 = 5 << 20;

/// The maximum number of parts of an upload: S3's limit, the lowest of the supported stores.
const MAX_PARTS: u64 = 10_000;

/// How often an abort is tried, and the first of the pauses between the attempts, which double.
const MAX_ABORT_ATTEMPTS: usize = 6;
const MIN_ABORT_BACKOFF: Duration = Duration::from_secs(1);

/// How many parts one `put` holds in memory: one that is being read, the others in flight.
const PARTS_IN_MEMORY: u64 = 8;

/// The same for a content of unknown length, which may be small.
const PARTS_OF_UNKNOWN_LENGTH: u64 = 4;

/// How many bytes a put of this length buffers.
pub(super) fn buffer_size(length: Option<u64>) -> u64 {
    let size = PartSizes::new(length).next_size();
    length.map_or(PARTS_OF_UNKNOWN_LENGTH * size, |length| length.min(PARTS_IN_MEMORY * size))
}

/// The sizes of the parts of an upload.
pub(super) struct PartSizes {
    size: u64,
    /// The number of parts of this size so far.
    count: u64,
    /// Without a known length, the size doubles from time to time, so that any length fits into [`MAX_PARTS`].
    grows: bool,
}

impl PartSizes {
    pub(super) fn new(length: Option<u64>) -> Self {
        let size = length.map_or(MIN_PART_SIZE, |length| length.div_ceil(MAX_PARTS).max(MIN_PART_SIZE));
        Self { size, count: 0, grows: length.is_none() }
    }

    pub(super) fn next_size(&mut self) -> u64 {
        if self.grows && self.count == MAX_PARTS / 10 {
            (self.size, self.count) = (self.size * 2, 0);
        }
        self.count += 1;
        self.size
    }
}

/// Retries the parts of an upload within the retry budget of its context, because a caller cannot repeat a part.
#[derive(Debug)]
pub(super) struct PartRetry(pub(super) UploadContext);

#[async_trait]
impl RetryPolicy for PartRetry {
    async fn retry(&self, context: RetryContext) -> bool {
        let error = Error::new(failure_kind(context.failure), "a part of an upload failed");
        self.0.wait_before_retry(Failures::counted(context.attempt, context.elapsed), &error).await
    }
}

/// A multipart upload. It is aborted if it is dropped before it is completed, because its parts would otherwise remain at
/// the store, invisible, and cost money.
pub(super) struct Upload {
    /// `None` once the upload is completed or aborted.
    inner: Option<Inner>,
    /// The parts that were sent with a [`MultipartStore`], by their numbers.
    sent: BTreeMap<usize, PartId>,
}

/// The interface through which an upload is sent.
enum Inner {
    /// That of all stores, which retries parts itself.
    Upload(Box<dyn MultipartUpload>),
    /// That of stores whose parts are single requests.
    Parts { store: Arc<dyn MultipartStore>, path: Path, id: MultipartId },
}

/// A part in flight.
type SentPart = BoxFuture<'static, Result<Option<(usize, PartId)>>>;

impl Upload {
    pub(super) fn new(upload: Box<dyn MultipartUpload>) -> Self {
        Self { inner: Some(Inner::Upload(upload)), sent: BTreeMap::new() }
    }

    pub(super) fn of_parts(store: Arc<dyn MultipartStore>, path: Path, id: MultipartId) -> Self {
        Self { inner: Some(Inner::Parts { store, path, id }), sent: BTreeMap::new() }
    }

    /// Sends the parts of a content, as many at once as fit into the context's buffer limit, and returns the content's size.
    pub(super) async fn send(
        &mut self,
        first: Chunk,
        mut chunks: ChunkReader,
        mut sizes: PartSizes,
        context: &UploadContext,
    ) -> Result<u64> {
        let inner = self.inner.as_mut().ok_or_else(ended)?;
        let sent = &mut self.sent;
        let mut keep = |outcome: Result<Option<(usize, PartId)>>| outcome.map(|part| sent.extend(part));
        let mut in_flight: FuturesUnordered<SentPart> = FuturesUnordered::new();
        let mut length = first.len;
        let mut chunk = first;
        for number in 0.. {
            let is_last = chunk.is_last;
            if chunk.len > 0 {
                in_flight.push(inner.put_part(number, chunk.parts.into_iter().collect(), context));
            }
            if is_last {
                break;
            }
            let size = sizes.next_size();
            // One part of the buffer is for the chunk that is read next.
            let max_in_flight = (context.buffer_limit() / size).saturating_sub(1);
            while in_flight.len() as u64 > max_in_flight {
                in_flight.next().await.map_or(Ok(()), &mut keep)?;
            }
            let read = chunks.next(size);
            tokio::pin!(read);
            // Parts make progress while the next chunk is read.
            chunk = loop {
                tokio::select! {
                    read = &mut read => break read?,
                    Some(outcome) = in_flight.next() => keep(outcome)?,
                }
            };
            length += chunk.len;
        }
        while let Some(outcome) = in_flight.next().await {
            keep(outcome)?;
        }
        Ok(length)
    }

    /// Makes the object visible.
    pub(super) async fn complete(&mut self, context: &UploadContext) -> Result<::object_store::PutResult> {
        let result = match self.inner.as_mut().ok_or_else(ended)? {
            Inner::Upload(upload) => upload.complete().await.map_err(store_error)?,
            Inner::Parts { store, path, id } => {
                let parts: Vec<_> = self.sent.values().cloned().collect();
                let complete =
                    async || unless_missing(store.complete_multipart(path, id, parts.clone()).await);
                context.send_with_retry(complete).await??
            }
        };
        self.inner = None;
        Ok(result)
    }

    /// Aborts the upload. If that fails, dropping the upload tries again in the background.
    pub(super) async fn abort(mut self) {
        if let Some(inner) = &mut self.inner
            && inner.abort().await.is_ok()
        {
            self.inner = None;
        }
    }
}

impl Inner {
    /// Sends a part, in a task of its own, so that the parts of an upload are hashed on several processors. The numbers begin
    /// with 0.
    fn put_part(&mut self, number: usize, data: PutPayload, context: &UploadContext) -> SentPart {
        let context = context.clone();
        let sent: SentPart = match self {
            Self::Upload(upload) => {
                let put = upload.put_part(data);
                Box::pin(async move {
                    put.await.map_err(store_error)?;
                    context.request_succeeded();
                    Ok(None)
                })
            }
            Self::Parts { store, path, id } => {
                let (store, path, id) = (Arc::clone(store), path.clone(), id.clone());
                Box::pin(async move {
                    let put = async || unless_missing(store.put_part(&path, &id, number, data.clone()).await);
                    let part = context.send_with_retry(put).await??;
                    Ok(Some((number, part)))
                })
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(sent.in_current_span()));
        Box::pin(async move { task.await.unwrap_or_else(|cause| Err(panicked(cause))) })
    }

    async fn abort(&mut self) -> Result<()> {
        let aborted = match self {
            Self::Upload(upload) => upload.abort().await,
            Self::Parts { store, path, id } => store.abort_multipart(path, id).await,
        };
        match aborted {
            // It was completed or aborted before.
            Err(StoreError::NotFound { .. }) => Ok(()),
            outcome => outcome.map_err(store_error),
        }
    }
}

/// Converts the outcome of a request for an upload. An upload that does not exist any more was aborted, or was completed by a
/// request whose response was lost. Repeating the request does not help, so this error ends its retries. The engine puts the
/// instance again.
fn unless_missing<T>(outcome: Result<T, StoreError>) -> Result<Result<T>> {
    match outcome {
        Ok(value) => Ok(Ok(value)),
        Err(StoreError::NotFound { .. }) => {
            Ok(Err(Error::new(ErrorKind::Unavailable, "the multipart upload does not exist any more")))
        }
        Err(cause) => Err(store_error(cause)),
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Internal, "the upload has ended")
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Without a runtime, the store's lifecycle rule has to delete the parts.
        if let (Some(upload), Ok(runtime)) = (self.inner.take(), Handle::try_current()) {
            runtime.spawn(abort_with_retries(upload).in_current_span());
        }
    }
}

async fn abort_with_retries(mut upload: Inner) {
    let mut backoff = MIN_ABORT_BACKOFF;
    for _ in 1..MAX_ABORT_ATTEMPTS {
        if upload.abort().await.is_ok() {
            return;
        }
        sleep(backoff).await;
        backoff *= 2;
    }
    if let Err(error) = upload.abort().await {
        tracing::warn!(kind = error.kind().as_str(), "a multipart upload could not be aborted");
    }
}
