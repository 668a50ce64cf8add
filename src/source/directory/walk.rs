//! [`Walk`]: the files of a tree in path order, with bounded memory.

use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::names::{Name, Names, NamesBuilder};
use super::tree::Tree;
use crate::content::is_partial_file_name;
use crate::error::{Error, ErrorKind, Result};

/// A file, or a folder that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WalkEntry {
    /// Relative to the root.
    pub(super) path: PathBuf,
    pub(super) is_file: bool,
}

/// A walk through a tree in path order: folder by folder, names compared as bytes.
pub(super) struct Walk {
    tree: Tree,
    /// From the root to the current folder.
    folders: Vec<Folder>,
    is_lost: bool,
}

struct Folder {
    /// Relative to the root.
    path: PathBuf,
    /// Without symbolic links; only if links are followed.
    real_path: Option<PathBuf>,
    /// The names that follow; `None`: they have not been read.
    names: Option<Names>,
}

impl Walk {
    pub(super) fn new(tree: &Tree) -> Self {
        let root = Folder::new(PathBuf::new(), tree.real_path(Path::new("")));
        Self { tree: tree.clone(), folders: vec![root], is_lost: false }
    }

    /// Reduces the memory that the walk holds until it continues.
    pub(super) fn shrink(&mut self) -> Result<()> {
        let mut names = self.folders.iter_mut().filter_map(|folder| folder.names.as_mut());
        names.try_for_each(Names::shrink).map_err(temporary_file_error)
    }

    /// Returns up to `limit` entries; none at the end.
    ///
    /// # Errors
    /// Those of the source as a whole. The walk can be continued unless it [is lost](Self::is_lost).
    pub(super) fn next(&mut self, limit: usize) -> Result<Vec<WalkEntry>> {
        let mut entries = Vec::new();
        while entries.len() < limit {
            let Some(folder) = self.folders.last_mut() else { break };
            let Some(names) = &mut folder.names else {
                match read_names(&self.tree, &folder.path) {
                    Ok(names) => folder.names = Some(names),
                    Err(cause) => {
                        let path = folder.path.clone();
                        match self.tree.classify(cause, &path) {
                            Ok(exists) => {
                                self.folders.pop();
                                entries.extend(exists.then_some(WalkEntry { path, is_file: false }));
                            }
                            // What was found before is returned first; the next call fails.
                            Err(error) if entries.is_empty() => return Err(error),
                            Err(_) => break,
                        }
                    }
                }
                continue;
            };
            let name = match names.pop_front() {
                Ok(name) => name,
                Err(cause) => {
                    self.is_lost = true;
                    return Err(temporary_file_error(cause));
                }
            };
            match name {
                Some(Name { name, is_folder: false }) => {
                    entries.push(WalkEntry { path: folder.path.join(name), is_file: true });
                }
                Some(Name { name, .. }) => {
                    let path = folder.path.join(name);
                    self.folders.extend(self.enter(path));
                }
                None => _ = self.folders.pop(),
            }
        }
        Ok(entries)
    }

    /// Whether names are missing after an error.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost
    }

    /// Enters a folder, unless it is a link to one that contains it.
    fn enter(&self, path: PathBuf) -> Option<Folder> {
        let real_path = self.tree.real_path(&path);
        let is_loop = real_path.is_some() && self.folders.iter().any(|above| above.real_path == real_path);
        (!is_loop).then(|| Folder::new(path, real_path))
    }
}

impl Folder {
    fn new(path: PathBuf, real_path: Option<PathBuf>) -> Self {
        Self { path, real_path, names: None }
    }
}

fn read_names(tree: &Tree, path: &Path) -> io::Result<Names> {
    let mut names = NamesBuilder::new();
    for entry in fs::read_dir(tree.root.join(path))? {
        let entry = entry?;
        let name = entry.file_name();
        if !is_partial_file_name(&name)
            && let Some(is_folder) = is_folder(tree, &entry)
        {
            names.push(Name { name, is_folder });
        }
    }
    names.finish()
}

fn temporary_file_error(cause: io::Error) -> Error {
    let message = "the temporary file of a listing cannot be used";
    Error::new(ErrorKind::Unavailable, message).with_source(cause)
}

/// Returns `None` for anything but files and folders.
fn is_folder(tree: &Tree, entry: &DirEntry) -> Option<bool> {
    let mut kind = entry.file_type().ok()?;
    if kind.is_symlink() && tree.follow_links {
        match fs::metadata(entry.path()) {
            Ok(target) => kind = target.file_type(),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => return None,
            // It fails again when it is opened.
            Err(_) => return Some(false),
        }
    }
    (kind.is_file() || kind.is_dir()).then(|| kind.is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(folder: &Path) -> Tree {
        Tree { root: folder.into(), follow_links: false }
    }

    #[test]
    fn a_walk_continues_at_the_same_file_after_it_was_shrunk() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a/1", "a/2", "a/b/3", "c"] {
            fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
            fs::write(folder.path().join(name), "").unwrap();
        }
        fs::write(folder.path().join(format!(".{:032x}.part", 7)), "").unwrap();
        let mut walk = Walk::new(&tree(folder.path()));
        let mut found = Vec::new();
        while let [entry] = &*walk.next(1).unwrap() {
            found.push(entry.path.to_str().unwrap().to_owned());
            walk.shrink().unwrap();
        }
        assert_eq!(found, ["a/1", "a/2", "a/b/3", "c"]);
    }
}
