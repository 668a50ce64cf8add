//! [`Walk`]: the files of a tree in path order, with bounded memory.

use std::collections::{BinaryHeap, VecDeque};
use std::ffi::OsString;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};

use super::tree::Tree;
use crate::content::is_partial_file_name;
use crate::error::Result;

/// How many bytes of names a walk holds. Half of it is for the names of the root, a quarter for those of a folder in it,
/// and so on. A folder with more names is read several times.
const MAX_NAMES: usize = 8 << 20;

/// The minimum for a folder at any depth.
const MIN_NAMES: usize = 64 << 10;

/// The memory of a name besides its bytes.
const NAME_OVERHEAD: usize = 64;

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
}

struct Folder {
    /// Relative to the root.
    path: PathBuf,
    /// Without symbolic links; only if links are followed.
    real_path: Option<PathBuf>,
    /// The next names, in order.
    names: VecDeque<Name>,
    /// The last name returned.
    last: Option<OsString>,
    /// Whether no names follow those in `names`.
    is_complete: bool,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    name: OsString,
    is_folder: bool,
}

impl Walk {
    pub(super) fn new(tree: &Tree) -> Self {
        Self { tree: tree.clone(), folders: vec![Folder::new(PathBuf::new(), tree.real_path(Path::new("")))] }
    }

    /// Drops the names that were read ahead. The walk continues at the same file.
    pub(super) fn shrink(&mut self) {
        for folder in &mut self.folders {
            folder.is_complete &= folder.names.is_empty();
            folder.names = VecDeque::new();
        }
    }

    /// Returns up to `limit` entries; none at the end.
    ///
    /// # Errors
    /// Those of the source as a whole. The walk can be continued.
    pub(super) fn next(&mut self, limit: usize) -> Result<Vec<WalkEntry>> {
        let mut entries = Vec::new();
        while entries.len() < limit {
            let depth = self.folders.len();
            let Some(folder) = self.folders.last_mut() else { break };
            if let Some(Name { name, is_folder }) = folder.names.pop_front() {
                let path = folder.path.join(&name);
                folder.last = Some(name);
                if !is_folder {
                    entries.push(WalkEntry { path, is_file: true });
                } else if let Some(folder) = self.enter(path) {
                    self.folders.push(folder);
                }
            } else if folder.is_complete {
                self.folders.pop();
            } else if let Err(cause) = folder.read(&self.tree, (MAX_NAMES >> depth).max(MIN_NAMES)) {
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
        Ok(entries)
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
        Self { path, real_path, names: VecDeque::new(), last: None, is_complete: false }
    }

    /// Reads the next names, up to `limit` bytes of them.
    fn read(&mut self, tree: &Tree, limit: usize) -> io::Result<()> {
        let mut names = BinaryHeap::new();
        let (mut size, mut is_complete) = (0, true);
        for entry in fs::read_dir(tree.root.join(&self.path))? {
            let entry = entry?;
            let name = entry.file_name();
            let is_known = self.last.as_ref().is_some_and(|last| name <= *last);
            let is_later = !is_complete && names.peek().is_some_and(|last: &Name| name >= last.name);
            if is_known || is_later || is_partial_file_name(&name) {
                continue;
            }
            let Some(is_folder) = is_folder(tree, &entry) else { continue };
            size += name.len() + NAME_OVERHEAD;
            names.push(Name { name, is_folder });
            while size > limit && names.len() > 1 {
                is_complete = false;
                size -= names.pop().map_or(0, |last| last.name.len() + NAME_OVERHEAD);
            }
        }
        self.names = names.into_sorted_vec().into();
        self.is_complete = is_complete;
        Ok(())
    }
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
    fn a_folder_that_does_not_fit_is_read_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let names: Vec<_> = (0..500).map(|number| format!("{number:03}")).collect();
        for name in names.iter().rev() {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let tree = tree(folder.path());
        let mut found = Vec::new();
        let mut part = Folder::new(PathBuf::new(), None);
        while !part.is_complete {
            part.read(&tree, 100 * (NAME_OVERHEAD + 3)).unwrap();
            assert!(part.names.len() <= 100);
            part.last = part.names.back().map(|last| last.name.clone());
            found.extend(part.names.drain(..).map(|name| name.name.into_string().unwrap()));
        }
        assert_eq!(found, names);
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
            walk.shrink();
        }
        assert_eq!(found, ["a/1", "a/2", "a/b/3", "c"]);
    }
}
