//! Every source, sink and store here holds to the contract of its trait.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dicom_export::source::DirectorySource;
use dicom_export::store::MemoryOperationStore;
use dicom_export::testing::{SinkQuirks, fixtures, sink_conformance, source_conformance, store_conformance};
use dicom_export::{BlobSink, DirectorySink, InstanceIdentifier, MemorySink, MemorySource};
use tempfile::TempDir;

/// Three studies of two series of five slices, one of them with a multi-frame instance.
fn archive() -> BTreeMap<InstanceIdentifier, Bytes> {
    let mut archive = BTreeMap::new();
    for (study, series) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)] {
        for instance in 0..5 {
            let slice = fixtures::ct_slice(study, series, instance);
            archive.insert(fixtures::instance(study, series, instance), slice);
        }
    }
    // Larger than what a file source reads in one piece.
    archive.insert(fixtures::instance(3, 3, 1), fixtures::multi_frame(3, 3, 1, 1100));
    archive
}

#[tokio::test]
async fn memory_source() {
    let archive = archive();
    let source: Arc<MemorySource> = Arc::new(archive.clone().into_iter().collect());
    source_conformance(|| Arc::clone(&source), &archive).await;
}

#[tokio::test]
async fn directory_source() {
    let archive = archive();
    let folder = TempDir::new().unwrap();
    for (number, bytes) in archive.values().enumerate() {
        // The order of paths is not that of identifiers.
        let path = folder.path().join(format!("{}/{}", number % 3, 1000 - number));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    source_conformance(|| DirectorySource::open(folder.path()).unwrap(), &archive).await;
    let one = Arc::new(DirectorySource::open(folder.path()).unwrap());
    source_conformance(|| Arc::clone(&one), &archive).await;
}

#[tokio::test]
async fn memory_sink() {
    let sink = MemorySink::new();
    sink_conformance(&sink, async |name| sink.get(name), &SinkQuirks::default()).await;
}

#[tokio::test]
async fn directory_sink() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("not/there yet");
    let sink = DirectorySink::open(&root).unwrap();
    let read = async |name: &str| std::fs::read(root.join(name)).ok().map(Bytes::from);
    let quirks = SinkQuirks::default().lengths([(1 << 20) - 1, 1 << 20, (1 << 20) + 1]);
    sink_conformance(&sink, read, &quirks).await;
    // Threads that outlive a dropped put take their hidden file away at their end; a new put waits for none.
    drop(sink);
}

#[tokio::test]
async fn memory_operation_store() {
    store_conformance(&MemoryOperationStore::new()).await;
}

/// A sink behind a pointer is the same sink.
#[tokio::test]
async fn sinks_behind_pointers() {
    let sink = MemorySink::new();
    let boxed: Box<dyn BlobSink> = Box::new(Arc::new(sink.clone()));
    sink_conformance(&boxed, async |name| sink.get(name), &SinkQuirks::default()).await;
}
