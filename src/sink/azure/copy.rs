//! Lets Azure fetch a blob itself: Put Block From URL for each range, then Put Block List.
//!
//! Put Blob From URL and Copy Blob From URL need a single request, but take over the content type of the source. This
//! sequence sets the content type, and works for every size.

use std::pin::pin;
use std::sync::atomic::AtomicBool;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::PutPayload;
use reqwest::header::{HeaderName, HeaderValue};

use super::client::BlobRequest;
use super::response::Response;
use super::writer::{BlobWriter, MAX_BLOCKS, MAX_PARALLEL_BLOCKS, MIB, Outcome, block_id};
use crate::content::CopySource;
use crate::error::Result;
use crate::sink::PutResult;

/// The size of a block, if 50,000 of them suffice. It is fetched in seconds and cheap to repeat.
const COPY_BLOCK_SIZE: u64 = 64 * MIB;

/// Azure's limit on the size of a block.
const MAX_COPY_BLOCK_SIZE: u64 = 4_000 * MIB;

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-ms-copy-source");
const SOURCE_RANGE: HeaderName = HeaderName::from_static("x-ms-source-range");
const SOURCE_IF_MATCH: HeaderName = HeaderName::from_static("x-ms-source-if-match");

/// The error code if Azure cannot read the source, for any reason. The status is that of the source.
const CANNOT_VERIFY_COPY_SOURCE: &str = "CannotVerifyCopySource";

/// Copies the blob; see [`BlobSink::copy_from`](crate::BlobSink::copy_from).
pub(super) async fn copy(writer: BlobWriter<'_>, source: &CopySource) -> Result<Option<PutResult>> {
    let length = source.length();
    if length == 0 {
        // An empty range cannot be requested.
        return writer.put_blob(PutPayload::new(), 0).await.map(Some);
    }
    let Some(source) = SourceHeaders::new(source) else { return Ok(None) };
    let block_size = COPY_BLOCK_SIZE.max(length.div_ceil(MAX_BLOCKS));
    if block_size > MAX_COPY_BLOCK_SIZE {
        return Ok(None);
    }
    let blocks = length.div_ceil(block_size);
    // Block ids are unique to this attempt, so that the blocks of another one are not committed.
    let attempt = fastrand::u64(..);
    let copies = stream::iter(0..blocks).map(|number| {
        let (start, end) = (number * block_size, length.min((number + 1) * block_size));
        put_block_from_url(writer, &source, block_id(attempt, number), start..end)
    });
    let copies = copies.buffer_unordered(MAX_PARALLEL_BLOCKS as usize);
    // The first block that is not copied ends the copy and drops the requests in progress.
    let mut exceptions = pin!(copies.try_filter(|copy| std::future::ready(*copy != BlockCopy::Done)));
    match exceptions.try_next().await? {
        Some(BlockCopy::AlreadyStored) => Ok(Some(PutResult::new(length))),
        Some(_) => Ok(None),
        None => writer.put_block_list(attempt, blocks, length).await.map(Some),
    }
}

/// The source's URL and ETag as header values.
struct SourceHeaders {
    url: HeaderValue,
    etag: Option<HeaderValue>,
}

impl SourceHeaders {
    /// Returns `None` if they are not valid in a header.
    fn new(source: &CopySource) -> Option<Self> {
        let mut url = HeaderValue::from_str(source.expose_url()).ok()?;
        url.set_sensitive(true);
        let etag = source.etag().map(HeaderValue::from_str).transpose().ok()?;
        Some(Self { url, etag })
    }
}

/// The outcome of Put Block From URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BlockCopy {
    Done,
    /// The operation stored the whole blob before.
    AlreadyStored,
    /// Azure does not copy this source.
    Refused,
}

/// Put Block From URL. A block's length needs no check if the source has an ETag, which
/// identifies a version of a known length.
async fn put_block_from_url(
    writer: BlobWriter<'_>,
    source: &SourceHeaders,
    id: String,
    range: std::ops::Range<u64>,
) -> Result<BlockCopy> {
    let query = format!("comp=block&blockid={id}");
    let bytes = format!("bytes={}-{}", range.start, range.end - 1);
    let request = || {
        let request = BlobRequest::put(writer.path, PutPayload::new())
            .query(query.as_str())
            .header(COPY_SOURCE, source.url.clone())
            .copying(range.end - range.start);
        let request = match HeaderValue::from_str(&bytes) {
            Ok(bytes) => request.header(SOURCE_RANGE, bytes),
            // Unreachable: the value is ASCII.
            Err(_) => request,
        };
        match &source.etag {
            Some(etag) => request.header(SOURCE_IF_MATCH, etag.clone()),
            None => request,
        }
    };
    writer
        .upload
        .send_with_retry(async || match writer.send(request(), None, &AtomicBool::new(false)).await? {
            Outcome::Done(_) => Ok(BlockCopy::Done),
            Outcome::AlreadyStored => Ok(BlockCopy::AlreadyStored),
            Outcome::Failed(response) if is_refusal(&response) => Ok(BlockCopy::Refused),
            Outcome::Failed(response) => Err(response.error()),
        })
        .await
}

/// Whether Azure will not copy this source, now or later, so that the instance must be streamed. Permanent failures that
/// do not concern the source, such as an expired credential, count too: streaming meets and reports them.
fn is_refusal(response: &Response) -> bool {
    response.has_error(CANNOT_VERIFY_COPY_SOURCE) || !response.error().kind().is_transient()
}
