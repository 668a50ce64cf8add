//! Opens files below a folder, on systems without `openat`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Opens files below a root.
pub(super) struct Opener {
    root: PathBuf,
    follow_links: bool,
}

impl Opener {
    pub(super) fn new(root: &Path, follow_links: bool) -> Self {
        Self { root: root.to_owned(), follow_links }
    }

    /// Opens a regular file for reading.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] if it is not a regular file, and those of the system.
    pub(super) fn open(&mut self, path: &Path) -> io::Result<File> {
        let full = self.root.join(path);
        let links = path.ancestors().filter(|part| !part.as_os_str().is_empty());
        for part in links {
            if !self.follow_links && fs::symlink_metadata(self.root.join(part))?.is_symlink() {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a symbolic link"));
            }
        }
        match fs::metadata(&full)?.is_file() {
            true => File::open(full),
            false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }
}
