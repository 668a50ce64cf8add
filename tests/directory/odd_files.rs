//! Files that break the standard and that DICOM toolkits read: they are exported as they are, or skipped and counted.

use std::path::PathBuf;
use std::process::Command;

use walkdir::WalkDir;

use super::*;

const CT: &str = "1.2.840.10008.5.1.4.1.1.2";
const EXPLICIT: &str = "1.2.840.10008.1.2.1";
const IMPLICIT: &str = "1.2.840.10008.1.2";
const BIG_ENDIAN: &str = "1.2.840.10008.1.2.2";

/// How the elements of a data set are written.
#[derive(Clone, Copy)]
enum Form {
    Explicit,
    Implicit,
    BigEndian,
}

use Form::{BigEndian, Explicit, Implicit};

/// Writes the header of an element; `None` is the undefined length.
fn header(form: Form, group: u16, element: u16, vr: &str, length: Option<u32>) -> Vec<u8> {
    let length = length.unwrap_or(u32::MAX);
    let u16_bytes =
        |value: u16| if matches!(form, BigEndian) { value.to_be_bytes() } else { value.to_le_bytes() };
    let u32_bytes =
        |value: u32| if matches!(form, BigEndian) { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut bytes = [u16_bytes(group), u16_bytes(element)].concat();
    if matches!(form, Implicit) || group == 0xFFFE {
        bytes.extend(u32_bytes(length));
    } else if ["OB", "OW", "SQ", "UN", "UT"].contains(&vr) {
        bytes.extend(vr.bytes().chain([0, 0]));
        bytes.extend(u32_bytes(length));
    } else {
        bytes.extend(vr.bytes());
        bytes.extend(u16_bytes(length as u16));
    }
    bytes
}

fn element(form: Form, group: u16, element: u16, vr: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = header(form, group, element, vr, Some(value.len() as u32));
    bytes.extend(value);
    bytes
}

fn uid_value(text: &str) -> Vec<u8> {
    let mut value = text.as_bytes().to_vec();
    value.resize(value.len().next_multiple_of(2), 0);
    value
}

fn uid(form: Form, group: u16, number: u16, text: &str) -> Vec<u8> {
    element(form, group, number, "UI", &uid_value(text))
}

/// A preamble and File Meta Information with its group length.
fn meta(transfer_syntax: &str) -> Vec<u8> {
    let group = [
        uid(Explicit, 2, 2, CT),
        uid(Explicit, 2, 3, fixtures::instance_uid(1, 1, 1).as_str()),
        uid(Explicit, 2, 0x10, transfer_syntax),
    ]
    .concat();
    let length = element(Explicit, 2, 0, "UL", &(group.len() as u32).to_le_bytes());
    [&[0; 128], &b"DICM"[..], &length, &group].concat()
}

/// The data set of instance 1, with further elements between SOP and study.
fn data_set(form: Form, between: &[u8]) -> Vec<u8> {
    [
        &uid(form, 8, 0x16, CT)[..],
        &uid(form, 8, 0x18, fixtures::instance_uid(1, 1, 1).as_str()),
        &element(form, 8, 0x60, "CS", b"CT"),
        between,
        &element(form, 0x10, 0x10, "PN", b"Anon^A"),
        &uid(form, 0x20, 0x0D, fixtures::study_uid(1).as_str()),
        &uid(form, 0x20, 0x0E, fixtures::series_uid(1, 1).as_str()),
        &element(form, 0x28, 0x02, "US", &[1, 0]),
    ]
    .concat()
}

/// A sequence of undefined length with one item of undefined length.
fn nested(form: Form, vr: &str, inner: &[u8]) -> Vec<u8> {
    [
        &header(form, 9, 0x1010, vr, None)[..],
        &header(form, 0xFFFE, 0xE000, "", None),
        inner,
        &header(form, 0xFFFE, 0xE00D, "", Some(0)),
        &header(form, 0xFFFE, 0xE0DD, "", Some(0)),
    ]
    .concat()
}

/// Files that are listed as instance 1, by what is odd about them.
fn odd_files() -> Vec<(&'static str, Vec<u8>)> {
    let other = uid(Implicit, 0x20, 0x0D, "1.2.3");
    let in_unknown = [
        &header(Explicit, 9, 0x1010, "UN", None)[..],
        &header(Implicit, 0xFFFE, 0xE000, "", None),
        &nested(Implicit, "", &other),
        &other,
        &header(Implicit, 0xFFFE, 0xE00D, "", Some(0)),
        &header(Implicit, 0xFFFE, 0xE0DD, "", Some(0)),
    ]
    .concat();
    let fragments = [
        &header(Explicit, 0x7FE0, 0x10, "OB", None)[..],
        &element(Explicit, 0xFFFE, 0xE000, "", &[]),
        &element(Explicit, 0xFFFE, 0xE000, "", &[0xFE; 70_000]),
        &header(Explicit, 0xFFFE, 0xE0DD, "", Some(0)),
    ]
    .concat();
    let deep = (0..200).fold(Vec::new(), |inner, _| nested(Explicit, "SQ", &inner));
    let part10 = |syntax: &str, form, between: &[u8]| [meta(syntax), data_set(form, between)].concat();
    let without_group_length = |file: Vec<u8>| [&file[..132], &file[144..]].concat();
    let wrong_group_length = |mut file: Vec<u8>| {
        file[140] += 40;
        file
    };
    let meta_without_preamble = |file: Vec<u8>| file[132..].to_vec();
    vec![
        ("plain", part10(EXPLICIT, Explicit, &[])),
        ("implicit", part10(IMPLICIT, Implicit, &[])),
        ("big endian", part10(BIG_ENDIAN, BigEndian, &[])),
        ("unknown VR of undefined length", part10(EXPLICIT, Explicit, &in_unknown)),
        ("unknown VR in a sequence", part10(EXPLICIT, Explicit, &nested(Explicit, "SQ", &in_unknown))),
        (
            "a UID in an item of a sequence",
            part10(BIG_ENDIAN, BigEndian, &nested(BigEndian, "SQ", &uid(BigEndian, 0x20, 0x0D, "1.2.3"))),
        ),
        ("200 nested sequences", part10(EXPLICIT, Explicit, &deep)),
        ("pixel data before the UIDs", part10(EXPLICIT, Explicit, &fragments)),
        (
            "large tags before the UIDs",
            part10(EXPLICIT, Explicit, &element(Explicit, 0x7FE1, 0x1010, "OW", &[1; 90_000])),
        ),
        (
            "an illegal VR with a short length",
            part10(EXPLICIT, Explicit, &element(Explicit, 9, 0x1010, "??", b"ab")),
        ),
        ("a private transfer syntax", part10("1.3.46.670589.33.1.4.1", Explicit, &[])),
        ("a private implicit transfer syntax", part10("1.2.840.113619.5.2", Implicit, &[])),
        ("implicit elements where explicit ones are declared", part10(EXPLICIT, Implicit, &[])),
        ("explicit elements where implicit ones are declared", part10(IMPLICIT, Explicit, &[])),
        ("an empty transfer syntax", part10("", Implicit, &[])),
        ("no group length", without_group_length(part10(EXPLICIT, Explicit, &[]))),
        ("no group length, implicit", without_group_length(part10(IMPLICIT, Implicit, &[]))),
        ("a wrong group length", wrong_group_length(part10(EXPLICIT, Explicit, &[]))),
        ("meta information without preamble", meta_without_preamble(part10(EXPLICIT, Explicit, &[]))),
        ("an explicit data set without preamble", data_set(Explicit, &[])),
        ("an implicit data set without preamble", data_set(Implicit, &[])),
        ("a big-endian data set without preamble", data_set(BigEndian, &[])),
    ]
}

#[tokio::test]
async fn files_that_toolkits_read_are_exported_as_they_are() {
    for (oddity, bytes) in odd_files() {
        let archive = folder([("x", bytes.clone().into())]);
        let source = DirectorySource::open(archive.path()).unwrap();
        let page = page(&source, None, 9).await;
        assert_eq!(numbers(&page), [1], "{oddity}");
        assert!(page.failures.is_empty());
        assert_eq!(read(&source, &page.instances[0]).await, bytes, "{oddity}");
        let without_preamble = u64::from(!bytes.starts_with(&[0; 128]));
        assert_eq!(source.report().without_preamble, without_preamble, "{oddity}");
        assert_eq!(warnings(&page).len() as u64, without_preamble, "{oddity}");
    }
}

#[tokio::test]
async fn reproductions_of_public_reports_are_exported_or_skipped() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/files");
    let source = DirectorySource::open(&root).unwrap();
    let page = page(&source, None, 99).await;
    let listed: Vec<_> = page.instances.iter().map(|instance| instance.identifier().to_string()).collect();
    let expected = [21, 1, 30, 6, 7, 22, 16]
        .map(|n| format!("1.2.826.0.1.99.1/1.2.826.0.1.99.1.1/1.2.826.0.1.99.1.1.{n}"));
    assert_eq!(listed, expected);
    let [failure] = &*page.failures else { panic!("{:?}", page.failures) };
    assert_eq!(failure.identifier, "1.2.826.0.1.99.1/1.2.826.0.1.99.1.1");
    assert_eq!(failure.error, "a DICOM file's SOP Instance UID is invalid");
    assert_eq!(source.report().skipped[0].path, Path::new("65-characters.dcm"));
    assert_eq!(warnings(&page), [("missingPreamble", 1)]);
}

#[tokio::test]
async fn an_unusable_uid_is_a_failure_that_names_the_known_uids() {
    let (study, series) = (fixtures::study_uid(1), fixtures::series_uid(1, 1));
    let file = |uids: [&str; 3]| {
        let [sop, study, series] = uids;
        [
            meta(EXPLICIT),
            uid(Explicit, 8, 0x18, sop),
            uid(Explicit, 0x20, 0x0D, study),
            uid(Explicit, 0x20, 0x0E, series),
        ]
        .concat()
    };
    for (uids, identifier, error) in [
        (
            ["../x", study.as_str(), series.as_str()],
            format!("{study}/{series}"),
            "a DICOM file's SOP Instance UID is invalid",
        ),
        (
            ["1.2", study.as_str(), ""],
            study.to_string(),
            "a DICOM file has no Series Instance UID; its SOP Instance UID is 1.2",
        ),
        (
            ["1.2", "1.2.x", series.as_str()],
            String::new(),
            "a DICOM file's Study Instance UID is invalid; its SOP Instance UID is 1.2",
        ),
        (
            ["1.2", "", ""],
            String::new(),
            "a DICOM file has no Study Instance UID; its SOP Instance UID is 1.2",
        ),
    ] {
        let archive = folder([("x", file(uids).into())]);
        let page = page(&DirectorySource::open(archive.path()).unwrap(), None, 9).await;
        let [failure] = &*page.failures else { panic!("{page:?}") };
        assert_eq!((&failure.identifier, &*failure.error), (&identifier, error));
        assert!(page.instances.is_empty());
    }
}

#[tokio::test]
async fn other_files_are_ignored_and_a_dicomdir_is_counted() {
    let directory = [&[0; 128], &b"DICM"[..], &uid(Explicit, 2, 2, "1.2.840.10008.1.3.10")].concat();
    let archive = folder([
        ("DICOMDIR", directory.into()),
        ("text", "just a text, longer than a preamble, ".repeat(9).into()),
        ("zeros", Bytes::from(vec![0; 4096])),
        ("group 8", Bytes::from([&[8, 0, 1, 0, 4, 0, 0, 0][..], &[7; 400]].concat())),
        ("group 2", Bytes::from([&[2, 0, 0, 0][..], b"UL", &[4, 0, 0, 0, 0, 0]].concat())),
    ]);
    let source = DirectorySource::open(archive.path()).unwrap();
    let page = page(&source, None, 9).await;
    assert_eq!((page.instances.len(), page.failures.len()), (0, 0));
    assert_eq!(warnings(&page), [("dicomdir", 1)]);
    assert_eq!(source.report().directories, 1);
}

/// The UIDs at the top level of a file according to DCMTK, if it finds all three.
fn dcmtk_uids(path: &Path) -> Option<String> {
    let dump = Command::new("dcmdump").args(["--quiet", "--no-uid-names", "--print-all"]).arg(path).output();
    let dump = dump.expect("DCMTK is not installed: run tests/run.sh");
    let text = String::from_utf8_lossy(&dump.stdout);
    let value = |tag: &str| {
        let line = text.lines().find(|line| line.starts_with(tag))?;
        let (value, _) = line.split_once('[')?.1.split_once(']')?;
        dicom_export::Uid::from_padded(value).ok()
    };
    let (study, series, sop) = (value("(0020,000d)")?, value("(0020,000e)")?, value("(0008,0018)")?);
    Some(format!("{study}/{series}/{sop}"))
}

#[tokio::test]
#[ignore = "needs DCMTK and pydicom's files: tests/run.sh"]
async fn what_dcmtk_identifies_is_listed() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let archive =
        std::env::var_os("DICOM_EXPORT_ARCHIVE").map_or(tests.join(".tools/archive"), PathBuf::from);
    let mut made = odd_files();
    made.extend([
        ("a slice", slice(1).to_vec()),
        ("a deflated file", fixtures::deflated(fixtures::ct_slice_object(1, 1, 5)).to_vec()),
        ("many frames", fixtures::multi_frame(1, 1, 6, 3).to_vec()),
    ]);
    let made = folder(made.iter().map(|(name, bytes)| (*name, bytes.clone().into())));
    let mut identified = 0;
    for root in [&archive, &tests.join("fixtures/files"), made.path()] {
        for file in
            WalkDir::new(root).into_iter().map(Result::unwrap).filter(|file| file.file_type().is_file())
        {
            let Some(expected) = dcmtk_uids(file.path()) else { continue };
            identified += 1;
            let single = TempDir::new().unwrap();
            fs::copy(file.path(), single.path().join("x")).unwrap();
            let page = page(&DirectorySource::open(single.path()).unwrap(), None, 9).await;
            let listed: Vec<_> =
                page.instances.iter().map(|instance| instance.identifier().to_string()).collect();
            assert_eq!(listed, [expected], "{}", file.path().display());
        }
    }
    assert!(identified > 150, "DCMTK identifies only {identified} files");
}
