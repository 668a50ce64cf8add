//! Writes a blob from a content: a small one with one request, a large one in blocks.
//!
//! A blob has at most 50,000 blocks, and Put Block List makes it visible as a whole.

use std::pin::pin;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use object_store::PutPayload;
use reqwest::header::HeaderValue;

use super::checksum::Checksum;
use super::client::{BLOB_CONTENT_TYPE, BLOB_TYPE, BlobClient, PutRequest};
use super::response::Response;
use crate::content::{Chunk, ChunkReader, Content};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::PutResult;

pub(super) const MIB: u64 = 1 << 20;

/// The size of a block, and of the largest blob that is sent with one request.
const BLOCK_SIZE: u64 = 8 * MIB;

/// How many blocks of a blob are sent at once, if the buffer limit allows it.
pub(super) const MAX_PARALLEL_BLOCKS: u64 = 4;

/// The buffer size for a content of unknown length: two blocks.
const UNKNOWN_LENGTH_BUFFER_SIZE: u64 = 8 * MIB;

/// The largest buffer size, whatever length a content states.
const MAX_BUFFER_SIZE: u64 = 128 * MIB;

/// Blocks are not made smaller than this to fit the buffer limit.
const MIN_BLOCK_SIZE: u64 = 256 << 10;

/// Azure's limit.
pub(super) const MAX_BLOCKS: u64 = 50_000;

/// The number of the first block of a content of unknown length that uses the whole buffer limit.
const FIRST_FULL_BLOCK: u64 = 8_000;

const DICOM: HeaderValue = HeaderValue::from_static("application/dicom");

/// How many bytes a put of this length buffers.
pub(super) fn buffer_size(length: Option<u64>) -> u64 {
    match length {
        Some(length) if length <= BLOCK_SIZE => length,
        Some(length) => {
            let block_size = BlockLayout::Known { length }.block_size(0, MAX_BUFFER_SIZE);
            length.min(MAX_PARALLEL_BLOCKS * block_size).min(MAX_BUFFER_SIZE)
        }
        None => UNKNOWN_LENGTH_BUFFER_SIZE,
    }
}

/// How a content is divided into blocks.
#[derive(Debug, Clone, Copy)]
enum BlockLayout {
    Known { length: u64 },
    Unknown,
}

impl BlockLayout {
    /// The size of a block by its number, for a buffer limit.
    fn block_size(self, number: u64, buffer_limit: u64) -> u64 {
        let fitting = (buffer_limit / 2).max(MIN_BLOCK_SIZE);
        match self {
            // Blocks are as large as their number requires, and the buffer limit allows: the length may be false.
            Self::Known { length } => {
                let least = length.div_ceil(MAX_BLOCKS);
                let least = if least > BLOCK_SIZE { least.next_multiple_of(MIB) } else { least };
                BLOCK_SIZE.min(fitting).max(least).min(buffer_limit.max(MIN_BLOCK_SIZE))
            }
            Self::Unknown if number < FIRST_FULL_BLOCK => fitting.min(UNKNOWN_LENGTH_BUFFER_SIZE / 2),
            Self::Unknown => buffer_limit.clamp(MIN_BLOCK_SIZE, UNKNOWN_LENGTH_BUFFER_SIZE),
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
    let writer = BlobWriter { client, path, upload };
    if let Some(bytes) = content.as_bytes().filter(|bytes| bytes.len() as u64 <= BLOCK_SIZE) {
        return writer.put_blob(bytes.clone().into(), bytes.len() as u64).await;
    }
    let (length, buffer_limit) = (content.length(), upload.buffer_limit());
    let layout = length.map_or(BlockLayout::Unknown, |length| BlockLayout::Known { length });
    let first = match length {
        // One more byte than expected, to detect the end.
        Some(length) if length <= BLOCK_SIZE.min(buffer_limit) => length + 1,
        _ => layout.block_size(0, buffer_limit),
    };
    let mut chunks = ChunkReader::new(content);
    let first = chunks.next(first).await?;
    if first.is_last {
        check_length(length, first.len)?;
        writer.put_blob(first.parts.into_iter().collect(), first.len).await
    } else {
        writer.put_blocks(layout, first, chunks).await
    }
}

/// Writes one blob.
#[derive(Clone, Copy)]
pub(super) struct BlobWriter<'a> {
    pub(super) client: &'a BlobClient,
    pub(super) path: &'a BlobPath,
    pub(super) upload: &'a UploadContext,
}

impl BlobWriter<'_> {
    /// Put Blob.
    pub(super) async fn put_blob(self, payload: PutPayload, size: u64) -> Result<PutResult> {
        let response = self.request(&payload, || {
            PutRequest::new(self.path, payload.clone())
                .header(BLOB_TYPE, HeaderValue::from_static("BlockBlob"))
                .header(BLOB_CONTENT_TYPE, DICOM)
        });
        Ok(put_result(size, &response.await?))
    }

    /// Put Block for each chunk, reading the next one while others are sent, then Put Block List.
    async fn put_blocks(
        self,
        layout: BlockLayout,
        first: Chunk,
        mut chunks: ChunkReader,
    ) -> Result<PutResult> {
        let length = match layout {
            BlockLayout::Known { length } => Some(length),
            BlockLayout::Unknown => None,
        };
        let buffer_limit = self.upload.buffer_limit();
        // Block ids are unique to this attempt, so that the blocks of another one are not committed.
        let attempt = fastrand::u64(..);
        let mut requests = FuturesUnordered::new();
        let (mut number, mut size, mut chunk) = (0, 0, first);
        while chunk.len > 0 {
            size += chunk.len;
            if length.is_some_and(|length| size > length) {
                return Err(wrong_length());
            }
            if number == MAX_BLOCKS {
                let message =
                    "an instance needs more than 50,000 blocks of the size that the buffer limit allows";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            requests.push(self.put_block(block_id(attempt, number), chunk.parts.into_iter().collect()));
            number += 1;
            let next = layout.block_size(number, buffer_limit);
            // The chunk that is read next counts too.
            while requests.len() as u64 + 1 > (buffer_limit / next).max(1) {
                if let Some(sent) = requests.next().await {
                    sent?;
                }
            }
            let mut reading = pin!(chunks.next(next));
            chunk = loop {
                tokio::select! {
                    read = &mut reading => break read?,
                    Some(sent) = requests.next() => sent?,
                }
            };
        }
        while let Some(sent) = requests.next().await {
            sent?;
        }
        check_length(length, size)?;
        self.put_block_list(attempt, number, size).await
    }

    async fn put_block(self, id: String, payload: PutPayload) -> Result<()> {
        let query = format!("comp=block&blockid={id}");
        self.request(&payload, || PutRequest::new(self.path, payload.clone()).query(query.as_str())).await?;
        Ok(())
    }

    /// Put Block List. `Latest` also matches a committed block, so the request can be repeated if its response was lost.
    pub(super) async fn put_block_list(self, attempt: u64, blocks: u64, size: u64) -> Result<PutResult> {
        let mut list = String::from(r#"<?xml version="1.0" encoding="utf-8"?><BlockList>"#);
        for number in 0..blocks {
            list.extend(["<Latest>", &block_id(attempt, number), "</Latest>"]);
        }
        list.push_str("</BlockList>");
        let payload = PutPayload::from(list);
        let checksum = self.checksum(&payload);
        // A retry does not restore lost blocks, so the error ends the retries, and the engine puts the blob again.
        let outcome = self.upload.send_with_retry(async || {
            let request = PutRequest::new(self.path, payload.clone())
                .query("comp=blocklist")
                .header(BLOB_CONTENT_TYPE, DICOM);
            let response = self.send(request, checksum.as_ref()).await?;
            if response.is(400, "InvalidBlockList") {
                Ok(Err(response.error()))
            } else {
                response.error_for_status().map(Ok)
            }
        });
        Ok(put_result(size, &outcome.await??))
    }

    /// Sends a request until its body is stored unchanged.
    async fn request<'p>(
        self,
        body: &PutPayload,
        request: impl Fn() -> PutRequest<'p> + Send + Sync,
    ) -> Result<Response> {
        let checksum = self.checksum(body);
        let send = async || self.send(request(), checksum.as_ref()).await?.error_for_status();
        self.upload.send_with_retry(send).await
    }

    async fn send(self, request: PutRequest<'_>, checksum: Option<&Checksum<'_>>) -> Result<Response> {
        let Some(checksum) = checksum else { return self.client.send(request).await };
        let response = self.client.send(checksum.add_to(request)).await?;
        if response.is_success() {
            checksum.verify(&response)?;
        }
        Ok(response)
    }

    /// `None` if checksums are off or the body is empty.
    fn checksum(self, body: &PutPayload) -> Option<Checksum<'_>> {
        (self.upload.checksums() && body.content_length() > 0).then(|| Checksum::new(body))
    }
}

/// A block id: 24 characters that are valid base64. All ids of a blob must have the same length.
pub(super) fn block_id(attempt: u64, number: u64) -> String {
    format!("{attempt:016x}{number:08x}")
}

fn put_result(size: u64, response: &Response) -> PutResult {
    let result = PutResult::new(size);
    match response.etag() {
        Some(etag) => result.with_etag(etag),
        None => result,
    }
}

/// Checked before a blob becomes visible.
fn check_length(expected: Option<u64>, found: u64) -> Result<()> {
    if expected.is_none_or(|expected| expected == found) { Ok(()) } else { Err(wrong_length()) }
}

fn wrong_length() -> Error {
    Error::new(ErrorKind::Unreadable, "the instance does not have its stated length")
}
