//! Contents that a function writes.

use std::io::{self, Write};

use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::buffer::Buffer;
use super::{CHUNK_SIZE, Content};
use crate::error::{Error, ErrorKind, Result};

/// The size of the first chunk: most contents are small.
const FIRST_CHUNK_SIZE: usize = 64 << 10;

impl Content {
    /// Creates a content from what a function writes. The function runs on a blocking thread, at most three megabytes
    /// ahead of the reader, and starts when the content is first read.
    ///
    /// If the function returns an error, reading the content fails with it. Once the content is dropped, the function's
    /// writes fail with [`io::ErrorKind::BrokenPipe`].
    ///
    /// ```
    /// # use dicom_export::{Content, Error, ErrorKind};
    /// # use futures::TryStreamExt;
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let content = Content::from_writer(|out| {
    ///     out.write_all(b"bytes of a file").map_err(|cause| {
    ///         Error::new(ErrorKind::Unreadable, "the instance cannot be encoded").with_source(cause)
    ///     })
    /// });
    /// let chunks: Vec<_> = content.into_stream().try_collect().await?;
    /// assert_eq!(chunks.concat(), b"bytes of a file");
    /// # Ok::<_, Error>(()) }).unwrap();
    /// ```
    pub fn from_writer(write: impl FnOnce(&mut dyn Write) -> Result<()> + Send + 'static) -> Self {
        Self::from_stream(
            None,
            produce(move |chunks| {
                let mut out = ChunkWriter { chunk: Buffer::with_capacity(FIRST_CHUNK_SIZE), chunks };
                write(&mut out)?;
                send(out.chunks, out.chunk).map_err(|cause| {
                    Error::new(ErrorKind::Internal, "the content was dropped while it was written")
                        .with_source(cause)
                })
            }),
        )
    }
}

/// Sends the chunks of a content from a blocking thread; `None` ends the content.
pub(super) type ChunkSender = mpsc::Sender<Option<Result<Bytes>>>;

/// Runs blocking work and returns the chunks that it sends.
///
/// The work starts at the first poll, so that a content that is never read takes no thread. After the stream is dropped,
/// sending fails.
pub(super) fn produce(
    work: impl FnOnce(&ChunkSender) -> Result<()> + Send + 'static,
) -> impl futures::Stream<Item = Result<Bytes>> + Send + 'static {
    let (sender, mut chunks) = mpsc::channel(2);
    let mut start = Some(move || {
        spawn_blocking(move || {
            let end = match work(&sender) {
                Ok(()) => None,
                Err(error) => Some(Err(error)),
            };
            sender.blocking_send(end).is_ok()
        });
    });
    let mut ended = false;
    stream::poll_fn(move |context| {
        if let Some(start) = start.take() {
            start();
        }
        if ended {
            return std::task::Poll::Ready(None);
        }
        chunks.poll_recv(context).map(|item| match item {
            Some(None) => {
                ended = true;
                None
            }
            Some(Some(item)) => {
                ended = item.is_err();
                Some(item)
            }
            // The thread panicked: the chunks so far must not pass for the whole content.
            None => {
                ended = true;
                Some(Err(Error::new(ErrorKind::Internal, "the content's writer panicked")))
            }
        })
    })
}

/// Collects what is written into chunks.
struct ChunkWriter<'a> {
    chunk: Buffer,
    chunks: &'a ChunkSender,
}

fn send(chunks: &ChunkSender, chunk: Buffer) -> io::Result<()> {
    if chunk.len() == 0 {
        return Ok(());
    }
    chunks.blocking_send(Some(Ok(chunk.into_bytes()))).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let unfilled = self.chunk.unfilled();
        let taken = data.len().min(unfilled.len());
        unfilled[..taken].copy_from_slice(&data[..taken]);
        self.chunk.advance(taken);
        if self.chunk.unfilled().is_empty() {
            send(self.chunks, std::mem::replace(&mut self.chunk, Buffer::with_capacity(CHUNK_SIZE)))?;
        }
        Ok(taken)
    }

    /// Does nothing: a writer that flushes often would produce small chunks.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
