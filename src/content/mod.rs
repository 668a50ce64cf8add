//! The bytes of one instance: [`Content`], and [`CopySource`] for a copy that bypasses this process.

pub(crate) mod buffer;
#[cfg(any(feature = "azure", feature = "fs", feature = "object_store"))]
mod chunk_reader;
mod copy_source;
#[cfg(feature = "dicom")]
mod dicom;
mod file;
#[cfg(feature = "dicom")]
pub(crate) mod head;
#[cfg(feature = "fs")]
mod partial_file;
mod writer;

use std::fmt;

use bytes::Bytes;
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
    /// it.
    pub fn from_stream(
        length: Option<u64>,
        stream: impl futures::Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        Self { length, body: Body::Stream(stream.boxed()) }
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

    /// Returns the bytes as a stream. After an error it yields nothing more.
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
