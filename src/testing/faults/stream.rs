//! [`StreamFault`]: damaged contents.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures::stream::{self, Stream, StreamExt};
use tokio::time::sleep;

use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};

/// A way to damage a content.
///
/// The faults that change the length keep the stated length, so that the damage can be detected. They act as
/// [`Unavailable`](Self::Unavailable) on a content without a stated length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamFault {
    /// The stream fails at a random position with [`ErrorKind::Unavailable`].
    Unavailable,
    /// The stream fails at a random position with [`ErrorKind::Unreadable`].
    Unreadable,
    /// The stream ends early without an error.
    Truncated,
    /// A part of the stream is repeated.
    Repeats,
    /// The stream continues after the stated length.
    Overlong,
    /// The stream is complete but pauses once for up to ten seconds.
    Stalls,
}

impl StreamFault {
    /// All faults.
    pub const ALL: [Self; 6] =
        [Self::Unavailable, Self::Unreadable, Self::Truncated, Self::Repeats, Self::Overlong, Self::Stalls];
}

/// The number of chunks that a content in one chunk is divided into.
const MAX_CHUNKS: usize = 8;

/// Applies a fault to a content.
pub(super) fn damaged(content: Content, fault: StreamFault, mut rng: Rng) -> Content {
    let length = content.length();
    let changes_length =
        matches!(fault, StreamFault::Truncated | StreamFault::Repeats | StreamFault::Overlong);
    // An empty content has no part to repeat or to omit.
    let is_empty = length == Some(0) && fault != StreamFault::Overlong;
    let fault =
        if changes_length && (length.is_none() || is_empty) { StreamFault::Unavailable } else { fault };
    let at = match length {
        Some(length) => rng.u64(0..length.max(1)),
        None => rng.u64(0..1 << 16),
    };
    let mut offset = 0;
    // Each chunk, and whether it holds the position of the fault.
    let chunks = divided(content).map(move |chunk| {
        let chunk = chunk?;
        let is_hit = (offset..offset + chunk.len() as u64).contains(&at);
        offset += chunk.len() as u64;
        Ok((chunk, is_hit))
    });
    match fault {
        StreamFault::Unavailable => failing(length, chunks, ErrorKind::Unavailable),
        StreamFault::Unreadable => failing(length, chunks, ErrorKind::Unreadable),
        StreamFault::Truncated => Content::from_stream(length, before_hit(chunks)),
        StreamFault::Repeats => {
            let chunks = chunks.flat_map(|chunk| {
                let repeated = match &chunk {
                    Ok((bytes, true)) => Some(Ok(bytes.clone())),
                    _ => None,
                };
                stream::iter([Some(chunk.map(|(bytes, _)| bytes)), repeated].into_iter().flatten())
            });
            Content::from_stream(length, chunks)
        }
        StreamFault::Overlong => {
            let more = stream::iter([Ok(Bytes::from_static(b"more"))]);
            Content::from_stream(length, chunks.map(|chunk| chunk.map(|(bytes, _)| bytes)).chain(more))
        }
        StreamFault::Stalls => {
            let pause = Duration::from_secs(10).mul_f64(rng.f64());
            let chunks = chunks.then(move |chunk| async move {
                if matches!(chunk, Ok((_, true))) {
                    sleep(pause).await;
                }
                chunk.map(|(bytes, _)| bytes)
            });
            Content::from_stream(length, chunks)
        }
    }
}

/// The chunks of a content, each divided into up to [`MAX_CHUNKS`].
fn divided(content: Content) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    content.into_stream().flat_map(|chunk| {
        let mut rest = match chunk {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(Some(error)),
        };
        let size = rest.as_ref().map_or(0, |bytes| bytes.len().div_ceil(MAX_CHUNKS)).max(1);
        stream::iter(std::iter::from_fn(move || match &mut rest {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some(Ok(bytes.split_to(size.min(bytes.len())))),
            Err(error) => error.take().map(Err),
        }))
    })
}

/// The chunks before the one that the fault hits.
fn before_hit(
    chunks: impl Stream<Item = Result<(Bytes, bool)>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let before = chunks.take_while(|chunk| {
        let is_before = !matches!(chunk, Ok((_, true)));
        async move { is_before }
    });
    before.map(|chunk| chunk.map(|(bytes, _)| bytes))
}

/// A content that fails at the position of the fault.
fn failing(
    length: Option<u64>,
    chunks: impl Stream<Item = Result<(Bytes, bool)>> + Send + 'static,
    kind: ErrorKind,
) -> Content {
    let end = stream::iter([Err(Error::new(kind, "planned stream failure"))]);
    Content::from_stream(length, before_hit(chunks).chain(end))
}
