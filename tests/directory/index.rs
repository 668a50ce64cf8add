//! The index of a folder. It replaces reading the heads of unchanged files again, and is updated when files change.

use std::fs::File;
use std::time::{Duration, SystemTime};

use super::*;

/// Writes a file that was modified a day ago.
fn write_old(path: impl AsRef<Path>, bytes: &[u8]) {
    write(&path, bytes);
    set_modified(path, 86_400);
}

fn set_modified(path: impl AsRef<Path>, seconds_ago: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 - seconds_ago);
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

struct Archive {
    folder: TempDir,
}

impl Archive {
    fn new(files: impl IntoIterator<Item = (&'static str, Bytes)>) -> Self {
        let archive = Self { folder: TempDir::new().unwrap() };
        fs::create_dir(archive.path("")).unwrap();
        for (name, bytes) in files {
            write_old(archive.path(name), &bytes);
        }
        archive
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join("files").join(name)
    }

    /// A source as another process would open it.
    fn source(&self) -> DirectorySource {
        let source = DirectorySource::open(self.path("")).unwrap().read_ahead(0);
        source.with_index(self.folder.path().join("index")).unwrap()
    }
}

async fn study(source: &DirectorySource, number: u32) -> Page {
    let study = fixtures::study_identifier(number);
    source.list(ListRequest::new(Scope::Identifier(&study), None, 99)).await.unwrap()
}

#[tokio::test]
async fn the_heads_of_unchanged_files_are_not_read_again() {
    let archive =
        Archive::new([("a", slice(1)), ("b", slice(2)), ("c", slice(3)), ("d", Bytes::from("a text"))]);
    let first = page(&archive.source(), None, 2).await;
    assert_eq!(numbers(&page(&archive.source(), None, 9).await), [1, 2, 3]);
    // These files have the same length and time, but no UIDs, so reading a head again would change the listing.
    for name in ["a", "b", "c"] {
        write_old(archive.path(name), &vec![0; slice(1).len()]);
    }
    assert_eq!(numbers(&page(&archive.source(), None, 9).await), [1, 2, 3]);
    assert_eq!(numbers(&page(&archive.source(), first.next.as_ref(), 9).await), [3], "a resumption");
    assert_eq!(study(&archive.source(), 1).await.instances.len(), 3);
    // Another time, or another length.
    set_modified(archive.path("a"), 7);
    write_old(archive.path("b"), b"short");
    assert_eq!(numbers(&page(&archive.source(), None, 9).await), [3]);
}

#[tokio::test]
async fn a_file_that_was_just_written_is_read_again() {
    let archive = Archive::new([]);
    write(archive.path("a"), &slice(1));
    let modified = fs::metadata(archive.path("a")).unwrap().modified().unwrap();
    assert_eq!(numbers(&page(&archive.source(), None, 9).await), [1]);
    write(archive.path("a"), &slice(2));
    File::options().write(true).open(archive.path("a")).unwrap().set_modified(modified).unwrap();
    assert_eq!(numbers(&page(&archive.source(), None, 9).await), [2]);
}

#[tokio::test]
async fn an_index_follows_the_files() {
    let archive = Archive::new([("a", slice(1)), ("b/c", slice(2)), ("b/d", slice(2)), ("e", slice(5))]);
    let listed = study(&archive.source(), 1).await;
    assert_eq!((numbers(&listed), warnings(&listed)), (vec![1, 2, 5], vec![("duplicateInstance", 1)]));
    assert_eq!(listed.instances[1].locator().as_str(), "b/c", "the first in path order");
    fs::remove_file(archive.path("a")).unwrap();
    fs::remove_file(archive.path("b/c")).unwrap();
    write_old(archive.path("b/a"), &slice(4));
    write_old(archive.path("e"), &slice(6));
    set_modified(archive.path("e"), 9);
    let listed = study(&archive.source(), 1).await;
    assert_eq!((numbers(&listed), warnings(&listed)), (vec![2, 4, 6], vec![]));
    assert_eq!(listed.instances[0].locator().as_str(), "b/d");
    assert_eq!(listed.instances[1].size(), Some(slice(4).len() as u64));
}

#[tokio::test]
async fn failures_are_listed_under_their_known_uids() {
    let mut without_series = slice(2).to_vec();
    let tag = without_series.windows(6).position(|at| at == b"\x20\x00\x0E\x00UI").unwrap();
    without_series[tag + 2] = 0x0F;
    let archive = Archive::new([("a", slice(1)), ("b", without_series.into()), ("c", slice(3))]);
    let source = archive.source();
    let known = fixtures::study_identifier(1);
    let (mut listed, mut failed, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let request = ListRequest::new(Scope::Identifier(&known), after.as_ref(), 1);
        let page = source.list(request).await.unwrap();
        assert!(page.instances.len() + page.failures.len() <= 1);
        listed.extend(numbers(&page));
        failed.extend(page.failures.into_iter().map(|failure| failure.identifier));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    assert_eq!((listed, failed), (vec![1, 3], vec![fixtures::study_uid(1).to_string()]));
    let series = fixtures::series_identifier(1, 1);
    let page = source.list(ListRequest::new(Scope::Identifier(&series), None, 9)).await.unwrap();
    assert_eq!((page.instances.len(), page.failures.len()), (2, 0));
    let both = ExportSource::identifiers([known]).unwrap();
    assert_eq!(source.estimate(&both).await.unwrap(), Some(2));
}

#[tokio::test]
async fn an_index_belongs_to_one_folder_and_one_process() {
    let archive = Archive::new([("a", slice(1))]);
    let other = Archive::new([("a", slice(2))]);
    let index = archive.folder.path().join("index");
    assert_eq!(numbers(&page(&archive.source(), None, 9).await), [1]);
    let source = DirectorySource::open(other.path("")).unwrap().with_index(&index).unwrap();
    assert_eq!(numbers(&page(&source, None, 9).await), [2], "the index of another folder is not used");
    drop(source);
    let in_use = redb::Database::open(&index).unwrap();
    let open = || DirectorySource::open(archive.path("")).unwrap().with_index(&index);
    assert_eq!(open().unwrap_err().kind(), ErrorKind::Conflict);
    drop(in_use);
    let (first, second) = (open().unwrap(), open().unwrap());
    assert_eq!(numbers(&page(&first, None, 9).await), numbers(&page(&second, None, 9).await));
    assert!(DirectorySource::open(archive.path("")).unwrap().with_index(archive.path("a")).is_err());
    assert_eq!(fs::read(archive.path("a")).unwrap(), slice(1), "another file is not overwritten");
}
