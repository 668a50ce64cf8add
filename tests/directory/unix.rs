//! Symbolic links, FIFOs, names that are not UTF-8, files that cannot be read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;

#[tokio::test]
async fn names_in_any_encoding_are_preserved() {
    let archive = folder([]);
    let latin1 = OsStr::from_bytes(b"M\xFCller%C3/\xFF\n.dcm");
    write(archive.path().join(latin1), &slice(1));
    write(archive.path().join("ÜBEL"), &slice(2));
    let source = DirectorySource::open(archive.path()).unwrap();
    let first = page(&source, None, 1).await;
    assert_eq!(numbers(&first), [1]);
    assert_eq!(read(&source, &stored(&first.instances[0])).await, slice(1));
    let resumed = DirectorySource::open(archive.path()).unwrap();
    assert_eq!(numbers(&page(&resumed, first.next.as_ref(), 9).await), [2]);
}

#[tokio::test]
async fn links_are_followed_on_request_and_cycles_are_detected() {
    let archive = folder([("a/x", slice(1)), ("b/y", slice(2))]);
    let elsewhere = folder([("z", slice(3))]);
    symlink(archive.path(), archive.path().join("b/cycle")).unwrap();
    symlink(elsewhere.path(), archive.path().join("c")).unwrap();
    symlink("nowhere", archive.path().join("broken")).unwrap();
    let root = elsewhere.path().join("root");
    symlink(archive.path(), &root).unwrap();

    let source = DirectorySource::open(&root).unwrap();
    assert_eq!(numbers(&page(&source, None, 9).await), [1, 2]);
    fs::remove_file(&root).unwrap();
    let source = DirectorySource::open(archive.path()).unwrap().follow_links(true);
    assert_eq!(numbers(&page(&source, None, 9).await), [1, 2, 3]);
}

#[tokio::test]
async fn entries_that_cannot_be_read_are_reported() {
    let archive = folder([("a", slice(1)), ("c", slice(2))]);
    // A link to itself cannot be followed, not even by root.
    symlink("b", archive.path().join("b")).unwrap();
    let source = DirectorySource::open(archive.path()).unwrap().follow_links(true);
    let first = page(&source, None, 1).await;
    assert_eq!((numbers(&first), warnings(&first)), (vec![1], vec![]));
    let second = page(&source, first.next.as_ref(), 9).await;
    assert_eq!((numbers(&second), second.failures.len()), (vec![2], 1));
    let [failure] = &*second.failures else { panic!("{second:?}") };
    assert_eq!((&*failure.identifier, &*failure.error), ("", "a file cannot be read"));
    let report = source.report();
    assert_eq!((report.unreadable_files, &*report.skipped[0].path), (1, Path::new("b")));
}

#[tokio::test]
async fn links_and_fifos_that_replace_a_file_are_not_opened() {
    let archive = folder([("a/x", slice(1)), ("b/y", slice(2)), ("c", slice(3)), ("d", slice(4))]);
    let elsewhere = folder([("x", slice(8)), ("y", slice(9))]);
    let source = DirectorySource::open(archive.path()).unwrap().read_ahead(0);
    let listed = page(&source, None, 9).await;
    // A file, and the folder of a file, become links; another file becomes a FIFO without a writer.
    fs::remove_file(archive.path().join("a/x")).unwrap();
    symlink(elsewhere.path().join("x"), archive.path().join("a/x")).unwrap();
    fs::remove_dir_all(archive.path().join("b")).unwrap();
    symlink(elsewhere.path(), archive.path().join("b")).unwrap();
    fs::remove_file(archive.path().join("c")).unwrap();
    assert!(Command::new("mkfifo").arg(archive.path().join("c")).status().unwrap().success());
    for instance in &listed.instances[..3] {
        assert_eq!(source.open(instance).await.unwrap_err().kind(), ErrorKind::Unreadable);
    }
    assert_eq!(read(&source, &listed.instances[3]).await, slice(4));
    assert_eq!(numbers(&page(&source, None, 9).await), [4], "they are not listed either");
    let following = DirectorySource::open(archive.path()).unwrap().follow_links(true).read_ahead(0);
    assert_eq!(read(&following, &listed.instances[0]).await, slice(8));
    assert_eq!(following.open(&listed.instances[2]).await.unwrap_err().kind(), ErrorKind::Unreadable);
}

/// The system reports a length of 4096 for these files, regardless of their content.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_file_that_is_shorter_than_its_length_is_not_read() {
    let changed = Content::from_file("/sys/devices/system/cpu/possible").await.unwrap_err();
    assert_eq!(changed.kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn leftovers_of_an_interrupted_write_are_not_listed() {
    let leftover = format!(".{:032x}.part", 0xABCDEF);
    let archive = folder([("a", slice(1)), (&*leftover, slice(2)), (".hidden.part", slice(3))]);
    let source = DirectorySource::open(archive.path()).unwrap();
    assert_eq!(numbers(&page(&source, None, 9).await), [3, 1]);
}
