//! [`Content`]: the bytes of one instance.

pub(crate) mod buffer;
mod copy_source;
#[cfg(feature = "dicom")]
mod dicom;
#[cfg(feature = "dicom")]
pub(crate) mod head;

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use self::buffer::Buffer;
pub use self::copy_source::CopySource;
use crate::error::{Error, ErrorKind, Result};

/// A file up to this size is read in one piece, on one trip to a blocking thread.
const WHOLE_FILE: u64 = 4 << 20;

/// How much of a larger file, or of a writer's output, one chunk holds.
const CHUNK: usize = 1 << 20;

/// A writer's first chunk: most contents are small.
const FIRST_CHUNK: usize = 64 << 10;

/// The bytes of one instance: DICOM Part 10 (PS3.10 7), passed on as they are.
///
/// Dropping it, or the stream made of it, stops the reading. A chunk of a stream should hold about a megabyte: the
/// engine's byte budget cannot see a chunk before it is there.
pub struct Content {
    length: Option<u64>,
    body: Body,
}

enum Body {
    Bytes(Bytes),
    Stream(BoxStream<'static, Result<Bytes>>),
}

impl Content {
    /// Bytes in memory; they are not copied.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { length: Some(bytes.len() as u64), body: Body::Bytes(bytes) }
    }

    /// A stream, with its length in bytes if it is known. The engine holds the stream to that length: one that ends
    /// early or goes on is that instance's error. An error in the stream ends it.
    pub fn from_stream(
        length: Option<u64>,
        stream: impl futures::Stream<Item = Result<Bytes>> + Send + 'static,
    ) -> Self {
        Self { length, body: Body::Stream(stream.boxed()) }
    }

    /// What a function writes, on a blocking thread, as fast as it is read and up to three megabytes ahead.
    ///
    /// Once the content is dropped the function's writes fail with [`io::ErrorKind::BrokenPipe`]. An error that it
    /// returns is the content's.
    pub fn from_writer(write: impl FnOnce(&mut dyn Write) -> Result<()> + Send + 'static) -> Self {
        Self::from_stream(
            None,
            produced(move |chunks| {
                let mut out = ChunkWriter { chunk: Buffer::with_room(FIRST_CHUNK), chunks };
                write(&mut out)?;
                send(out.chunks, out.chunk).map_err(|cause| {
                    Error::new(ErrorKind::Internal, "the content's writer failed").with_source(cause)
                })
            }),
        )
    }

    /// A file as it is when it is opened; its length is the file's.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not there; [`ErrorKind::Unavailable`] when the system is short of something
    /// or a network file system does not answer; otherwise [`ErrorKind::Unreadable`].
    pub async fn from_file(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        blocking(move || {
            let mut file = File::open(path)?;
            let length = file.metadata()?.len();
            if length > WHOLE_FILE {
                return Ok(Self::from_stream(Some(length), file_chunks(file)));
            }
            let bytes = read_up_to(&mut file, length as usize)?;
            Ok(Self { length: Some(length), body: Body::Bytes(bytes) })
        })
        .await
    }

    /// How many bytes there are, if that is known before reading them.
    pub fn length(&self) -> Option<u64> {
        self.length
    }

    /// The bytes, if they are all in memory already.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match &self.body {
            Body::Bytes(bytes) => Some(bytes),
            Body::Stream(_) => None,
        }
    }

    /// The bytes as a stream. After an error it yields nothing more.
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

/// The rest of a file, read ahead of whoever uses it: reading and sending go on at the same time.
fn file_chunks(mut file: File) -> impl futures::Stream<Item = Result<Bytes>> + Send + 'static {
    produced(move |chunks| {
        loop {
            let chunk = read_up_to(&mut file, CHUNK).map_err(read_error)?;
            // A chunk that nobody takes: the content was dropped.
            if chunk.is_empty() || chunks.blocking_send(Some(Ok(chunk))).is_err() {
                return Ok(());
            }
        }
    })
}

/// Chunks on their way from a blocking thread; `None` is the end.
type Chunks = mpsc::Sender<Option<Result<Bytes>>>;

/// What a blocking thread sends, as a stream. The thread is taken by the first poll, so that a content nobody reads
/// costs none, and is given back at the end, or soon after the stream is dropped: sending fails then.
fn produced(
    work: impl FnOnce(&Chunks) -> Result<()> + Send + 'static,
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
            // The thread panicked: what came so far must not pass for the whole.
            None => {
                ended = true;
                Some(Err(Error::new(ErrorKind::Internal, "the content's writer stopped")))
            }
        })
    })
}

/// Reads so many bytes, or up to the end.
pub(crate) fn read_up_to(file: &mut File, length: usize) -> io::Result<Bytes> {
    let mut buffer = Buffer::with_room(length);
    while buffer.len() < length {
        let wanted = length - buffer.len();
        match file.read(&mut buffer.room()[..wanted]) {
            Ok(0) => break,
            Ok(read) => buffer.fill(read),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(buffer.into_bytes())
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(read_error),
        Err(cause) => Err(Error::new(ErrorKind::Internal, "a reading thread stopped").with_source(cause)),
    }
}

/// What a failed read says of a file.
pub(crate) fn read_error(cause: io::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, message) = match cause.kind() {
        Io::NotFound => (ErrorKind::NotFound, "the file is gone"),
        Io::TimedOut
        | Io::StaleNetworkFileHandle
        | Io::HostUnreachable
        | Io::NetworkUnreachable
        | Io::NetworkDown
        | Io::NotConnected
        | Io::ConnectionReset
        | Io::OutOfMemory
        | Io::ResourceBusy => (ErrorKind::Unavailable, "the file's storage does not answer"),
        // ENFILE and EMFILE have no kind of their own.
        _ if matches!(cause.raw_os_error(), Some(23 | 24)) => {
            (ErrorKind::Unavailable, "too many files are open")
        }
        Io::PermissionDenied => (ErrorKind::Unreadable, "the file may not be read"),
        _ => (ErrorKind::Unreadable, "the file cannot be read"),
    };
    Error::new(kind, message).with_source(cause)
}

/// The writing end of [`Content::from_writer`]: whole chunks.
struct ChunkWriter<'a> {
    chunk: Buffer,
    chunks: &'a Chunks,
}

fn send(chunks: &Chunks, chunk: Buffer) -> io::Result<()> {
    if chunk.len() == 0 {
        return Ok(());
    }
    chunks.blocking_send(Some(Ok(chunk.into_bytes()))).map_err(|_| io::ErrorKind::BrokenPipe.into())
}

impl Write for ChunkWriter<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let room = self.chunk.room();
        let taken = data.len().min(room.len());
        room[..taken].copy_from_slice(&data[..taken]);
        self.chunk.fill(taken);
        if self.chunk.room().is_empty() {
            send(self.chunks, std::mem::replace(&mut self.chunk, Buffer::with_room(CHUNK)))?;
        }
        Ok(taken)
    }

    /// Does nothing: a writer that flushes often would make small chunks.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
