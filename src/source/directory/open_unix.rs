//! Opens files below a folder without following symbolic links and without waiting for FIFOs.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Opens files below a root. It keeps the folder of the last file open, since the next one is usually in it too.
pub(super) struct Opener {
    root: PathBuf,
    follow_links: bool,
    folder: Option<(PathBuf, OwnedFd)>,
}

impl Opener {
    pub(super) fn new(root: &Path, follow_links: bool) -> Self {
        Self { root: root.to_owned(), follow_links, folder: None }
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if it is not a regular file, and those of the system.
    pub(super) fn open(&mut self, path: &Path) -> io::Result<File> {
        // A FIFO without a writer opens at once.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = if self.follow_links {
            openat(CWD, self.root.join(path), flags, Mode::empty())?
        } else {
            let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
            openat(self.folder(path.parent())?, name, flags | OFlags::NOFOLLOW, Mode::empty())?
        };
        let file = File::from(file);
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// Opens a folder, component by component.
    fn folder(&mut self, path: Option<&Path>) -> io::Result<&OwnedFd> {
        let path = path.unwrap_or(Path::new(""));
        if self.folder.as_ref().is_none_or(|(open, _)| open != path) {
            self.folder = None;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let mut folder = openat(CWD, &self.root, flags, Mode::empty())?;
            for component in path.components() {
                let name = match component {
                    Component::Normal(name) => name,
                    _ => OsStr::new(""),
                };
                folder = openat(folder.as_fd(), name, flags | OFlags::NOFOLLOW, Mode::empty())?;
            }
            self.folder = Some((path.to_owned(), folder));
        }
        self.folder.as_ref().map(|(_, folder)| folder).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
