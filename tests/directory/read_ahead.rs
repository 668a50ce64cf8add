//! Small files are read once, when they are listed, as long as the cache has room.

use super::*;

/// The largest file that is cached.
const MAX_FILE: usize = 64 << 10;

/// The memory of a cached file besides its bytes.
const OVERHEAD: usize = 256;

/// A slice that is padded to this length.
fn slice_of(instance: u32, length: usize) -> Bytes {
    let mut bytes = slice(instance).to_vec();
    assert!(bytes.len() <= length);
    bytes.resize(length, 7);
    bytes.into()
}

/// Counts the instances that can be opened although their files have been deleted.
async fn cached(source: &DirectorySource, page: &Page) -> usize {
    let mut count = 0;
    for instance in &page.instances {
        count += usize::from(source.open(instance).await.is_ok());
    }
    count
}

#[tokio::test]
async fn a_small_file_is_returned_once_as_it_was_listed() {
    let archive = folder([("a", slice(1)), ("b", slice_of(2, MAX_FILE)), ("c", slice_of(3, MAX_FILE + 1))]);
    let source = DirectorySource::open(archive.path()).unwrap();
    let page = page(&source, None, 9).await;
    let now = slice_of(9, MAX_FILE / 2);
    for name in ["a", "b", "c"] {
        write(archive.path().join(name), &now);
    }
    assert_eq!(read(&source, &page.instances[0]).await, slice(1));
    assert_eq!(read(&source, &page.instances[0]).await, now, "the second open reads the file");
    assert_eq!(read(&source, &page.instances[1]).await, slice_of(2, MAX_FILE));
    assert_eq!(read(&source, &page.instances[2]).await, now, "the file is too large for the cache");
}

#[tokio::test]
async fn guarantee_5_the_cache_of_small_files_stays_within_its_capacity() {
    let each = MAX_FILE / 2;
    let names: Vec<_> = (0..20).map(|name| name.to_string()).collect();
    let files = || (0..).zip(&names).map(|(n, name)| (&**name, slice_of(n, each)));
    for (capacity, kept) in [(0, 0), (5 * (each + OVERHEAD) + 100, 5), (1 << 30, 20)] {
        let archive = folder(files());
        let source = DirectorySource::open(archive.path()).unwrap().read_ahead(capacity as u64);
        // A file that is listed again replaces its entry.
        for _ in 0..3 {
            assert_eq!(page(&source, None, 99).await.instances.len(), 20);
        }
        let page = page(&source, None, 99).await;
        fs::remove_dir_all(archive.path()).unwrap();
        assert_eq!(cached(&source, &page).await, kept);
        assert_eq!(cached(&source, &page).await, 0, "an opened file leaves the cache");
    }
}

/// A canceled operation never opens the rest of its instances.
#[tokio::test(start_paused = true)]
async fn files_of_an_abandoned_listing_make_room_for_others() {
    let names: Vec<_> = (0..9).map(|name| name.to_string()).collect();
    let archive = folder((0..).zip(&names).map(|(n, name)| (&**name, slice_of(n, MAX_FILE))));
    let source = DirectorySource::open(archive.path()).unwrap().read_ahead(5 * (MAX_FILE + OVERHEAD) as u64);
    drop(page(&source, None, 99).await);
    for name in &names {
        fs::rename(archive.path().join(name), archive.path().join(format!("new {name}"))).unwrap();
    }
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    let page = page(&source, None, 99).await;
    fs::remove_dir_all(archive.path()).unwrap();
    assert_eq!(cached(&source, &page).await, 5);
}
