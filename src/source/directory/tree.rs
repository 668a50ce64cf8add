//! [`Tree`]: a folder, and whose failure an error below it is.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::opener::Opener;
use crate::content::read_error;
use crate::error::{Error, ErrorKind, Result};

/// A folder and everything below it.
#[derive(Clone)]
pub(super) struct Tree {
    pub(super) root: Arc<Path>,
    pub(super) follow_links: bool,
}

impl Tree {
    pub(super) fn opener(&self) -> Opener {
        Opener::new(&self.root, self.follow_links)
    }

    /// Returns the path without symbolic links, if links are followed.
    pub(super) fn real_path(&self, path: &Path) -> Option<PathBuf> {
        self.follow_links.then(|| fs::canonicalize(self.root.join(path)).ok()).flatten()
    }

    /// Fails if the root looks unmounted: its files have not been deleted then.
    pub(super) fn check_root(&self) -> Result<()> {
        let cause = match fs::read_dir(&self.root).and_then(|mut names| names.next().transpose()) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {
                return Err(Error::new(ErrorKind::Unavailable, "the source's folder has become empty"));
            }
            Err(cause) => cause,
        };
        let message = "the source's folder cannot be read any more";
        Err(Error::new(ErrorKind::Unavailable, message).with_source(cause))
    }

    /// Classifies a failure to read an entry. Returns whether the entry still exists.
    ///
    /// # Errors
    /// The failure, if it is the source's and not the entry's.
    pub(super) fn classify(&self, cause: io::Error, path: &Path) -> Result<bool> {
        let error = read_error(cause);
        if path.as_os_str().is_empty() {
            self.check_root()?;
            return Err(error);
        }
        match error.kind() {
            ErrorKind::NotFound => self.check_root().map(|()| false),
            ErrorKind::Unavailable => Err(error),
            _ => Ok(true),
        }
    }
}
