//! A blob that Azure fetches itself: Put Block From URL for each range, then Put Block List.
//!
//! Put Blob From URL and Copy Blob From URL take one request, and the content type of the source with it; these take
//! two, and set it, at every size.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::PutPayload;
use reqwest::header::{HeaderName, HeaderValue};

use super::answer::Answer;
use super::blocks::{MIB, MOST_BLOCKS, PARALLEL, Target, block_id};
use super::client::{BlobClient, Put};
use crate::content::CopySource;
use crate::error::Result;
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::PutResult;

/// The size of a block, as long as 50,000 of them are enough. Azure takes up to 4,000 MiB; small enough that one is
/// fetched in seconds, and repeated at little cost.
const BLOCK: u64 = 64 * MIB;

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-ms-copy-source");
const SOURCE_RANGE: HeaderName = HeaderName::from_static("x-ms-source-range");
const SOURCE_IF_MATCH: HeaderName = HeaderName::from_static("x-ms-source-if-match");

/// The error code for a source that Azure cannot read, for whatever reason: the status is the source's own.
const UNREADABLE_SOURCE: &str = "CannotVerifyCopySource";

/// Has the blob copied; see [`BlobSink::copy_from`](crate::BlobSink::copy_from).
pub(super) async fn copy(
    client: &BlobClient,
    path: &BlobPath,
    source: &CopySource,
    upload: &UploadContext,
) -> Result<Option<PutResult>> {
    let target = Target { client, path, upload };
    let length = source.length();
    if length == 0 {
        // There is no range of nothing.
        return target.put_blob(PutPayload::new(), 0).await.map(Some);
    }
    let Some(source) = Source::new(source) else { return Ok(None) };
    let block = BLOCK.max(length.div_ceil(MOST_BLOCKS));
    let blocks = length.div_ceil(block);
    // Of this attempt only: another one's blocks must not get in.
    let attempt = fastrand::u64(..);
    let copied = stream::iter(0..blocks).map(|number| {
        let (from, to) = (number * block, length.min((number + 1) * block));
        copy_block(target, &source, block_id(attempt, number), from..to)
    });
    let copied = copied.buffer_unordered(PARALLEL as usize);
    // The first refusal settles it, and drops the requests under way.
    let refused = copied.try_filter(|copied| std::future::ready(!copied));
    if std::pin::pin!(refused).try_next().await?.is_some() {
        return Ok(None);
    }
    target.commit(attempt, blocks, length).await.map(Some)
}

/// The source as it stands in headers.
struct Source {
    url: HeaderValue,
    etag: Option<HeaderValue>,
}

impl Source {
    /// `None`: it cannot stand in a header.
    fn new(source: &CopySource) -> Option<Self> {
        let mut url = HeaderValue::from_str(source.expose_url()).ok()?;
        url.set_sensitive(true);
        let etag = source.etag().map(HeaderValue::from_str).transpose().ok()?;
        Some(Self { url, etag })
    }
}

/// Put Block From URL; says whether it was carried out. The block's length need not be checked where the source has
/// an ETag: this range of that version is as long as it says.
async fn copy_block(
    target: Target<'_>,
    source: &Source,
    id: String,
    range: std::ops::Range<u64>,
) -> Result<bool> {
    let query = format!("comp=block&blockid={id}");
    let bytes = format!("bytes={}-{}", range.start, range.end - 1);
    let put = || {
        let put = Put::new(target.path, PutPayload::new())
            .query(query.as_str())
            .header(COPY_SOURCE, source.url.clone())
            .fetching(range.end - range.start);
        // Digits only.
        let put = match HeaderValue::from_str(&bytes) {
            Ok(bytes) => put.header(SOURCE_RANGE, bytes),
            Err(_) => put,
        };
        match &source.etag {
            Some(etag) => put.header(SOURCE_IF_MATCH, etag.clone()),
            None => put,
        }
    };
    target
        .upload
        .send_with_retry(async || {
            let answer = target.client.send(put()).await?;
            if is_refusal(&answer) { Ok(false) } else { answer.into_done().map(|_| true) }
        })
        .await
}

/// Whether Azure will not copy this, now or later: it is streamed instead. That includes the trouble that is not the
/// source's, like a credential that has expired, since streaming meets with it too and says so.
fn is_refusal(answer: &Answer) -> bool {
    !answer.is_done() && (answer.code() == UNREADABLE_SOURCE || !answer.error().kind().is_transient())
}
