//! [`DirectorySink`]: a folder as a container.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join;
use tokio::task::spawn_blocking;
use url::Url;
use uuid::Uuid;

use crate::content::{ChunkReader, Content};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::{BlobSink, LogKey, PutResult};
use crate::sync::lock;

/// How much of a stream is written on one trip to a blocking thread.
const PIECE: u64 = 1 << 20;

/// A folder that instances are written to, laid out as a container is.
///
/// An instance is written under a hidden name beside its own (`.<random>.part`), synced, and renamed; then its folder
/// is synced. So it is there as a whole, after a power cut too, or not at all. A process that is killed can leave such
/// a hidden file behind; nothing reads it, and it may be deleted.
///
/// The log of an operation is appended to by one process at a time.
#[derive(Clone)]
pub struct DirectorySink {
    root: Arc<Path>,
    /// Ends in `/`.
    url: Arc<str>,
    logs: Arc<Mutex<()>>,
}

impl DirectorySink {
    /// The folder at this path, made with those above it if it is not there. That it can be written to is proved when
    /// an export is prepared.
    ///
    /// # Errors
    /// [`Unauthorized`](ErrorKind::Unauthorized) when it may not be made, [`Invalid`](ErrorKind::Invalid) when there
    /// is something else in its place, [`Unavailable`](ErrorKind::Unavailable) when its storage is full or does not
    /// answer.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let root = std::path::absolute(path).map_err(write_error)?;
        fs::create_dir_all(&root).map_err(write_error)?;
        let Ok(url) = Url::from_directory_path(&root) else {
            return Err(Error::new(ErrorKind::Invalid, "the destination's folder has no URL"));
        };
        Ok(Self { root: root.into(), url: String::from(url).into(), logs: Arc::default() })
    }

    fn file(&self, path: &BlobPath) -> Target {
        Target { root: Arc::clone(&self.root), path: self.root.join(path.as_str()) }
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
        on_thread(move || {
            target.with_folder(|path| OpenOptions::new().append(true).create(true).open(path))?.sync_all()?;
            target.sync_folder()
        })
        .await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        let target = self.file(path);
        let wish = Wish::default();
        let consent = wish.consent();
        if let Some(bytes) = content.as_bytes() {
            let bytes = bytes.clone();
            return on_thread(move || {
                let mut part = Part::create(target)?;
                part.write(&[bytes])?;
                part.commit(&consent)
            })
            .await;
        }
        // A chunk is written while the next one is read.
        let size = PIECE.min(upload.buffer_limit() / 2).max(1);
        let mut chunks = ChunkReader::new(content);
        let mut chunk = chunks.next(size).await?;
        let mut part = None;
        while !chunk.is_last {
            let target = target.clone();
            let write = on_thread(move || {
                let mut part = part.map_or_else(|| Part::create(target), Ok)?;
                part.write(&chunk.parts)?;
                Ok(part)
            });
            let (written, next) = join(write, chunks.next(size)).await;
            (part, chunk) = (Some(written?), next?);
        }
        on_thread(move || {
            let mut part = part.map_or_else(|| Part::create(target), Ok)?;
            part.write(&chunk.parts)?;
            part.commit(&consent)
        })
        .await
    }

    async fn append(&self, log: &BlobPath, _: LogKey, lines: Bytes) -> Result<()> {
        let (target, logs) = (self.file(log), Arc::clone(&self.logs));
        on_thread(move || {
            // Whole lines: what is short of one, after a full disk, is taken away again.
            let _guard = lock(&logs);
            let options = || OpenOptions::new().read(true).append(true).create(true).clone();
            let mut file = target.with_folder(|path| options().open(path))?;
            let length = end_of_last_line(&mut file)?;
            let written = file.write_all(&lines).and_then(|()| file.sync_data());
            if written.is_err() {
                file.set_len(length)?;
            }
            written
        })
        .await
    }

    async fn finish(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    /// A `file` URL (RFC 8089).
    fn url(&self, path: &BlobPath) -> String {
        format!("{}{path}", self.url)
    }

    fn location(&self) -> String {
        self.url.to_string()
    }
}

/// Where a blob is to be.
#[derive(Clone)]
struct Target {
    root: Arc<Path>,
    path: PathBuf,
}

impl Target {
    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.root)
    }

    /// Opens a file, and if its folder is not there yet, makes that first.
    fn with_folder(&self, open: impl Fn(&Path) -> io::Result<File>) -> io::Result<File> {
        match open(&self.path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                make_folder(&self.root, self.folder())?;
                open(&self.path)
            }
            outcome => outcome,
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        sync_folder(self.folder())
    }
}

/// Makes a folder below the root. The root itself is not made again: a disk that went away must not be replaced by a
/// folder on another one.
fn make_folder(root: &Path, folder: &Path) -> io::Result<()> {
    let made = match fs::create_dir(folder) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound && folder != root => {
            let Some(parent) = folder.parent().filter(|_| root.is_dir()) else { return Err(missing) };
            make_folder(root, parent)?;
            fs::create_dir(folder)
        }
        made => made,
    };
    match made {
        Err(other) if other.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(cause),
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
    }
}

/// Makes the names in a folder durable.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// There is no such call: the system does it.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Cuts what is short of a line from a log's end, which a process that was killed can leave, and gives its length.
fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let mut end = file.metadata()?.len();
    let full = end;
    while end > 0 {
        // Nearly always the last byte says it.
        let start = if end == full { end - 1 } else { end.saturating_sub(STEP) };
        let mut bytes = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < full {
        file.set_len(end)?;
    }
    Ok(end)
}

/// A blob that is being written; dropped before its commit, it is gone.
struct Part {
    target: Target,
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl Part {
    fn create(target: Target) -> io::Result<Self> {
        let path = target.folder().join(format!(".{}.part", Uuid::new_v4().simple()));
        let part = Target { root: Arc::clone(&target.root), path };
        let file = part.with_folder(|path| OpenOptions::new().write(true).create_new(true).open(path))?;
        Ok(Self { target, path: part.path, file: Some(file), size: 0 })
    }

    fn write(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        for chunk in chunks {
            if let Some(file) = &mut self.file {
                file.write_all(chunk)?;
            }
            self.size += chunk.len() as u64;
        }
        Ok(())
    }

    fn commit(mut self, consent: &Consent) -> io::Result<PutResult> {
        if let Some(file) = &self.file {
            file.sync_all()?;
        }
        // Closed first: some systems rename no open file.
        self.file = None;
        consent.act(|| fs::rename(&self.path, &self.target.path))?;
        self.path = PathBuf::new();
        self.target.sync_folder()?;
        Ok(PutResult::new(self.size))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.file = None;
        if !self.path.as_os_str().is_empty() {
            // Nothing can be done about one that stays: it is hidden, and the type's documentation tells of it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What a `put` wants while its future lives. A blocking thread cannot be stopped from outside: it asks.
#[derive(Default)]
struct Wish(Consent);

#[derive(Clone, Default)]
struct Consent(Arc<Mutex<bool>>);

impl Wish {
    fn consent(&self) -> Consent {
        self.0.clone()
    }
}

impl Drop for Wish {
    fn drop(&mut self) {
        *lock(&self.0.0) = true;
    }
}

impl Consent {
    /// Acts unless the wish is over. The wish does not end while it acts, so nothing is committed after its end.
    fn act(&self, action: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let is_over = lock(&self.0);
        if *is_over {
            return Err(io::ErrorKind::Interrupted.into());
        }
        action()
    }
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    match spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(write_error),
        Err(cause) => Err(Error::new(ErrorKind::Internal, "a writing thread stopped").with_source(cause)),
    }
}

/// What a failed write says of the folder.
fn write_error(cause: io::Error) -> Error {
    use io::ErrorKind as Io;
    let (kind, message) = match cause.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => {
            (ErrorKind::Unauthorized, "the destination's folder may not be written to")
        }
        Io::NotFound => (ErrorKind::NotFound, "the destination's folder is not there"),
        Io::NotADirectory | Io::AlreadyExists | Io::IsADirectory | Io::InvalidInput | Io::InvalidFilename => {
            (ErrorKind::Invalid, "the destination is no folder, or something stands in a file's place")
        }
        Io::FileTooLarge => (ErrorKind::Unsupported, "the destination takes no file of that size"),
        Io::StorageFull | Io::QuotaExceeded => (ErrorKind::Unavailable, "the destination's storage is full"),
        _ => (ErrorKind::Unavailable, "the destination's folder cannot be written to"),
    };
    Error::new(kind, message).with_source(cause)
}
