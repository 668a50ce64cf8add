//! [`PartFile`]: a file that becomes visible as a whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use crate::content::partial_file_name;
use crate::model::BlobPath;
use crate::sink::PutResult;
use crate::sync::lock;

/// The name of the folder of an operation that holds the files that are being written.
const PARTIAL_FOLDER: &str = ".parts";

/// The file of a blob.
#[derive(Clone)]
pub(super) struct TargetFile {
    root: Arc<Path>,
    path: PathBuf,
    /// The folder of the operation's partial files.
    partial_folder: PathBuf,
}

impl TargetFile {
    pub(super) fn new(root: &Arc<Path>, blob: &BlobPath) -> Self {
        let operation = blob.as_str().split('/').next().unwrap_or_default();
        let partial_folder = root.join(operation).join(PARTIAL_FOLDER);
        Self { root: Arc::clone(root), path: root.join(blob.as_str()), partial_folder }
    }

    fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.root)
    }

    /// Opens or replaces the file, and creates its folder first if it does not exist.
    pub(super) fn with_folder<T>(&self, open: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
        match open(&self.path) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                create_folder(&self.root, self.folder())?;
                open(&self.path)
            }
            result => result,
        }
    }

    /// A hidden file in the folder of the operation's partial files.
    fn partial(&self) -> Self {
        Self { path: self.partial_folder.join(partial_file_name()), ..self.clone() }
    }

    /// Deletes the operation's partial files, which only processes that were killed or have lost the operation's lease
    /// can have left.
    pub(super) fn remove_partial_files(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.partial_folder) {
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => Ok(()),
            // A file was created meanwhile, by a write that is in progress in such a process.
            Err(cause) if cause.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            removed => removed,
        }
    }

    pub(super) fn sync_folder(&self) -> io::Result<()> {
        sync_folder(self.folder())
    }
}

/// Creates a folder below the root. It does not create the root: if the root's disk was unmounted, a new root would be a
/// folder on another disk.
fn create_folder(root: &Path, folder: &Path) -> io::Result<()> {
    let created = match fs::create_dir(folder) {
        Err(missing) if missing.kind() == io::ErrorKind::NotFound && folder != root => {
            let Some(parent) = folder.parent().filter(|_| root.is_dir()) else { return Err(missing) };
            create_folder(root, parent)?;
            fs::create_dir(folder)
        }
        created => created,
    };
    match created {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(cause) => Err(cause),
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
    }
}

/// Makes the entries of a folder durable.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Does nothing: only Unix systems can sync a folder.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Removes an incomplete line, which a killed process can leave, from the end of a log, and returns the log's length.
pub(super) fn end_of_last_line(file: &mut File) -> io::Result<u64> {
    const STEP: u64 = 64 << 10;
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        // The last byte alone is nearly always enough.
        let start = if end == length { end - 1 } else { end.saturating_sub(STEP) };
        let mut bytes = vec![0; (end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(&mut bytes)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
    }
    Ok(end)
}

/// A hidden file that becomes the target by [`commit`](Self::commit). It is deleted if it is dropped before.
pub(super) struct PartFile {
    target: TargetFile,
    /// Empty after the commit.
    path: PathBuf,
    file: Option<File>,
    size: u64,
}

impl PartFile {
    pub(super) fn create(target: TargetFile) -> io::Result<Self> {
        let part = target.partial();
        let file = part.with_folder(|path| OpenOptions::new().write(true).create_new(true).open(path))?;
        Ok(Self { target, path: part.path, file: Some(file), size: 0 })
    }

    pub(super) fn write(&mut self, chunks: &[Bytes]) -> io::Result<()> {
        for chunk in chunks {
            if let Some(file) = &mut self.file {
                file.write_all(chunk)?;
            }
            self.size += chunk.len() as u64;
        }
        Ok(())
    }

    pub(super) fn commit(mut self, token: &CommitToken) -> io::Result<PutResult> {
        if let Some(file) = &self.file {
            file.sync_all()?;
        }
        // Some systems cannot rename an open file.
        self.file = None;
        token.commit(|| self.target.with_folder(|path| fs::rename(&self.path, path)))?;
        self.path = PathBuf::new();
        self.target.sync_folder()?;
        Ok(PutResult::new(self.size))
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        self.file = None;
        if !self.path.as_os_str().is_empty() {
            // A file that cannot be deleted is hidden, and documented on `DirectorySink`.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Revokes its [`CommitToken`]s when it is dropped, so that a blocking thread that outlives the future of a `put` does not
/// commit.
#[derive(Default)]
pub(super) struct CommitGuard(CommitToken);

impl CommitGuard {
    pub(super) fn token(&self) -> CommitToken {
        self.0.clone()
    }
}

impl Drop for CommitGuard {
    fn drop(&mut self) {
        *lock(&self.0.is_revoked) = true;
    }
}

/// The permission to commit.
#[derive(Clone, Default)]
pub(super) struct CommitToken {
    is_revoked: Arc<Mutex<bool>>,
}

impl CommitToken {
    /// Commits unless the token is revoked. The lock is held meanwhile, so that nothing is committed after revocation.
    fn commit(&self, commit: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let is_revoked = lock(&self.is_revoked);
        if *is_revoked {
            return Err(io::ErrorKind::Interrupted.into());
        }
        commit()
    }
}
