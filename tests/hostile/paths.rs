//! Guarantee 1: regardless of what a source returns, nothing is written outside `<operation>/`, and nothing outside the
//! source's folder is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use dicom_export::source::{Cursor, Instance, ListRequest, Locator, Scope};
use dicom_export::{
    BlobSink, DicomIdentifier, DirectorySink, DirectorySource, ErrorKind, ExportEngine, ExportSource,
    InstanceIdentifier, InstanceSource, NewOperation, Uid,
};
use walkdir::WalkDir;

use crate::runner::{exclusive, run_exclusive};

/// Texts that leave a folder, truncate a name, or have a meaning in some path syntax.
const TRAVERSALS: &[&str] = &[
    "..",
    ".",
    "...",
    "../x",
    "1.2/..",
    "..1.",
    "/",
    "//",
    "/etc/passwd",
    "\\",
    "..\\x",
    "%2e%2e",
    "%2E%2E%2F",
    "%2f",
    "1.2%00",
    "1.2\0",
    "1.2\0.3",
    "1.2 ",
    "\u{2024}\u{2024}",
    "\u{ff0e}\u{ff0e}",
    "1.2\n",
    "1.2\r\n",
    "~",
    "$HOME",
    "C:",
    "NUL",
    "1.2:x",
    "1.2?x",
    "1.2#x",
    "１.２",
    "",
];

#[test]
fn guarantee_1_no_uid_is_a_path_traversal() {
    let _exclusive = exclusive();
    for text in TRAVERSALS {
        assert!(Uid::new(text).is_err(), "{text:?}");
        assert!(serde_json::from_value::<Uid>((*text).into()).is_err(), "{text:?}");
        let padding = text.trim_end_matches([' ', '\0']).len() < text.len();
        assert!(padding || Uid::from_padded(text).is_err(), "{text:?}");
        for identifier in [format!("{text}/1/2"), format!("1/{text}/2"), format!("1/2/{text}")] {
            // White space around a part is ignored.
            let blank = text.trim().parse::<Uid>().is_ok();
            assert!(blank || identifier.parse::<InstanceIdentifier>().is_err(), "{identifier:?}");
            assert!(
                blank || serde_json::from_value::<DicomIdentifier>(identifier.clone().into()).is_err(),
                "{identifier:?}"
            );
        }
    }
}

/// Files whose UIDs are path traversals are skipped, and everything that is exported is below the operation.
#[test]
fn guarantee_1_files_whose_uids_are_path_traversals_are_not_exported() {
    run_exclusive(export_traversals());
}

async fn export_traversals() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    std::fs::create_dir(&from).unwrap();
    for (number, text) in TRAVERSALS.iter().enumerate() {
        std::fs::write(from.join(format!("{number}-study")), file(text, "1.2", "1.2.3")).unwrap();
        std::fs::write(from.join(format!("{number}-series")), file("1.2", text, "1.2.3")).unwrap();
        std::fs::write(from.join(format!("{number}-instance")), file("1.2", "1.2.3", text)).unwrap();
    }
    std::fs::write(from.join("good"), file("1.2.3", "4.5.6", "7.8.9")).unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(DirectorySink::open(&to).unwrap());
    let engine = ExportEngine::builder(DirectorySource::open(&from).unwrap()).build().unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    let id = ended.operation_id.to_string();
    let files =
        WalkDir::new(folder.path()).into_iter().map(Result::unwrap).filter(|file| file.file_type().is_file());
    let files = files.filter(|file| !file.path().starts_with(&from));
    let names: BTreeSet<_> = files.map(|file| file.path().strip_prefix(&to).unwrap().to_owned()).collect();
    assert!(
        names.contains(std::path::Path::new(&format!("{id}/results/1.2.3/4.5.6/7.8.9.dcm"))),
        "{names:?}"
    );
    for name in &names {
        let name = name.to_str().unwrap();
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"./".contains(&b));
        assert!(name.starts_with(&format!("{id}/")) && plain, "{name}");
    }
    // Files with only unusual padding are instances.
    assert_eq!(names.len() as u64, ended.results.exported + 1);
    assert!(ended.results.exported < 6, "{ended:?}");
}

/// A file in Explicit VR Little Endian (PS3.5 7.1.2) with the three UIDs only.
fn file(study: &str, series: &str, sop: &str) -> Vec<u8> {
    let element = |group: u16, number: u16, text: &str| {
        let padding = if text.len() % 2 == 1 { "\0" } else { "" };
        let value = format!("{text}{padding}").into_bytes();
        let length = u16::try_from(value.len()).unwrap();
        [&group.to_le_bytes()[..], &number.to_le_bytes(), b"UI", &length.to_le_bytes(), &value].concat()
    };
    let meta = element(2, 0x10, "1.2.840.10008.1.2.1");
    let length = u32::try_from(meta.len()).unwrap();
    let data = [element(8, 0x18, sop), element(0x20, 0xd, study), element(0x20, 0xe, series)].concat();
    [&[0; 128][..], b"DICM", &[2, 0, 0, 0], b"UL\x04\0", &length.to_le_bytes(), &meta, &data].concat()
}

/// Locators and cursors are stored outside the source, and may be changed there.
#[test]
fn guarantee_1_no_locator_leads_outside_the_folder() {
    run_exclusive(open_outside_locators());
}

async fn open_outside_locators() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("archive/inner")).unwrap();
    std::fs::write(folder.path().join("secret"), file("1", "2", "3")).unwrap();
    std::fs::write(folder.path().join("archive/inner/file"), "inside").unwrap();
    let source = DirectorySource::open(folder.path().join("archive")).unwrap();
    let outside = folder.path().join("secret");
    let open = async |locator: &str| {
        let instance = Instance::new("1/2/3".parse().unwrap()).with_locator(Locator::new(locator));
        source.open(&instance).await
    };
    assert_eq!(open("inner/file").await.unwrap().length(), Some(6));
    for locator in [
        "../secret",
        "./inner/file",
        "inner/file/",
        "inner/../../secret",
        "%2e%2e/secret",
        "%2E%2E%2Fsecret",
        "inner/%2e%2e/%2e%2e/secret",
        "./../secret",
        "..%2fsecret",
        "inner//../../secret",
        "..",
        ".",
        "",
        "/",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "inner%2ffile",
        "inner\0",
        "inner%00",
        "\\..\\secret",
        outside.to_str().unwrap(),
    ] {
        let refused = open(locator).await.unwrap_err();
        // A path with a NUL is decoded, but no system can open it.
        let nul = locator.contains("%00");
        let kind = if nul { ErrorKind::Unreadable } else { ErrorKind::NotFound };
        assert_eq!(refused.kind(), kind, "{locator:?}: {refused}");
        let cursor = Cursor::new(locator);
        let page = source.list(ListRequest::new(Scope::Everything, Some(&cursor), 9)).await;
        assert!(page.is_err() || page.is_ok_and(|page| page.instances.is_empty()), "{locator:?}");
    }
}
