//! The conformance suites of all sources, sinks and stores, and the fixtures.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

mod broken;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_dictionary_std::tags;
use dicom_export::sink::ObjectStoreProvider;
use dicom_export::source::DirectorySource;
use dicom_export::store::{
    Checkpoint, MemoryOperationStore, MemorySecretStore, OperationFilter, OperationKey, OperationStore,
};
use dicom_export::testing::{
    FaultPlan, FaultySecretStore, SinkProviderTestOptions, SinkTestOptions, fixtures,
    secret_store_conformance, sink_conformance, sink_provider_conformance, source_conformance,
    store_conformance,
};
use dicom_export::{
    BlobSink, DirectorySink, Error, ErrorKind, InstanceIdentifier, MemorySink, MemorySource, ObjectStoreSink,
    ObjectStoreSource, OperationId, OperationSpec, Result, Timestamp,
};
use futures::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::{Attribute, ObjectStore, ObjectStoreExt};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Three studies of two series of five slices, one of them with a multi-frame instance.
fn archive() -> BTreeMap<InstanceIdentifier, Bytes> {
    let mut archive = BTreeMap::new();
    for (study, series) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)] {
        for instance in 0..5 {
            let slice = fixtures::ct_slice(study, series, instance);
            archive.insert(fixtures::instance(study, series, instance), slice);
        }
    }
    // Larger than what the directory source reads at once.
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
        // The paths have another order than the identifiers.
        let path = folder.path().join(format!("{}/{}", number % 3, 1000 - number));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    source_conformance(|| DirectorySource::open(folder.path()).unwrap(), &archive).await;
    let one = Arc::new(DirectorySource::open(folder.path()).unwrap());
    source_conformance(|| Arc::clone(&one), &archive).await;
}

async fn store_with(archive: &BTreeMap<InstanceIdentifier, Bytes>, prefix: &str) -> Arc<dyn ObjectStore> {
    let store = InMemory::new();
    for (identifier, bytes) in archive {
        store.put(&format!("{prefix}{identifier}.dcm").into(), bytes.clone().into()).await.unwrap();
    }
    Arc::new(store)
}

#[tokio::test]
async fn object_store_source() {
    let archive = archive();
    let store = store_with(&archive, "").await;
    source_conformance(|| ObjectStoreSource::new(Arc::clone(&store)), &archive).await;
    let one = ObjectStoreSource::new(store);
    source_conformance(|| one.clone(), &archive).await;
}

#[tokio::test]
async fn object_store_source_below_a_prefix() {
    let archive = archive();
    let store = store_with(&archive, "a/results/").await;
    // Keys that sort before and after the prefix.
    for name in ["a/errors.log", "a/result/1/2/3.dcm", "a/results.old/1/2/3.dcm", "1/2/3.dcm"] {
        store.put(&name.into(), "other".into()).await.unwrap();
    }
    let source = || ObjectStoreSource::new(Arc::clone(&store)).with_prefix("a/results").unwrap();
    source_conformance(source, &archive).await;
    for prefix in ["a//b", "../b", "a/./b"] {
        let refused = ObjectStoreSource::new(Arc::clone(&store)).with_prefix(prefix);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Invalid, "{prefix}");
    }
}

#[tokio::test]
async fn memory_sink() {
    let sink = MemorySink::new();
    sink_conformance(&sink, async |name| sink.get(name), &SinkTestOptions::default()).await;
}

#[test]
fn directory_sink() {
    let folder = TempDir::new().unwrap();
    let root = folder.path().join("not yet/created");
    let sink = DirectorySink::open(&root).unwrap();
    let read = async |name: &str| std::fs::read(root.join(name)).ok().map(Bytes::from);
    let options = SinkTestOptions::default().lengths([(1 << 20) - 1, 1 << 20, (1 << 20) + 1]);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(sink_conformance(&sink, read, &options));
    // Waits for the blocking threads that outlive a dropped put.
    drop(runtime);
    let is_hidden = |file: walkdir::DirEntry| {
        file.file_type().is_file() && file.file_name().to_str().unwrap().starts_with('.')
    };
    assert!(
        !walkdir::WalkDir::new(&root).into_iter().any(|file| is_hidden(file.unwrap())),
        "hidden files remain"
    );
}

#[tokio::test]
async fn object_store_sink() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let sink = ObjectStoreSink::new(Arc::clone(&store), "https://user:pw@host/bucket/?sig=secret");
    let sink = sink.with_prefix("a/b").unwrap();
    let read = async |name: &str| blob(&*store, &format!("a/b/{name}")).await;
    sink_conformance(&sink, read, &object_store_options()).await;
    assert!(sink.throttle_key() == "https://host/bucket" && !format!("{sink:?}").contains("secret"));
    // All parts of logs were deleted.
    let names: Vec<_> = store.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
    assert!(names.iter().all(|name| !name.as_ref().contains("parts")), "{names:?}");
    let log = names.iter().find(|name| name.as_ref().ends_with("errors.log")).unwrap();
    let instance = names.iter().find(|name| name.as_ref().ends_with(".dcm")).unwrap();
    for (name, content_type) in [(log, "application/x-ndjson"), (instance, "application/dicom")] {
        let stored = store.get(name).await.unwrap();
        let found = stored.attributes.get(&Attribute::ContentType).map(|value| value.as_ref());
        assert_eq!(found, Some(content_type), "{name}");
    }
}

/// A store without content types.
#[tokio::test]
async fn object_store_sink_on_a_file_system() {
    let folder = TempDir::new().unwrap();
    let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let sink = ObjectStoreSink::new(Arc::clone(&store), "file:///archive");
    sink_conformance(&sink, async |name| blob(&*store, name).await, &object_store_options()).await;
}

fn object_store_options() -> SinkTestOptions {
    let part = 5 << 20;
    SinkTestOptions::default().log_is_joined_on_finish().lengths([part - 1, part, part + 1, 2 * part])
}

async fn blob(store: &dyn ObjectStore, name: &str) -> Option<Bytes> {
    match store.get(&name.into()).await {
        Ok(found) => Some(found.bytes().await.unwrap()),
        Err(object_store::Error::NotFound { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn prefixes_with_other_characters_are_refused() {
    let sink = || ObjectStoreSink::new(Arc::new(InMemory::new()), "memory:///");
    for prefix in ["a b", "a?b", "a%20b", "../b", "a//b", "ä"] {
        assert_eq!(sink().with_prefix(prefix).unwrap_err().kind(), ErrorKind::Invalid, "{prefix}");
    }
    assert!(sink().with_prefix("").is_ok() && sink().with_prefix("/a/b-1/").is_ok());
}

#[tokio::test]
async fn memory_operation_store() {
    store_conformance(&MemoryOperationStore::new()).await;
}

/// A store that does not implement `query`, and cannot load one of its operations.
#[derive(Default)]
struct ListingStore {
    inner: MemoryOperationStore,
    damaged: Option<OperationId>,
}

#[async_trait]
impl OperationStore for ListingStore {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        self.inner.create(spec, checkpoint).await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.inner.spec(id).await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        match self.damaged {
            Some(damaged) if damaged == id => Err(Error::new(ErrorKind::Unreadable, "planned damage")),
            _ => self.inner.load(id).await,
        }
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        self.inner.save(id, checkpoint).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        self.inner.list(after, limit).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        self.inner.delete(id).await
    }
}

#[tokio::test]
async fn an_operation_store_with_the_default_query() {
    store_conformance(&ListingStore::default()).await;
}

/// One damaged record made listing fail for all tenants.
#[tokio::test]
async fn guarantee_9_the_default_query_skips_damaged_records() {
    let mut store = ListingStore::default();
    let mut ids = Vec::new();
    for number in 0..200_u128 {
        let spec: OperationSpec = serde_json::from_value(json!({
            "id": OperationId::from_u128(number), "createdTime": Timestamp::now(), "source": null, "errorHref": "",
            "destination": { "type": "memory", "location": "", "settings": null, "hasSecret": false },
        }))
        .unwrap();
        store.create(&spec, &Checkpoint::first(spec.created_time)).await.unwrap();
        ids.push(OperationKey::from(&spec));
    }
    store.damaged = Some(OperationId::from_u128(150));
    ids.retain(|key| Some(key.id) != store.damaged);
    ids.sort_unstable_by(|one, other| other.cmp(one));
    let found = store.query(&OperationFilter::new(1000)).await.unwrap();
    assert_eq!(found.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn sinks_behind_pointers() {
    let sink = MemorySink::new();
    let boxed: Box<dyn BlobSink> = Box::new(Arc::new(sink.clone()));
    sink_conformance(&boxed, async |name| sink.get(name), &SinkTestOptions::default()).await;
}

#[test]
fn a_ct_slice_can_be_parsed() {
    let bytes = fixtures::ct_slice(1, 2, 3);
    assert_eq!(&bytes[128..132], b"DICM");
    let slice = dicom_object::from_reader(&bytes[..]).unwrap();
    let text = |tag| slice.element(tag).unwrap().to_str().unwrap().into_owned();
    let identifier = fixtures::instance(1, 2, 3);
    assert_eq!(
        text(tags::STUDY_INSTANCE_UID).trim_end_matches('\0'),
        identifier.study_instance_uid().as_str()
    );
    assert_eq!(
        text(tags::SERIES_INSTANCE_UID).trim_end_matches('\0'),
        identifier.series_instance_uid().as_str()
    );
    assert_eq!(text(tags::SOP_INSTANCE_UID).trim_end_matches('\0'), identifier.sop_instance_uid().as_str());
    assert_eq!(slice.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().len(), 32 * 32 * 2);
    assert_eq!(bytes, fixtures::ct_slice(1, 2, 3), "the same numbers produced other bytes");
}

#[test]
fn a_multi_frame_instance_can_be_parsed() {
    let bytes = fixtures::multi_frame(7, 1, 1, 5);
    let image = dicom_object::from_reader(&bytes[..]).unwrap();
    assert_eq!(image.element(tags::NUMBER_OF_FRAMES).unwrap().to_int::<u32>().unwrap(), 5);
    assert_eq!(image.element(tags::PIXEL_DATA).unwrap().to_bytes().unwrap().len(), 5 * 64 * 64);
}

#[test]
fn different_numbers_produce_different_uids() {
    let mut seen = HashSet::new();
    for number in [0, 1, 2, 255, 256, 65_536, 16_777_216, u32::MAX] {
        assert!(seen.insert(fixtures::study_uid(number)));
        for series in [0, 1, 256, 65_536, u32::MAX] {
            assert!(seen.insert(fixtures::series_uid(number, series)));
            for instance in [0, 1, 256, 65_536, u32::MAX] {
                assert!(seen.insert(fixtures::instance_uid(number, series, instance)));
            }
        }
    }
}

#[tokio::test]
async fn memory_secret_store() {
    secret_store_conformance(&MemorySecretStore::new()).await;
    secret_store_conformance(&FaultySecretStore::new(MemorySecretStore::new(), FaultPlan::new(1))).await;
}

#[tokio::test]
async fn memory_sink_provider() {
    let options = SinkProviderTestOptions::default().secret("hunter2");
    sink_provider_conformance(&MemorySink::new().provider(), &json!({ "password": "hunter2" }), &options)
        .await;
}

#[tokio::test]
async fn object_store_provider() {
    let store = Arc::new(InMemory::new());
    let provider = ObjectStoreProvider::new(move |settings| {
        if settings["key"] != "hunter2" {
            return Err(Error::invalid("/key", "'/key' is missing or wrong"));
        }
        let folder = settings["folder"].as_str().unwrap_or_default();
        ObjectStoreSink::new(store.clone(), "memory:///").with_prefix(folder)
    });
    let provider = provider.public_settings(["FOLDER"]);
    let options = SinkProviderTestOptions::default().secret("hunter2").invalid([
        json!({}),
        json!(1),
        json!({ "key": 1 }),
    ]);
    sink_provider_conformance(&provider, &json!({ "folder": "trial7", "key": "hunter2" }), &options).await;
}
