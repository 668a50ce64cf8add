//! [`ChunkReader`]: cuts a content into chunks of exact sizes.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::content::Content;
use crate::error::Result;

/// Reads a content in chunks of the sizes that are asked for, without copying.
pub(crate) struct ChunkReader {
    stream: BoxStream<'static, Result<Bytes>>,
    /// What has been read of the stream and not returned yet.
    rest: Bytes,
}

/// The bytes of a chunk, in the parts in which the stream yielded them.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) parts: Vec<Bytes>,
    pub(crate) len: u64,
    /// Whether the content ends with this chunk. Only the last chunk is shorter than requested; it may be empty.
    pub(crate) is_last: bool,
}

impl ChunkReader {
    pub(crate) fn new(content: Content) -> Self {
        Self { stream: content.into_stream(), rest: Bytes::new() }
    }

    /// Reads the next `size` bytes, or what is left of them.
    ///
    /// # Errors
    /// Those of the content.
    ///
    /// # Cancellation
    /// Dropping the future loses what it has read.
    pub(crate) async fn next(&mut self, size: u64) -> Result<Chunk> {
        let mut chunk = Chunk::default();
        while chunk.len < size {
            if self.rest.is_empty() {
                match self.stream.next().await {
                    Some(read) => self.rest = read?,
                    None => {
                        chunk.is_last = true;
                        break;
                    }
                }
                continue;
            }
            let wanted = usize::try_from(size - chunk.len).unwrap_or(usize::MAX);
            let part = self.rest.split_to(wanted.min(self.rest.len()));
            chunk.len += part.len() as u64;
            chunk.parts.push(part);
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;
    use crate::error::{Error, ErrorKind};

    fn reader(parts: impl IntoIterator<Item = &'static str>) -> ChunkReader {
        let parts: Vec<_> = parts.into_iter().map(|part| Ok(Bytes::from(part))).collect();
        ChunkReader::new(Content::from_stream(None, stream::iter(parts)))
    }

    async fn read(reader: &mut ChunkReader, size: u64) -> (String, u64, bool) {
        let chunk = reader.next(size).await.unwrap();
        (String::from_utf8(chunk.parts.concat()).unwrap(), chunk.len, chunk.is_last)
    }

    #[tokio::test]
    async fn chunks_have_the_size_that_is_asked_for_and_only_the_last_is_shorter() {
        let mut parts = reader(["ab", "", "cdefg", "h"]);
        assert_eq!(read(&mut parts, 3).await, ("abc".to_owned(), 3, false));
        assert_eq!(read(&mut parts, 1).await, ("d".to_owned(), 1, false));
        assert_eq!(read(&mut parts, 9).await, ("efgh".to_owned(), 4, true));
        let mut exact = reader(["ab"]);
        assert_eq!(read(&mut exact, 2).await, ("ab".to_owned(), 2, false));
        assert_eq!(read(&mut exact, 2).await, (String::new(), 0, true));
    }

    #[tokio::test]
    async fn an_error_of_the_content_is_returned() {
        let parts = [Ok(Bytes::from("ab")), Err(Error::new(ErrorKind::Unavailable, "unavailable"))];
        let mut reader = ChunkReader::new(Content::from_stream(None, stream::iter(parts)));
        assert_eq!(reader.next(5).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
}
