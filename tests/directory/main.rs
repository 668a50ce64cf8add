//! Tests of [`DirectorySource`] and [`DirectorySink`](dicom_export::sink::DirectorySink) beyond the conformance suites.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod index;
mod odd_files;
mod read_ahead;
mod sink;
#[cfg(unix)]
mod unix;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dicom_export::source::{Cursor, DirectorySource, Instance, ListRequest, Page, Scope};
use dicom_export::testing::fixtures;
use dicom_export::{Content, DicomIdentifier, ErrorKind, ExportSource, InstanceIdentifier, InstanceSource};
use futures::TryStreamExt;
use tempfile::TempDir;

/// Creates a folder with these files.
fn folder<'a>(files: impl IntoIterator<Item = (&'a str, Bytes)>) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        write(folder.path().join(name), &bytes);
    }
    folder
}

fn write(path: impl AsRef<Path>, bytes: &[u8]) {
    let path = path.as_ref();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn slice(instance: u32) -> Bytes {
    fixtures::ct_slice(1, 1, instance)
}

async fn page(source: &DirectorySource, after: Option<&Cursor>, limit: usize) -> Page {
    source.list(ListRequest::new(Scope::Everything, after, limit)).await.unwrap()
}

/// Returns the fixture numbers of a page's instances.
fn numbers(page: &Page) -> Vec<u32> {
    let number = |of: &InstanceIdentifier| (0..2000).find(|n| *of == fixtures::instance(1, 1, *n)).unwrap();
    page.instances.iter().map(|instance| number(instance.identifier())).collect()
}

fn warnings(page: &Page) -> Vec<(&str, u64)> {
    page.warnings.iter().map(|warning| (&*warning.code, warning.count)).collect()
}

/// Returns an instance as another process reads it.
fn stored(instance: &Instance) -> Instance {
    serde_json::from_str(&serde_json::to_string(instance).unwrap()).unwrap()
}

async fn read(source: &DirectorySource, instance: &Instance) -> Bytes {
    bytes(source.open(instance).await.unwrap()).await
}

async fn bytes(content: Content) -> Bytes {
    let chunks: Vec<Bytes> = content.into_stream().try_collect().await.unwrap();
    chunks.concat().into()
}

#[tokio::test]
async fn files_with_any_names_are_listed_in_path_order() {
    // Paths are compared component by component: "a" precedes "a.dcm", although '.' precedes '/'.
    let archive = folder([
        ("a.dcm", slice(3)),
        ("a/z", slice(2)),
        ("a/b/c/d", slice(1)),
        ("IM 00%1", slice(0)),
        ("notes.txt", Bytes::from("not a DICOM file")),
        ("b/empty", Bytes::new()),
        ("b/short.dcm", slice(9).slice(..131)),
    ]);
    let source = DirectorySource::open(archive.path()).unwrap();
    let page = page(&source, None, 100).await;
    assert_eq!(numbers(&page), [0, 1, 2, 3]);
    assert_eq!(page.next, None);
    assert_eq!(warnings(&page), []);
    assert!(source.report().is_empty());
    assert_eq!(page.instances[0].size(), Some(slice(0).len() as u64));
    assert_eq!(read(&source, &page.instances[0]).await, slice(0));
    assert!(
        page.instances.iter().all(|instance| !format!("{instance:?}").contains("IM 00")),
        "Debug shows a path"
    );
}

#[tokio::test]
async fn the_first_of_two_files_with_the_same_uids_is_listed() {
    let other = Bytes::from([&slice(1)[..], &[0; 8]].concat());
    let archive = folder([("a", slice(1)), ("b", slice(2)), ("c", other.clone()), ("d", slice(3))]);
    let source = DirectorySource::open(archive.path()).unwrap();
    let first = page(&source, None, 2).await;
    assert_eq!((numbers(&first), warnings(&first)), (vec![1, 2], vec![]));
    let second = page(&source, first.next.as_ref(), 2).await;
    assert_eq!((numbers(&second), warnings(&second)), (vec![3], vec![("duplicateInstance", 1)]));
    assert_eq!(source.report().duplicates, 1);
    assert_eq!(read(&source, &first.instances[0]).await, slice(1));

    let study = fixtures::study_identifier(1);
    let by_index = source.list(ListRequest::new(Scope::Identifier(&study), None, 9)).await.unwrap();
    assert_eq!((by_index.instances.len(), warnings(&by_index)), (3, vec![("duplicateInstance", 1)]));
    let again = source.list(ListRequest::new(Scope::Identifier(&study), None, 9)).await.unwrap();
    assert_eq!(warnings(&again), [("duplicateInstance", 1)], "each listing reports its own duplicates");
    let first = by_index.instances.iter().find(|of| *of.identifier() == fixtures::instance(1, 1, 1)).unwrap();
    assert_eq!(read(&source, first).await, slice(1));
}

#[tokio::test]
async fn a_cursor_works_in_another_process_and_duplicates_before_it_are_recognized() {
    let files: Vec<_> = (0..40).map(|n| (format!("{n:03}"), slice(n % 25))).collect();
    let archive = folder(files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())));
    let whole = page(&DirectorySource::open(archive.path()).unwrap(), None, 100).await;
    assert_eq!(numbers(&whole), Vec::from_iter(0..25));
    for limit in [1, 7, 24, 25] {
        let mut found = Vec::new();
        let mut duplicates = 0;
        let mut after: Option<Cursor> = None;
        loop {
            let source = DirectorySource::open(archive.path()).unwrap();
            let page = page(&source, after.as_ref(), limit).await;
            found.extend(numbers(&page));
            duplicates += source.report().duplicates;
            let Some(next) = page.next else { break };
            after = Some(serde_json::from_str(&serde_json::to_string(&next).unwrap()).unwrap());
        }
        assert_eq!((found, duplicates), (Vec::from_iter(0..25), 15), "limit {limit}");
    }
}

#[tokio::test]
async fn files_that_are_added_and_deleted_between_pages_do_not_move_the_others() {
    let archive = folder([("b", slice(1)), ("c", slice(2)), ("d", slice(3)), ("e", slice(4))]);
    let first = page(&DirectorySource::open(archive.path()).unwrap(), None, 2).await;
    fs::remove_file(archive.path().join("c")).unwrap();
    write(archive.path().join("a"), &slice(5));
    write(archive.path().join("f"), &slice(6));
    let source = DirectorySource::open(archive.path()).unwrap();
    assert_eq!(numbers(&page(&source, first.next.as_ref(), 9).await), [3, 4, 6]);
    let gone = source.open(&stored(&first.instances[1])).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn damage_after_the_uids_is_ignored() {
    let whole = slice(1);
    // The Series Instance UID is read last: tag, VR and length in 8 bytes, then the padded value.
    let tag = whole.windows(6).position(|at| at == b"\x20\x00\x0E\x00UI").unwrap();
    let end = tag + 8 + usize::from(whole[tag + 6]);
    let broken = [&whole[..end], &[0xFF; 4000]].concat();
    let half_a_header = whole.slice(..end + 3);
    for bytes in [whole.slice(..end), half_a_header, broken.into()] {
        let archive = folder([("x", bytes.clone())]);
        let source = DirectorySource::open(archive.path()).unwrap();
        let page = page(&source, None, 9).await;
        assert_eq!(numbers(&page), [1]);
        assert_eq!(read(&source, &page.instances[0]).await, bytes);
    }
    for bytes in [whole.slice(..end - 1), whole.slice(..tag + 4), whole.slice(..140), whole.slice(..132)] {
        let archive = folder([("x", bytes)]);
        let source = DirectorySource::open(archive.path()).unwrap();
        let page = page(&source, None, 9).await;
        assert_eq!((numbers(&page), page.failures.len()), (vec![], 1));
        assert_eq!(source.report().unidentified, 1);
    }
}

#[tokio::test]
async fn a_false_length_allocates_nothing() {
    // A private element of 4 GiB less 2, before the patient's name.
    let whole = slice(1);
    let at = whole.windows(6).position(|at| at == b"\x10\x00\x10\x00PN").unwrap();
    let false_length = b"\x09\x00\x10\x10OB\x00\x00\xFE\xFF\xFF\xFF";
    let archive = folder([("x", [&whole[..at], false_length, &whole[at..]].concat().into())]);
    let source = DirectorySource::open(archive.path()).unwrap();
    assert_eq!(page(&source, None, 9).await.failures.len(), 1);
}

#[tokio::test]
async fn deflated_files_and_nested_uids_are_read() {
    let mut object = fixtures::ct_slice_object(1, 1, 4);
    // A referenced series in a sequence that precedes the instance's own UIDs.
    use dicom_core::{DataElement, VR, dicom_value, value::DataSetSequence};
    use dicom_dictionary_std::tags;
    let uid = fixtures::series_uid(9, 9);
    let item = dicom_object::InMemDicomObject::from_element_iter([
        DataElement::new(tags::SERIES_INSTANCE_UID, VR::UI, dicom_value!(Str, uid.as_str())),
        DataElement::new(tags::STUDY_INSTANCE_UID, VR::UI, dicom_value!(Str, uid.as_str())),
    ]);
    object.put(DataElement::new(tags::REFERENCED_SERIES_SEQUENCE, VR::SQ, DataSetSequence::from(vec![item])));
    let archive = folder([
        ("a", fixtures::part10(&object)),
        ("b", fixtures::deflated(fixtures::ct_slice_object(1, 1, 5))),
    ]);
    let source = DirectorySource::open(archive.path()).unwrap();
    assert_eq!(numbers(&page(&source, None, 9).await), [4, 5]);
}

#[tokio::test]
async fn padding_of_uids_is_trimmed() {
    for padding in [b"\0\0", b"  ", b" \0"] {
        let mut padded = slice(1).to_vec();
        let uid = fixtures::series_uid(1, 1);
        let uid = uid.as_str();
        let end = uid.len() + padded.windows(uid.len()).position(|at| at == uid.as_bytes()).unwrap();
        padded[end - 2..end].copy_from_slice(padding);
        let archive = folder([("x", padded.into())]);
        let page = page(&DirectorySource::open(archive.path()).unwrap(), None, 9).await;
        let shorter = page.instances[0].identifier().series_instance_uid();
        assert_eq!(shorter.as_str(), uid[..uid.len() - 2].trim_end_matches('.'));
    }
}

#[tokio::test]
async fn a_root_that_is_missing_or_a_file_is_refused() {
    let archive = folder([("x", slice(1))]);
    let kind = |path: &str| DirectorySource::open(archive.path().join(path)).unwrap_err().kind();
    assert_eq!(kind("nothing"), ErrorKind::NotFound);
    assert_eq!(kind("x"), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_unmounted_archive_is_unavailable() {
    let disk = folder([("mount/a", slice(1)), ("mount/b", slice(2))]);
    let (root, away) = (disk.path().join("mount"), disk.path().join("away"));
    let source = DirectorySource::open(&root).unwrap().read_ahead(0);
    let listed = page(&source, None, 1).await;
    let instance = stored(&listed.instances[0]);
    fs::rename(&root, &away).unwrap();
    let open = || async { source.open(&instance).await.unwrap_err().kind() };
    let list = |after| source.list(ListRequest::new(Scope::Everything, after, 9));
    assert_eq!(open().await, ErrorKind::Unavailable, "missing");
    assert_eq!(list(None).await.unwrap_err().kind(), ErrorKind::Unavailable);
    fs::create_dir(&root).unwrap();
    assert_eq!(open().await, ErrorKind::Unavailable, "empty, as a folder that is not mounted");
    fs::remove_dir(&root).unwrap();
    fs::rename(&away, &root).unwrap();
    assert_eq!(read(&source, &instance).await, slice(1));
    assert_eq!(numbers(&list(None).await.unwrap()), [1, 2]);
    assert_eq!(numbers(&list(listed.next.as_ref()).await.unwrap()), [2]);
}

#[tokio::test]
async fn identifiers_use_an_index_that_is_built_once() {
    let files: Vec<_> =
        (0..60).map(|n| (format!("{}/{n}", n % 7), fixtures::ct_slice(n % 3, n % 2, n))).collect();
    let archive = folder(files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())));
    let source = Arc::new(DirectorySource::open(archive.path()).unwrap());
    let both = [fixtures::study_identifier(0), fixtures::series_identifier(1, 1)];
    let expected = ExportSource::identifiers(both.clone()).unwrap();
    assert_eq!(source.estimate(&ExportSource::Everything).await.unwrap(), None);
    assert_eq!(source.estimate(&expected).await.unwrap(), Some(20 + 10));
    fs::remove_dir_all(archive.path().join("0")).unwrap();
    assert_eq!(source.estimate(&expected).await.unwrap(), Some(20 + 10));
    let unknown = DicomIdentifier::study(fixtures::study_uid(77));
    let page = source.list(ListRequest::new(Scope::Identifier(&unknown), None, 5)).await.unwrap();
    assert_eq!((page.instances.len(), page.next), (0, None));
}

#[tokio::test]
async fn a_content_encodes_a_data_set() {
    let object = Arc::new(fixtures::multi_frame_object(1, 1, 1, 600));
    let content = Content::from_dicom_object(Arc::clone(&object));
    assert_eq!(bytes(content).await, fixtures::part10(&object));
    let mut broken = fixtures::ct_slice_object(1, 1, 1);
    broken.update_meta(|meta| meta.transfer_syntax = "1.2.3".to_owned());
    let refused =
        Content::from_dicom_object(Arc::new(broken)).into_stream().try_collect::<Vec<Bytes>>().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unreadable);
}

/// A listing continues after any damaged file.
#[tokio::test]
async fn a_listing_survives_any_damage() {
    let whole = slice(1);
    let head = whole.windows(4).position(|at| at == b"\xE0\x7F\x10\x00").unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let damaged: Vec<(String, Bytes)> = (0..3000)
        .map(|number| {
            let mut bytes = whole[..head].to_vec();
            for _ in 0..random.usize(1..8) {
                let at = random.usize(132..bytes.len());
                bytes[at] = random.u8(..);
            }
            (format!("{number}"), bytes.into())
        })
        .collect();
    let archive = folder(damaged.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())));
    write(archive.path().join("z"), &slice(2));
    let source = DirectorySource::open(archive.path()).unwrap();
    let page = page(&source, None, 10_000).await;
    let report = source.report();
    let last = page.instances.last().unwrap();
    assert_eq!(*last.identifier(), fixtures::instance(1, 1, 2));
    assert_eq!(page.instances.len() as u64 + report.duplicates + report.unidentified, 3001, "{report:?}");
    assert_eq!(page.failures.len() as u64, report.unidentified);
}

/// Each listing continues at its own position, regardless of the number of listings, and reads no file of its earlier pages
/// again.
#[tokio::test]
async fn many_listings_of_one_folder_continue_without_reading_files_again() {
    let names: Vec<_> = (0..300).map(|number| format!("a/{number:03}")).collect();
    let archive = folder((0..).zip(&names).map(|(number, name)| (&**name, slice(number))));
    write(archive.path().join("b/last"), &slice(300));
    let source = DirectorySource::open(archive.path()).unwrap();
    // Each listing has its own cursor.
    let mut listings = Vec::new();
    for listed in 1..=20 {
        listings.push((listed, page(&source, None, listed as usize).await.next));
    }
    // A listing that starts again does not know that this instance was listed.
    fs::rename(archive.path().join("a/000"), archive.path().join("b/moved")).unwrap();
    for (listed, after) in listings {
        let rest = page(&source, after.as_ref(), 999).await;
        assert_eq!(numbers(&rest), Vec::from_iter(listed..301));
        assert_eq!(warnings(&rest), [("duplicateInstance", 1)], "after {listed}");
    }
}
