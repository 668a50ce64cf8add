//! Small files are read once, when they are listed, as far as there is room.

use super::*;

/// More than is read ahead of one file.
const LARGE: usize = 64 << 10;

/// A slice with something behind it, of so many bytes.
fn slice_of(instance: u32, length: usize) -> Bytes {
    let mut bytes = slice(instance).to_vec();
    assert!(bytes.len() <= length);
    bytes.resize(length, 7);
    bytes.into()
}

/// How many of the instances can be opened although no file is there any more.
async fn read_before(source: &DirectorySource, page: &Page) -> usize {
    let mut count = 0;
    for instance in &page.instances {
        count += usize::from(source.open(instance).await.is_ok());
    }
    count
}

#[tokio::test]
async fn a_small_file_is_given_as_it_was_listed_once() {
    let archive = folder([("a", slice(1)), ("b", slice_of(2, LARGE)), ("c", slice_of(3, LARGE + 1))]);
    let source = DirectorySource::open(archive.path()).unwrap();
    let page = page(&source, None, 9).await;
    let now = slice_of(9, LARGE / 2);
    for name in ["a", "b", "c"] {
        write(archive.path().join(name), &now);
    }
    assert_eq!(read(&source, &page.instances[0]).await, slice(1));
    assert_eq!(read(&source, &page.instances[0]).await, now, "a repetition reads the file");
    assert_eq!(read(&source, &page.instances[1]).await, slice_of(2, LARGE));
    assert_eq!(read(&source, &page.instances[2]).await, now, "it is too large");
}

#[tokio::test]
async fn guarantee_5_no_more_is_kept_than_there_is_room_for() {
    let each = LARGE / 2;
    let names: Vec<_> = (0..20).map(|name| name.to_string()).collect();
    let files = || (0..).zip(&names).map(|(n, name)| (&**name, slice_of(n, each)));
    for (room, kept) in [(0, 0), (5 * each + 100, 5), (1 << 30, 20)] {
        let archive = folder(files());
        let source = DirectorySource::open(archive.path()).unwrap().read_ahead(room as u64);
        // What a page holds is free again once the page is gone, opened or not.
        for _ in 0..3 {
            assert_eq!(page(&source, None, 99).await.instances.len(), 20);
        }
        let (first, second) = (page(&source, None, 99).await, page(&source, None, 99).await);
        fs::remove_dir_all(archive.path()).unwrap();
        assert_eq!(read_before(&source, &first).await, kept);
        assert_eq!(read_before(&source, &second).await, if kept == 20 { 20 } else { 0 }, "no room was left");
    }
}

/// A canceled operation never asks for its next page.
#[tokio::test(start_paused = true)]
async fn a_listing_that_nobody_goes_on_with_gives_its_room_back() {
    let names: Vec<_> = (0..9).map(|name| name.to_string()).collect();
    let archive = folder((0..).zip(&names).map(|(n, name)| (&**name, slice_of(n, LARGE))));
    let source = DirectorySource::open(archive.path()).unwrap().read_ahead(5 * LARGE as u64);
    drop(page(&source, None, 1).await);
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    let page = page(&source, None, 99).await;
    fs::remove_dir_all(archive.path()).unwrap();
    assert_eq!(read_before(&source, &page).await, 5);
}
