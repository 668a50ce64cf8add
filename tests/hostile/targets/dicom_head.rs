//! A file in a folder that is exported.

use std::path::PathBuf;
use std::sync::LazyLock;

use dicom_export::source::{ListRequest, Scope};
use dicom_export::{DirectorySource, InstanceSource};
use futures::StreamExt;
use tempfile::TempDir;

/// The folder of the file, which contains no other file.
static FOLDER: LazyLock<(TempDir, PathBuf)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    (folder, path)
});

pub(crate) fn run(input: &[u8]) {
    let (folder, path) = &*FOLDER;
    std::fs::write(path, input).unwrap();
    super::RUNTIME.block_on(async {
        let source = DirectorySource::open(folder.path()).unwrap();
        let page = source.list(ListRequest::new(Scope::Everything, None, 10)).await.unwrap();
        assert!(page.next.is_none() && page.instances.len() + page.failures.len() <= 1);
        let Some(instance) = page.instances.first() else { return };
        super::identifier::assert_inside(instance.identifier());
        let content = source.open(instance).await.unwrap();
        let chunks: Vec<_> = content.into_stream().collect().await;
        let bytes: Vec<u8> = chunks.into_iter().flat_map(|chunk| chunk.unwrap()).collect();
        assert!(bytes == input, "the content differs from the file");
    });
}
