//! [`Upload`]: a multipart upload that is completed or aborted.

use std::time::Duration;

use ::object_store::retry::{RetryContext, RetryPolicy};
use ::object_store::{Error as StoreError, MultipartUpload, UploadPart};
use async_trait::async_trait;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::runtime::Handle;
use tokio::time::sleep;
use tracing::Instrument;

use super::error::store_error;
use crate::content::{Chunk, ChunkReader};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Failures, UploadContext};
use crate::object_store_error::failure_kind;

/// The minimum size of a part except the last: S3's limit.
const MIN_PART_SIZE: u64 = 5 << 20;

/// The maximum number of parts of an upload: S3's limit, the lowest of the supported stores.
const MAX_PARTS: u64 = 10_000;

/// How often an abort is tried, and the first of the pauses between the attempts, which double.
const MAX_ABORT_ATTEMPTS: usize = 6;
const MIN_ABORT_BACKOFF: Duration = Duration::from_secs(1);

/// How many parts one `put` holds in memory: one that is being read, the others in flight.
pub(super) const PARTS_IN_MEMORY: u64 = 4;

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
    inner: Option<Box<dyn MultipartUpload>>,
}

impl Upload {
    pub(super) fn new(upload: Box<dyn MultipartUpload>) -> Self {
        Self { inner: Some(upload) }
    }

    /// Sends the parts of a content, as many at once as fit into the context's buffer limit, and returns the content's size.
    pub(super) async fn send(
        &mut self,
        first: Chunk,
        mut chunks: ChunkReader,
        mut sizes: PartSizes,
        context: &UploadContext,
    ) -> Result<u64> {
        let upload = self.inner()?;
        let sent = |outcome: Result<(), StoreError>| {
            outcome.inspect(|()| context.request_succeeded()).map_err(store_error)
        };
        let mut in_flight: FuturesUnordered<UploadPart> = FuturesUnordered::new();
        let mut length = first.len;
        let mut chunk = first;
        loop {
            let is_last = chunk.is_last;
            if chunk.len > 0 {
                in_flight.push(upload.put_part(chunk.parts.into_iter().collect()));
            }
            if is_last {
                break;
            }
            let size = sizes.next_size();
            // One part of the buffer is for the chunk that is read next.
            let max_in_flight = (context.buffer_limit() / size).saturating_sub(1).max(1) as usize;
            while in_flight.len() >= max_in_flight {
                in_flight.next().await.map_or(Ok(()), &sent)?;
            }
            let read = chunks.next(size);
            tokio::pin!(read);
            // Parts make progress while the next chunk is read.
            chunk = loop {
                tokio::select! {
                    read = &mut read => break read?,
                    Some(outcome) = in_flight.next() => sent(outcome)?,
                }
            };
            length += chunk.len;
        }
        while let Some(outcome) = in_flight.next().await {
            sent(outcome)?;
        }
        Ok(length)
    }

    /// Makes the object visible.
    pub(super) async fn complete(&mut self) -> Result<::object_store::PutResult> {
        let result = self.inner()?.complete().await.map_err(store_error)?;
        self.inner = None;
        Ok(result)
    }

    /// Aborts the upload. If that fails, dropping the upload tries again in the background.
    pub(super) async fn abort(mut self) {
        if let Ok(upload) = self.inner()
            && try_abort(&mut **upload).await.is_ok()
        {
            self.inner = None;
        }
    }

    fn inner(&mut self) -> Result<&mut Box<dyn MultipartUpload>> {
        self.inner.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "the upload has ended"))
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // Without a runtime, the store's lifecycle rule has to delete the parts.
        if let (Some(upload), Ok(runtime)) = (self.inner.take(), Handle::try_current()) {
            runtime.spawn(abort_with_retries(upload).in_current_span());
        }
    }
}

async fn abort_with_retries(mut upload: Box<dyn MultipartUpload>) {
    let mut backoff = MIN_ABORT_BACKOFF;
    for _ in 1..MAX_ABORT_ATTEMPTS {
        if try_abort(&mut *upload).await.is_ok() {
            return;
        }
        sleep(backoff).await;
        backoff *= 2;
    }
    if let Err(error) = try_abort(&mut *upload).await {
        tracing::warn!(kind = error.kind().as_str(), "a multipart upload could not be aborted");
    }
}

async fn try_abort(upload: &mut dyn MultipartUpload) -> Result<()> {
    match upload.abort().await {
        // It was completed or aborted before.
        Err(StoreError::NotFound { .. }) => Ok(()),
        outcome => outcome.map_err(store_error),
    }
}
