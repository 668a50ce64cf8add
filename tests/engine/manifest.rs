//! The manifest, which has a line for each exported instance.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dicom_export::store::{MemoryOperationStore, OperationStore};
use dicom_export::{
    BlobPath, BlobSink, ErrorKind, ExportDestination, ExportEngine, ExportSource, ManifestEntry, MemorySink,
    NewOperation, Operation, OperationStatus, RetryPolicy,
};
use sha2::{Digest, Sha256};

use crate::support::{
    FaultySink, FaultySinkProvider, FaultySource, Generated, Plan, archive, assert_exported, instance, log_of,
};

fn manifest_entries(sink: &MemorySink, operation: &Operation) -> Vec<ManifestEntry> {
    let manifest =
        sink.get(BlobPath::manifest(operation.operation_id).as_str()).expect("manifest.jsonl exists");
    let text = std::str::from_utf8(&manifest).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is incomplete");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asserts that every entry matches its blob and every blob has an entry. Returns the number of blobs.
pub(crate) fn assert_manifest(sink: &MemorySink, operation: &Operation) -> usize {
    let mut named = BTreeSet::new();
    for entry in manifest_entries(sink, operation) {
        let path = BlobPath::instance(operation.operation_id, entry.identifier());
        assert_eq!(entry.path(), path.as_str());
        let blob = sink.get(path.as_str()).expect("the blob exists");
        let sha256: String = Sha256::digest(&blob).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((entry.size(), entry.sha256()), (blob.len() as u64, &*sha256));
        named.insert(path.to_string());
    }
    let results = format!("{}/results/", operation.operation_id);
    let blobs: BTreeSet<_> = sink.names().into_iter().filter(|name| name.starts_with(&results)).collect();
    assert_eq!(named, blobs, "the manifest and the container differ");
    blobs.len()
}

#[tokio::test(start_paused = true)]
async fn each_exported_instance_has_a_line() {
    let (plan, sink) = (Plan::default(), FaultySink::new());
    for n in 0..5 {
        plan.fail(&instance(0, 0, n), &[ErrorKind::Unreadable; 100]);
        sink.plan().fail(&instance(1, 0, n), &[ErrorKind::Unavailable; 3]);
    }
    let source = FaultySource { inner: archive(100), plan };
    let engine = ExportEngine::builder(source).manifest(true).batch_size(7).build().unwrap();
    let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
    let started = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.results.exported, ended.results.skipped), (95, 5));
    assert_eq!(assert_manifest(&sink.inner, &ended), 95);
    assert_eq!(
        manifest_entries(&sink.inner, &ended).len(),
        95,
        "without a crash, each instance has one entry"
    );
    assert_eq!(log_of(&sink.inner, &ended).len(), 5);
    let document = serde_json::to_value(&ended).unwrap();
    let members: Vec<_> = document["results"].as_object().unwrap().keys().collect();
    assert_eq!(
        members,
        ["errorHref", "exported", "skipped"],
        "the manifest adds nothing to the status document"
    );
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_the_digest_of_its_bytes() {
    for (size, chunk) in [(0, 10), (10, 3), (3_000_001, 70_000)] {
        let source = Generated { count: 3, size, chunk, states_size: false, memory: Arc::default() };
        let sink = MemorySink::new();
        let engine = ExportEngine::builder(source).manifest(true).build().unwrap();
        let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
        let started = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap();
        let ended = engine.wait(started.operation_id).await.unwrap();
        assert_eq!(assert_manifest(&sink, &ended), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn the_manifest_is_optional_and_empty_if_nothing_is_exported() {
    for manifest in [false, true] {
        let sink = MemorySink::new();
        let engine = ExportEngine::builder(archive(0)).manifest(manifest).build().unwrap();
        let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
        let unknown = ExportSource::identifiers(["1.2.3".parse().unwrap()]).unwrap();
        let started = engine.start(NewOperation::new(unknown, target)).await.unwrap();
        let path = BlobPath::manifest(started.operation_id);
        assert_eq!(sink.get(path.as_str()).is_some(), manifest, "the manifest is created at the start");
        let ended = engine.wait(started.operation_id).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Completed);
        assert_eq!(sink.get(path.as_str()), manifest.then(Default::default));
    }
}

/// Whether an operation has a manifest is decided when it is created, and not by the engine that resumes it.
#[tokio::test(start_paused = true)]
async fn a_resumed_operation_continues_its_manifest() {
    let sink = FaultySink::new();
    let store = Arc::new(MemoryOperationStore::new());
    let engine = |manifest| {
        ExportEngine::builder(archive(300))
            .destination("azureblob", FaultySinkProvider(sink.clone()))
            .operation_store(store.clone())
            .retry(RetryPolicy::none())
            .batch_size(10)
            .checkpoint_interval(Duration::ZERO)
            .manifest(manifest)
            .build()
            .unwrap()
    };
    let destination = || ExportDestination::azure_blob("https://a.blob.core.windows.net/b");
    let mut created = BTreeMap::new();
    for manifest in [true, false] {
        let new = NewOperation::new(ExportSource::Everything, destination());
        let id = engine(manifest).create(new).await.unwrap().operation_id;
        assert_eq!(store.spec(id).await.unwrap().manifest, manifest);
        created.insert(manifest, id);
    }
    for (manifest, id) in created {
        let calls = sink.plan().calls.load(std::sync::atomic::Ordering::SeqCst);
        sink.plan().fail_all(ErrorKind::Unavailable, calls + 150);
        let failed = engine(manifest).run(id).await.unwrap();
        assert_eq!(failed.status, OperationStatus::Failed);
        assert!(failed.results.exported < 300);
        sink.plan().heal();
        let ended = engine(!manifest).run(id).await.unwrap();
        assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 300));
        match manifest {
            true => assert_eq!(assert_manifest(&sink.inner, &ended), 300),
            false => assert_eq!(sink.inner.get(BlobPath::manifest(id).as_str()), None),
        }
    }
}

/// The lines of 40 batches of 500 instances are appended in a few requests of several megabytes.
#[tokio::test(start_paused = true)]
async fn many_manifest_lines_are_appended_in_few_requests() {
    let source = archive(20_000);
    let sink = FaultySink::new();
    let engine = ExportEngine::builder(source)
        .checkpoint_interval(Duration::from_secs(3600))
        .manifest(true)
        .build()
        .unwrap();
    let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
    let started = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!(assert_manifest(&sink.inner, &ended), 20_000);
    let bytes = sink.inner.get(BlobPath::manifest(ended.operation_id).as_str()).unwrap().len();
    let appends = sink.plan().calls.load(std::sync::atomic::Ordering::SeqCst) - 20_000;
    assert!(bytes > 4 << 20, "{bytes} bytes fit into one append");
    assert!((2..=1 + bytes / (2 << 20)).contains(&appends), "{appends} appends for {bytes} bytes");
}

#[tokio::test(start_paused = true)]
async fn an_append_that_fails_loses_no_line() {
    let sink = FaultySink::new();
    let plan = Plan::default();
    plan.fail(&instance(0, 0, 3), &[ErrorKind::Unreadable; 100]);
    let engine = ExportEngine::builder(FaultySource { inner: archive(40), plan })
        .manifest(true)
        .retry(RetryPolicy::with_budget(Duration::from_secs(60)))
        .build()
        .unwrap();
    // The last put and both appends fail.
    sink.plan().fail_all(ErrorKind::Unavailable, 40);
    let plan = sink.plan().clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(20)).await;
        plan.heal();
    });
    let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
    let started = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 39));
    assert_eq!(assert_exported(&archive(40), &sink.inner, &ended).await, 39);
    assert_eq!(manifest_entries(&sink.inner, &ended).len(), 39);
    assert_eq!(log_of(&sink.inner, &ended).len(), 1);
}
