//! A blob from a content: one request for a small one, blocks for a large one.
//!
//! Azure: a blob has at most 50,000 blocks, and becomes visible with Put Block List, whole.

use std::pin::pin;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::PutPayload;
use reqwest::header::HeaderValue;

use super::answer::Answer;
use super::client::{BLOB_CONTENT_TYPE, BLOB_TYPE, BlobClient, Put};
use super::integrity::Checksum;
use crate::content::{Chunk, ChunkReader, Content};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::PutResult;

pub(super) const MIB: u64 = 1 << 20;

/// The size of a block, and the largest blob that is sent in one request.
pub(super) const BLOCK: u64 = 8 * MIB;

/// How many blocks of a large blob are on their way at once, if the window allows.
pub(super) const PARALLEL: u64 = 4;

/// What is held of a content whose length is not known: two blocks.
pub(super) const UNKNOWN_WINDOW: u64 = 8 * MIB;

/// Blocks get no smaller than this to fit a window.
const SMALLEST_BLOCK: u64 = 256 << 10;

/// Azure's limit.
pub(super) const MOST_BLOCKS: u64 = 50_000;

/// From this block on, one of a content of unknown length fills the window.
const GROW_AT: u64 = 8_000;

/// The error code for a list that names a block which is not there.
const LOST_BLOCKS: &str = "InvalidBlockList";

const DICOM: HeaderValue = HeaderValue::from_static("application/dicom");

/// How much one put of this length holds.
pub(super) fn window(length: Option<u64>) -> u64 {
    match length {
        Some(length) if length <= BLOCK => length,
        Some(length) => length.min(PARALLEL * Cut::Known { length }.block(0, u64::MAX)),
        None => UNKNOWN_WINDOW,
    }
}

/// How a content is cut into blocks.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Known { length: u64 },
    Unknown,
}

impl Cut {
    /// The size of the block of this number, within a window.
    fn block(self, number: u64, window: u64) -> u64 {
        let fitting = (window / 2).max(SMALLEST_BLOCK);
        match self {
            // Few enough of them goes before the window.
            Self::Known { length } => {
                let least = length.div_ceil(MOST_BLOCKS);
                BLOCK.min(fitting).max(if least > BLOCK { least.next_multiple_of(MIB) } else { least })
            }
            Self::Unknown if number < GROW_AT => fitting.min(UNKNOWN_WINDOW / 2),
            Self::Unknown => window.clamp(SMALLEST_BLOCK, UNKNOWN_WINDOW),
        }
    }
}

/// Writes the blob; see [`BlobSink::put`](crate::BlobSink::put).
pub(super) async fn put(
    client: &BlobClient,
    path: &BlobPath,
    content: Content,
    upload: &UploadContext,
) -> Result<PutResult> {
    let target = Target { client, path, upload };
    if let Some(bytes) = content.as_bytes().filter(|bytes| bytes.len() as u64 <= BLOCK) {
        return target.put_blob(bytes.clone().into(), bytes.len() as u64).await;
    }
    let (length, window) = (content.length(), upload.buffer_limit());
    let cut = length.map_or(Cut::Unknown, |length| Cut::Known { length });
    let first = match length {
        // One byte more than there should be, to see the end.
        Some(length) if length <= BLOCK.min(window) => length + 1,
        _ => cut.block(0, window),
    };
    let mut chunks = ChunkReader::new(content);
    let first = chunks.next(first).await?;
    if first.is_last {
        check_length(length, first.len)?;
        target.put_blob(first.parts.into_iter().collect(), first.len).await
    } else {
        target.put_blocks(cut, first, chunks).await
    }
}

/// Where a blob goes, and on which terms.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) client: &'a BlobClient,
    pub(super) path: &'a BlobPath,
    pub(super) upload: &'a UploadContext,
}

impl Target<'_> {
    /// Put Blob.
    pub(super) async fn put_blob(self, payload: PutPayload, size: u64) -> Result<PutResult> {
        let answer = self.request(&payload, || {
            Put::new(self.path, payload.clone())
                .header(BLOB_TYPE, HeaderValue::from_static("BlockBlob"))
                .header(BLOB_CONTENT_TYPE, DICOM)
        });
        Ok(stored(size, &answer.await?))
    }

    /// Put Block for each chunk, the next one read while earlier ones are on their way, then Put Block List.
    async fn put_blocks(self, cut: Cut, first: Chunk, mut chunks: ChunkReader) -> Result<PutResult> {
        let length = match cut {
            Cut::Known { length } => Some(length),
            Cut::Unknown => None,
        };
        let window = self.upload.buffer_limit();
        // Ids of one length within a blob, and of this attempt only: another one's blocks must not get in.
        let attempt = fastrand::u64(..);
        let mut on_their_way = FuturesUnordered::new();
        let (mut number, mut size, mut chunk) = (0, 0, first);
        while chunk.len > 0 {
            size += chunk.len;
            if length.is_some_and(|length| size > length) {
                return Err(wrong_length());
            }
            if number == MOST_BLOCKS {
                return Err(Error::new(ErrorKind::Unsupported, "an instance of unknown length is too large"));
            }
            on_their_way.push(self.put_block(block_id(attempt, number), chunk.parts.into_iter().collect()));
            number += 1;
            let next = cut.block(number, window);
            // The chunk being read counts as one.
            while on_their_way.len() as u64 + 1 > (window / next).max(1) {
                if let Some(done) = on_their_way.next().await {
                    done?;
                }
            }
            let mut reading = pin!(chunks.next(next));
            chunk = loop {
                tokio::select! {
                    read = &mut reading => break read?,
                    Some(done) = on_their_way.next() => done?,
                }
            };
        }
        while let Some(done) = on_their_way.next().await {
            done?;
        }
        check_length(length, size)?;
        self.commit(attempt, number, size).await
    }

    async fn put_block(self, id: String, payload: PutPayload) -> Result<()> {
        let query = format!("comp=block&blockid={id}");
        self.request(&payload, || Put::new(self.path, payload.clone()).query(query.as_str())).await?;
        Ok(())
    }

    /// Put Block List. `Latest` also finds a block that is committed already, so it can be repeated when its answer
    /// was lost.
    pub(super) async fn commit(self, attempt: u64, blocks: u64, size: u64) -> Result<PutResult> {
        let mut list = String::from(r#"<?xml version="1.0" encoding="utf-8"?><BlockList>"#);
        for number in 0..blocks {
            list.extend(["<Latest>", &block_id(attempt, number), "</Latest>"]);
        }
        list.push_str("</BlockList>");
        let payload = PutPayload::from(list);
        let put =
            || Put::new(self.path, payload.clone()).query("comp=blocklist").header(BLOB_CONTENT_TYPE, DICOM);
        // Repeating does not bring lost blocks back: that ends the request, and the engine puts the blob again.
        let sum = self.checksum(&payload);
        let outcome = self.upload.send_with_retry(async || {
            let answer = self.send(put(), sum.as_ref()).await?;
            if answer.code() == LOST_BLOCKS { Ok(Err(answer.error())) } else { answer.into_done().map(Ok) }
        });
        Ok(stored(size, &outcome.await??))
    }

    /// Sends this body until it is stored as it is.
    async fn request<'p>(self, body: &PutPayload, put: impl Fn() -> Put<'p> + Send + Sync) -> Result<Answer> {
        let sum = self.checksum(body);
        self.upload.send_with_retry(async || self.send(put(), sum.as_ref()).await?.into_done()).await
    }

    async fn send(self, put: Put<'_>, sum: Option<&Checksum<'_>>) -> Result<Answer> {
        let Some(sum) = sum else { return self.client.send(put).await };
        let answer = self.client.send(sum.send_with(put)).await?;
        if answer.is_done() {
            sum.compare(&answer)?;
        }
        Ok(answer)
    }

    /// `None`: nothing is compared, or there is nothing to compare.
    fn checksum(self, body: &PutPayload) -> Option<Checksum<'_>> {
        (self.upload.checksums() && body.content_length() > 0).then(|| Checksum::of(body))
    }
}

/// 24 characters that are base64 as they are.
pub(super) fn block_id(attempt: u64, number: u64) -> String {
    format!("{attempt:016x}{number:08x}")
}

fn stored(size: u64, answer: &Answer) -> PutResult {
    let stored = PutResult::new(size);
    match answer.etag() {
        Some(etag) => stored.with_etag(etag),
        None => stored,
    }
}

/// Nothing is committed under a length that the content does not have.
fn check_length(expected: Option<u64>, found: u64) -> Result<()> {
    if expected.is_none_or(|expected| expected == found) { Ok(()) } else { Err(wrong_length()) }
}

fn wrong_length() -> Error {
    Error::new(ErrorKind::Unreadable, "the instance is not as long as it was said to be")
}
