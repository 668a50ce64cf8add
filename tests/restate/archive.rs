//! A folder of DICOM files, and the expected result of its export.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use dicom_export::testing::fixtures;
use futures::{StreamExt, stream};
use tempfile::TempDir;

use crate::azurite::Container;

/// Instances per study.
pub(crate) const STUDY: u32 = 50;

pub(crate) struct Archive {
    folder: TempDir,
    /// By `<study>/<series>/<instance>`.
    instances: BTreeMap<String, PathBuf>,
}

impl Archive {
    pub(crate) fn new(instances: u32) -> Self {
        let mut archive = Self { folder: TempDir::new().unwrap(), instances: BTreeMap::new() };
        for number in 0..instances {
            let (study, instance) = (number / STUDY, number % STUDY);
            let path = archive.root().join(format!("{study:04}/{instance:03}"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, fixtures::ct_slice(study, instance % 2, instance)).unwrap();
            archive.instances.insert(fixtures::instance(study, instance % 2, instance).to_string(), path);
        }
        archive
    }

    pub(crate) fn root(&self) -> &Path {
        self.folder.path()
    }

    /// The UID of the study that is listed first.
    pub(crate) fn first_study(&self) -> String {
        fixtures::study_uid(0).to_string()
    }

    pub(crate) fn len(&self) -> u64 {
        self.instances.len() as u64
    }

    /// Panics unless the container holds every instance, byte for byte, and nothing else but the log.
    pub(crate) async fn assert_exported(&self, container: &Container<'_>, id: &str) {
        let names = container.list().await;
        let mut expected: Vec<_> =
            self.instances.keys().map(|instance| format!("{id}/results/{instance}.dcm")).collect();
        expected.push(format!("{id}/errors.log"));
        expected.sort();
        assert!(names.keys().eq(expected.iter()), "{} blobs of {}", names.len(), expected.len());
        let all = self.instances.iter().map(|(instance, file)| async move {
            let blob = container.get(&format!("{id}/results/{instance}.dcm")).await.unwrap();
            assert!(blob.bytes == fs::read(file).unwrap(), "{instance} has different bytes");
        });
        stream::iter(all).buffer_unordered(8).collect::<()>().await;
    }
}
