//! Writes a blob from a content: a small one with one request, a large one in blocks.

use std::pin::pin;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::writer::{BlobWriter, MAX_BLOCKS, MAX_PARALLEL_BLOCKS, MIB, block_id};
use crate::content::{Chunk, ChunkReader, Content};
use crate::error::{Error, ErrorKind, Result};
use crate::sink::PutResult;

/// The size of a block, and of the largest blob that is sent with one request.
const BLOCK_SIZE: u64 = 8 * MIB;

/// The buffer size for a content of unknown length: two blocks.
const UNKNOWN_LENGTH_BUFFER_SIZE: u64 = 8 * MIB;

/// The largest buffer size, whatever length a content states.
const MAX_BUFFER_SIZE: u64 = 128 * MIB;

/// Blocks are not made smaller than this to fit the buffer limit.
const MIN_BLOCK_SIZE: u64 = 256 << 10;

/// The number of the first block of a content of unknown length that uses the whole buffer limit.
const FIRST_FULL_BLOCK: u64 = 8_000;

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
pub(super) async fn put(writer: BlobWriter<'_>, content: Content) -> Result<PutResult> {
    if let Some(bytes) = content.as_bytes().filter(|bytes| bytes.len() as u64 <= BLOCK_SIZE) {
        return writer.put_blob(bytes.clone().into(), bytes.len() as u64).await;
    }
    let (length, buffer_limit) = (content.length(), writer.buffer_limit());
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
        put_blocks(writer, layout, first, chunks).await
    }
}

/// Put Block for each chunk, reading the next one while others are sent, then Put Block List. If the blob turns out to be
/// stored already, the rest of the content is only read: the engine verifies it, and its length is part of the result.
async fn put_blocks(
    writer: BlobWriter<'_>,
    layout: BlockLayout,
    first: Chunk,
    mut chunks: ChunkReader,
) -> Result<PutResult> {
    let length = match layout {
        BlockLayout::Known { length } => Some(length),
        BlockLayout::Unknown => None,
    };
    let buffer_limit = writer.buffer_limit();
    // Block ids are unique to this attempt, so that the blocks of another one are not committed.
    let attempt = fastrand::u64(..);
    let mut requests = FuturesUnordered::new();
    let mut is_stored = false;
    let (mut number, mut size, mut chunk) = (0, 0, first);
    while chunk.len > 0 {
        size += chunk.len;
        if length.is_some_and(|length| size > length) {
            return Err(wrong_length());
        }
        if !is_stored {
            if number == MAX_BLOCKS {
                let message =
                    "an instance needs more than 50,000 blocks of the size that the buffer limit allows";
                return Err(Error::new(ErrorKind::TooLarge, message));
            }
            requests.push(writer.put_block(block_id(attempt, number), chunk.parts.into_iter().collect()));
            number += 1;
        }
        let next = layout.block_size(number, buffer_limit);
        // The chunk that is read next counts too.
        while requests.len() as u64 + 1 > (buffer_limit / next).max(1) {
            if let Some(sent) = requests.next().await {
                is_stored |= sent?.is_none();
            }
        }
        let mut reading = pin!(chunks.next(next));
        chunk = loop {
            tokio::select! {
                read = &mut reading => break read?,
                Some(sent) = requests.next() => is_stored |= sent?.is_none(),
            }
        };
        if is_stored {
            requests.clear();
        }
    }
    while let Some(sent) = requests.next().await {
        is_stored |= sent?.is_none();
    }
    check_length(length, size)?;
    if is_stored { Ok(PutResult::new(size)) } else { writer.put_block_list(attempt, number, size).await }
}

/// Checked before a blob becomes visible.
fn check_length(expected: Option<u64>, found: u64) -> Result<()> {
    if expected.is_none_or(|expected| expected == found) { Ok(()) } else { Err(wrong_length()) }
}

fn wrong_length() -> Error {
    Error::new(ErrorKind::Unreadable, "the instance does not have its stated length")
}
