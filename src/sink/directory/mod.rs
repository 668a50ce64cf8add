//! [`DirectorySink`]: a folder as a container.

mod file;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join;
use url::Url;

use self::file::{CommitGuard, PartFile, TargetFile, end_of_last_line};
use crate::content::{ChunkReader, Content};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::{BlobSink, LogKey, PutResult};
use crate::sync::{blocking, lock};

/// The number of bytes that one call on a blocking thread writes.
const WRITE_SIZE: u64 = 1 << 20;

/// A folder as a destination, with the layout of a container.
///
/// An instance is written to a hidden file, `<operation id>/.parts/.<random>.part`, synced and renamed; then its folder is
/// synced. After a crash or a power failure, the instance is therefore complete or absent. The hidden files of a process
/// that was killed are deleted when the operation is resumed with a destination, and when it ends.
///
/// Only one process at a time may append to the log of an operation.
///
/// ```
/// use dicom_export::{DirectorySink, ExportEngine, ExportSource, MemorySource, NewOperation};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("exports");
/// let source = MemorySource::new();
/// source.insert("1.2.3/4.5/6.7".parse()?, &b"the bytes of a DICOM file"[..]);
/// let sink = DirectorySink::open(&path)?;
/// let engine = ExportEngine::builder(source).build()?;
/// let operation = engine.start(NewOperation::new(ExportSource::Everything, sink)).await?;
/// engine.wait(operation.operation_id).await?;
///
/// let instance = format!("{}/results/1.2.3/4.5/6.7.dcm", operation.operation_id);
/// assert_eq!(std::fs::read(path.join(instance))?, b"the bytes of a DICOM file");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct DirectorySink {
    root: Arc<Path>,
    /// Ends with `/`.
    url: Arc<str>,
    /// Held while a log is appended to.
    append_lock: Arc<Mutex<()>>,
}

impl DirectorySink {
    /// Opens the folder at `path`, and creates it and its parents if it does not exist. This call blocks. Whether the
    /// folder can be written is checked when an export is prepared.
    ///
    /// # Errors
    /// - [`Unauthorized`](ErrorKind::Unauthorized): the folder may not be created.
    /// - [`Invalid`](ErrorKind::Invalid): the path is not a folder.
    /// - [`Unavailable`](ErrorKind::Unavailable): the storage is full or does not respond.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let root = std::path::absolute(path).map_err(write_error)?;
        fs::create_dir_all(&root).map_err(write_error)?;
        let Ok(url) = Url::from_directory_path(&root) else {
            return Err(Error::new(ErrorKind::Invalid, "the destination folder has no URL"));
        };
        Ok(Self { root: root.into(), url: String::from(url).into(), append_lock: Arc::default() })
    }

    fn file(&self, path: &BlobPath) -> TargetFile {
        TargetFile::new(&self.root, path)
    }
}

impl fmt::Debug for DirectorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectorySink").field("url", &self.url).finish_non_exhaustive()
    }
}

#[async_trait]
impl BlobSink for DirectorySink {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        let target = self.file(log);
        write_blocking(move || {
            target.remove_partial_files()?;
            target.with_folder(|path| OpenOptions::new().append(true).create(true).open(path))?.sync_all()?;
            target.sync_folder()
        })
        .await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        let target = self.file(path);
        let guard = CommitGuard::default();
        let token = guard.token();
        if let Some(bytes) = content.as_bytes() {
            let bytes = bytes.clone();
            return write_blocking(move || {
                let mut part = PartFile::create(target)?;
                part.write(&[bytes])?;
                part.commit(&token)
            })
            .await;
        }
        // Half of the buffer is written while the other half is read.
        let size = WRITE_SIZE.min(upload.buffer_limit() / 2).max(1);
        let mut chunks = ChunkReader::new(content);
        let mut chunk = chunks.next(size).await?;
        let mut part = None;
        while !chunk.is_last {
            let target = target.clone();
            let write = write_blocking(move || {
                let mut part = part.map_or_else(|| PartFile::create(target), Ok)?;
                part.write(&chunk.parts)?;
                Ok(part)
            });
            let (written, next) = join(write, chunks.next(size)).await;
            (part, chunk) = (Some(written?), next?);
        }
        write_blocking(move || {
            let mut part = part.map_or_else(|| PartFile::create(target), Ok)?;
            part.write(&chunk.parts)?;
            part.commit(&token)
        })
        .await
    }

    async fn append(&self, log: &BlobPath, _: LogKey, lines: Bytes) -> Result<()> {
        let (target, append_lock) = (self.file(log), Arc::clone(&self.append_lock));
        write_blocking(move || {
            let _guard = lock(&append_lock);
            let options = || OpenOptions::new().read(true).append(true).create(true).clone();
            let mut file = target.with_folder(|path| options().open(path))?;
            let length = end_of_last_line(&mut file)?;
            let written = file.write_all(&lines).and_then(|()| file.sync_data());
            if written.is_err() {
                // A full disk may have taken part of a line.
                file.set_len(length)?;
            }
            written
        })
        .await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        let target = self.file(log);
        write_blocking(move || target.remove_partial_files()).await
    }

    /// A `file` URL (RFC 8089).
    fn url(&self, path: &BlobPath) -> String {
        format!("{}{path}", self.url)
    }

    fn location(&self) -> String {
        self.url.to_string()
    }
}

async fn write_blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    blocking(|| work().map_err(write_error)).await
}

/// Converts an error of writing to the folder.
fn write_error(cause: io::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, message) = match cause.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            (ErrorKind::Unauthorized, "writing to the destination folder is not permitted")
        }
        Io::NotFound => (ErrorKind::NotFound, "the destination folder does not exist"),
        Io::NotADirectory | Io::AlreadyExists | Io::IsADirectory | Io::InvalidInput | Io::InvalidFilename => {
            (ErrorKind::Invalid, "the destination is not a folder, or a path in it has the wrong type")
        }
        Io::FileTooLarge => (ErrorKind::TooLarge, "the file is too large for the destination"),
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Unavailable, "the destination's storage is full"),
        _ => (ErrorKind::Unavailable, "the destination folder cannot be written to"),
    };
    Error::new(kind, message).with_source(cause)
}
