//! The archive of real files, and its contents as pydicom reads them.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

pub(crate) struct Archive {
    pub(crate) root: PathBuf,
    /// Keyed by `<study>/<series>/<instance>`: the first file in path order.
    pub(crate) instances: BTreeMap<String, PathBuf>,
    pub(crate) duplicates: usize,
    /// DICOM files without three UIDs.
    pub(crate) unidentified: usize,
    pub(crate) directories: usize,
    /// Parts of patient names.
    pub(crate) names: Vec<String>,
}

/// The whole archive.
pub(crate) fn archive() -> &'static Archive {
    static ARCHIVE: LazyLock<Archive> = LazyLock::new(Archive::read);
    &ARCHIVE
}

fn tools() -> PathBuf {
    let tools = std::env::var_os("DICOM_EXPORT_TOOLS").map(PathBuf::from);
    tools.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools"))
}

impl Archive {
    fn read() -> Self {
        let root = std::env::var_os("DICOM_EXPORT_ARCHIVE").map(PathBuf::from);
        let root = root.unwrap_or_else(|| tools().join("archive"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tools/identities.py");
        let python = tools().join("venv/bin/python");
        assert!(python.exists(), "pydicom is not installed: run tests/run.sh");
        let output = Command::new(python).arg(script).arg(&root).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let files: Vec<(String, Option<[String; 3]>, String, bool)> =
            serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(files.len(), 191);
        let mut archive = Self {
            root,
            instances: BTreeMap::new(),
            duplicates: 0,
            unidentified: 0,
            directories: 0,
            names: Vec::new(),
        };
        for (path, identity, name, is_directory) in files {
            // Shorter parts occur in ordinary words.
            let parts = name.split(['^', '=', ' ', '\\']).filter(|part| part.chars().count() > 5);
            archive.names.extend(parts.map(str::to_owned));
            match identity {
                None if is_directory => archive.directories += 1,
                None => archive.unidentified += 1,
                Some(uids) if archive.instances.contains_key(&uids.join("/")) => archive.duplicates += 1,
                Some(uids) => _ = archive.instances.insert(uids.join("/"), archive.root.join(path)),
            }
        }
        assert_eq!(archive.instances.len(), 131);
        assert!(archive.names.len() > 20);
        archive
    }

    pub(crate) fn bytes(&self, instance: &str) -> Vec<u8> {
        std::fs::read(&self.instances[instance]).unwrap()
    }
}
