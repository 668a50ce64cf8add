//! Contents that are not what they should be.

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use futures::stream::{self, Stream, StreamExt};
use tokio::time::sleep;

use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};

/// How a content is damaged. Those that change its length leave the length that it states, so that it can be noticed;
/// one that states none breaks instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StreamFault {
    /// It fails somewhere, with [`ErrorKind::Unavailable`].
    Unavailable,
    /// It fails somewhere, with [`ErrorKind::Unreadable`].
    Unreadable,
    /// It ends early, as if that were all.
    Truncated,
    /// A part of it comes twice.
    Repeats,
    /// It goes on after its end.
    Overlong,
    /// It is whole, and stands still for up to ten seconds on its way.
    Stalls,
}

impl StreamFault {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Unavailable, Self::Unreadable, Self::Truncated, Self::Repeats, Self::Overlong, Self::Stalls];
}

/// So many parts at most are made of what is in one piece.
const PIECES: usize = 8;

/// Damages a content.
pub(super) fn damaged(content: Content, fault: StreamFault, mut rng: Rng) -> Content {
    let length = content.length();
    let changes_length =
        matches!(fault, StreamFault::Truncated | StreamFault::Repeats | StreamFault::Overlong);
    // Nothing can come twice, or be left out, of what is empty.
    let nothing = length == Some(0) && fault != StreamFault::Overlong;
    let fault =
        if changes_length && (length.is_none() || nothing) { StreamFault::Unavailable } else { fault };
    let at = match length {
        Some(length) => rng.u64(0..length.max(1)),
        None => rng.u64(0..1 << 16),
    };
    let mut seen = 0;
    let pieces = pieces(content).map(move |piece| {
        let piece = piece?;
        let here = (seen..seen + piece.len() as u64).contains(&at);
        seen += piece.len() as u64;
        Ok((piece, here))
    });
    match fault {
        StreamFault::Unavailable => broken(length, pieces, ErrorKind::Unavailable),
        StreamFault::Unreadable => broken(length, pieces, ErrorKind::Unreadable),
        StreamFault::Truncated => Content::from_stream(length, up_to_there(pieces)),
        StreamFault::Repeats => {
            let pieces = pieces.flat_map(|piece| {
                let twice = match &piece {
                    Ok((bytes, true)) => Some(Ok(bytes.clone())),
                    _ => None,
                };
                stream::iter([Some(piece.map(|(bytes, _)| bytes)), twice].into_iter().flatten())
            });
            Content::from_stream(length, pieces)
        }
        StreamFault::Overlong => {
            let more = stream::iter([Ok(Bytes::from_static(b"more"))]);
            Content::from_stream(length, pieces.map(|piece| piece.map(|(bytes, _)| bytes)).chain(more))
        }
        StreamFault::Stalls => {
            let pause = Duration::from_secs(10).mul_f64(rng.f64());
            let pieces = pieces.then(move |piece| async move {
                if matches!(piece, Ok((_, true))) {
                    sleep(pause).await;
                }
                piece.map(|(bytes, _)| bytes)
            });
            Content::from_stream(length, pieces)
        }
    }
}

/// Its parts, several where it is in one.
fn pieces(content: Content) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    content.into_stream().flat_map(|chunk| {
        let mut rest = match chunk {
            Ok(bytes) => Ok(bytes),
            Err(error) => Err(Some(error)),
        };
        let size = rest.as_ref().map_or(0, |bytes| bytes.len().div_ceil(PIECES)).max(1);
        stream::iter(std::iter::from_fn(move || match &mut rest {
            Ok(bytes) if bytes.is_empty() => None,
            Ok(bytes) => Some(Ok(bytes.split_to(size.min(bytes.len())))),
            Err(error) => error.take().map(Err),
        }))
    })
}

/// What comes before the marked piece.
fn up_to_there(
    pieces: impl Stream<Item = Result<(Bytes, bool)>> + Send + 'static,
) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
    let before = pieces.take_while(|piece| {
        let goes_on = !matches!(piece, Ok((_, true)));
        async move { goes_on }
    });
    before.map(|piece| piece.map(|(bytes, _)| bytes))
}

fn broken(
    length: Option<u64>,
    pieces: impl Stream<Item = Result<(Bytes, bool)>> + Send + 'static,
    kind: ErrorKind,
) -> Content {
    let end = stream::iter([Err(Error::new(kind, "the content broke off, as planned"))]);
    Content::from_stream(length, up_to_there(pieces).chain(end))
}
