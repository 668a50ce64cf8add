//! The bytes of one instance: [`Content`], and [`CopySource`] for a copy that bypasses this process.

pub(crate) mod buffer;
#[cfg(any(feature = "azure", feature = "fs", feature = "object_store"))]
mod chunk_reader;
mod copy_source;
#[cfg(feature = "dicom")]
mod dicom;
mod file;
#[cfg(any(feature = "dicom", feature = "dicomweb"))]
pub(crate) mod head;
#[cfg(feature = "fs")]
mod partial_file;
mod writer;

use std::fmt;

use bytes::Bytes;
use futures::future;
use futures::stream::{self, BoxStream, StreamExt};

#[cfg(any(feature = "azure", feature = "object_store"))]
pub(crate) use self::chunk_reader::Chunk;
#[cfg(any(feature = "azure", feature = "fs", feature = "object_store"))]
pub(crate) use self::chunk_reader::ChunkReader;
pub use self::copy_source::CopySource;
#[cfg(feature = "fs")]
pub(crate) use self::file::{read_error, read_up_to};
#[cfg(feature = "fs")]
pub(crate) use self::partial_file::{is_partial_file_name, partial_file_name};
use crate::error::Result;

/// The size of the chunks of a large file, and of what a writer produces.
const CHUNK_SIZE: usize = 1 << 20;

/// The bytes of one instance: a DICOM Part 10 file (PS3.10 7), exported as they are.
///
/// Dropping the content, or the stream made of it, stops the reading. A chunk of a stream should hold about a megabyte:
/// the engine's memory budget does not count a chunk before the stream yields it.
///
/// ```
/// use bytes::Bytes;
/// use dicom_export::Content;
/// use futures::stream;
///
/// let in_memory = Content::from_bytes("bytes of a file");
/// assert_eq!(in_memory.length(), Some(15));
///
/// let chunks = [Ok(Bytes::from("bytes of ")), Ok(Bytes::from("a file"))];
/// let streamed = Content::from_stream(Some(15), stream::iter(chunks));
/// assert_eq!(streamed.as_bytes(), None);
/// ```
pub struct Content {
    length: Option<u64>,
    body: Body,
}

enum Body {
    Bytes(Bytes),
    Stream(BoxStream<'static, Result<Bytes>>),
}

impl Content {
    /// Creates a content from bytes in memory, without copying them.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { length: Some(bytes.len() as u64), body: Body::Bytes(bytes) }
    }

    /// Creates a content from a stream, with its length in bytes if it is known.
    ///
    /// A stream that yields more or fewer bytes than `length` is an error of that instance. An error in the stream ends
    /// it: the stream is not polled again, nor after its end.
    pub fn from_stream(
        length: Option<u64>,
        stream: impl futures::Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        let until_error = stream.scan(false, |has_failed, chunk| {
            let next = (!*has_failed).then_some(chunk);
            *has_failed |= matches!(next, Some(Err(_)));
            future::ready(next)
        });
        Self { length, body: Body::Stream(until_error.fuse().boxed()) }
    }

    /// Returns the number of bytes if it is known before reading them.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// Returns the bytes if they are all in memory.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Bytes(bytes) => Some(bytes),
            Body::Stream(_) => None,
        }
    }

    /// Returns the bytes as a stream. After an error, or its end, it yields `None` however often it is polled.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        match self.body {
            Body::Bytes(bytes) => stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed(),
            Body::Stream(stream) => stream,
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content").field("length", &self.length).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorKind};

    /// Polls a stream for four items more than it yields.
    async fn drain(content: Content) -> Vec<Option<Result<Bytes>>> {
        let mut stream = content.into_stream();
        let mut items = Vec::new();
        for _ in 0..6 {
            items.push(stream.next().await);
        }
        items
    }

    #[tokio::test]
    async fn stream_is_not_polled_after_its_end() {
        // `unfold` panics if it is polled after its end.
        let stream =
            stream::unfold(0, |number| async move { (number < 2).then_some((Ok("x".into()), number + 1)) });
        let items = drain(Content::from_stream(None, stream)).await;
        assert_eq!(items.iter().filter(|item| matches!(item, Some(Ok(_)))).count(), 2);
        assert!(items[2..].iter().all(Option::is_none));
    }

    #[tokio::test]
    async fn stream_ends_with_its_first_error() {
        let chunks = [Ok("x".into()), Err(Error::new(ErrorKind::Unavailable, "unavailable")), Ok("y".into())];
        let items = drain(Content::from_stream(None, stream::iter(chunks))).await;
        assert!(matches!(items[..3], [Some(Ok(_)), Some(Err(_)), None]));
        assert!(items[3..].iter().all(Option::is_none));
    }
}
