//! Contents that are read from files.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

use bytes::Bytes;

use super::buffer::Buffer;
use super::writer::produce;
use super::{CHUNK_SIZE, Content};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::blocking;

/// A file up to this size is read at once, on one trip to a blocking thread.
const MAX_WHOLE_FILE: u64 = 4 << 20;

impl Content {
    /// Creates a content from a file as it is when it is opened; its length is the file's.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] if the file does not exist, [`ErrorKind::Unavailable`] if the system is short of a
    /// resource, the disk fails or a network file system does not respond, [`ErrorKind::Conflict`] if its length changes
    /// while it is read, otherwise [`ErrorKind::Unreadable`].
    pub async fn from_file(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        blocking(move || Self::from_open_file(File::open(path).map_err(read_error)?)).await
    }

    /// Creates a content from an open file. A small one is read now.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if a small file changes its length while it is read; otherwise those of
    /// [`from_file`](Self::from_file). The reader of a large one compares its length.
    pub(crate) fn from_open_file(mut file: File) -> Result<Self> {
        let length = file.metadata().map_err(read_error)?.len();
        if length > MAX_WHOLE_FILE {
            return Ok(Self::from_stream(Some(length), read_in_chunks(file)));
        }
        let bytes = read_up_to(&mut file, length as usize).map_err(read_error)?;
        let length_after = file.metadata().map_err(read_error)?.len();
        if bytes.len() as u64 != length || length_after != length {
            return Err(Error::new(ErrorKind::Conflict, "the file changed while it was read"));
        }
        Ok(Self::from_bytes(bytes))
    }
}

/// Reads the rest of a file on a blocking thread, ahead of the consumer.
fn read_in_chunks(mut file: File) -> impl futures::Stream<Item = Result<Bytes>> + Send + 'static {
    produce(move |chunks| {
        loop {
            let chunk = read_up_to(&mut file, CHUNK_SIZE).map_err(read_error)?;
            // Sending fails once the content has been dropped.
            if chunk.is_empty() || chunks.blocking_send(Some(Ok(chunk))).is_err() {
                return Ok(());
            }
        }
    })
}

/// Reads `length` bytes, or fewer at the end of the file.
pub(crate) fn read_up_to(file: &mut File, length: usize) -> io::Result<Bytes> {
    let mut buffer = Buffer::with_capacity(length);
    while buffer.len() < length {
        let wanted = length - buffer.len();
        match file.read(&mut buffer.unfilled()[..wanted]) {
            Ok(0) => break,
            Ok(read) => buffer.advance(read),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(buffer.into_bytes())
}

/// Converts the error of reading a file.
pub(crate) fn read_error(cause: io::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, message) = match cause.kind() {
        Io::NotFound => (ErrorKind::NotFound, "the file does not exist any more"),
        Io::TimedOut
        | Io::StaleNetworkFileHandle
        | Io::HostUnreachable
        | Io::NetworkUnreachable
        | Io::NetworkDown
        | Io::NotConnected
        | Io::ConnectionReset
        | Io::OutOfMemory
        | Io::ResourceBusy => (ErrorKind::Unavailable, "the file's storage does not respond"),
        // ENFILE and EMFILE have no `io::ErrorKind`.
        _ if matches!(cause.raw_os_error(), Some(23 | 24)) => {
            (ErrorKind::Unavailable, "too many files are open")
        }
        Io::PermissionDenied => (ErrorKind::Unreadable, "permission to read the file is denied"),
        // EIO has no `io::ErrorKind` either: the disk fails, not the file.
        _ if cause.raw_os_error() == Some(5) => (ErrorKind::Unavailable, "the file's storage fails"),
        _ => (ErrorKind::Unreadable, "the file cannot be read"),
    };
    Error::new(kind, message).with_source(cause)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_disk_is_not_the_files_fault() {
        let kind = |number| read_error(io::Error::from_raw_os_error(number)).kind();
        assert_eq!(kind(2), ErrorKind::NotFound);
        assert_eq!(kind(5), ErrorKind::Unavailable, "EIO");
        assert_eq!(kind(13), ErrorKind::Unreadable, "EACCES");
        assert_eq!(kind(24), ErrorKind::Unavailable, "EMFILE");
    }
}
