//! Stored records: damaged ones, those of other versions, and the index of unfinished operations.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use dicom_export::store::{Checkpoint, OperationFilter, OperationKey, OperationStore, RedbOperationStore};
use dicom_export::{
    ErrorKind, ExportEngine, ExportService, MemorySink, MemorySource, OperationId, OperationSpec,
    OperationStatus,
};
use redb::{Database, TableDefinition};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{first, spec};

const SPECS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("specs");
const CHECKPOINTS: TableDefinition<'_, u128, (u64, &[u8])> = TableDefinition::new("checkpoints");
const BY_AGE: TableDefinition<'_, (i64, u32, u128), ()> = TableDefinition::new("by_age");
const UNFINISHED: TableDefinition<'_, u128, (i64, u32)> = TableDefinition::new("unfinished");

fn id(number: u128) -> OperationId {
    OperationId::from_u128(number)
}

fn change(path: &Path, change: impl FnOnce(&redb::WriteTransaction)) {
    let database = Database::create(path).unwrap();
    let writing = database.begin_write().unwrap();
    change(&writing);
    writing.commit().unwrap();
}

/// A file with three operations, the second of which has these records.
async fn file_with(spec_json: &str, checkpoint_json: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let store = RedbOperationStore::open(&path).unwrap();
    for number in 1..=3 {
        store.create(&spec(number), &first()).await.unwrap();
    }
    drop(store);
    change(&path, |writing| {
        writing.open_table(SPECS).unwrap().insert(2, spec_json.as_bytes()).unwrap();
        writing.open_table(CHECKPOINTS).unwrap().insert(2, (1, checkpoint_json.as_bytes())).unwrap();
    });
    (folder, path)
}

fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap()
}

async fn queried(store: &RedbOperationStore, filter: OperationFilter) -> Vec<u128> {
    store.query(&filter).await.unwrap().into_iter().map(|(key, _)| key.id.as_u128()).collect()
}

/// One damaged record made opening the file and listing fail, for all tenants.
#[tokio::test]
async fn guarantee_9_a_damaged_record_affects_its_operation_only() {
    let whole = to_json(&first());
    let expiry = r#"{ "holder": "a runner", "expires": "+10000-01-01T00:00:00Z" }"#;
    let year_10000 = whole.replace(r#""lease":null"#, &format!(r#""lease":{expiry}"#));
    assert_ne!(year_10000, whole);
    for checkpoint in ["", "{", "null", "[]", &whole[..whole.len() / 2], &year_10000] {
        let (_folder, path) = file_with(&to_json(&spec(2)), checkpoint).await;
        let store = RedbOperationStore::open(&path).unwrap();
        let listed: Vec<_> =
            store.list(None, 10).await.unwrap().into_iter().map(|key| key.id.as_u128()).collect();
        assert_eq!(listed, [3, 2, 1]);
        assert_eq!(queried(&store, OperationFilter::new(10)).await, [3, 1], "{checkpoint}");
        assert_eq!(queried(&store, OperationFilter::new(10).unfinished_only()).await, [3, 1]);
        assert_eq!(queried(&store, OperationFilter::new(1).after(OperationKey::from(&spec(3)))).await, [1]);
        let error = store.load(id(2)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::Unreadable, "the stored operation is damaged")
        );
        store.delete(id(2)).await.unwrap();
        assert_eq!(store.load(id(2)).await.unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.list(None, 10).await.unwrap().len(), 2);
    }
}

/// The engine starts, lists and resumes the other operations.
#[tokio::test]
async fn an_engine_runs_beside_a_damaged_record() {
    let (_folder, path) = file_with("{", "{").await;
    let store = RedbOperationStore::open(&path).unwrap();
    let sink = MemorySink::new();
    let engine = ExportEngine::builder(MemorySource::new())
        .operation_store(store)
        .destination("azureblob", sink.provider())
        .build()
        .unwrap();
    let mut resumed = engine.resume_all().await.unwrap();
    resumed.sort_unstable();
    assert_eq!(resumed, [id(1), id(3)]);
    for id in resumed {
        // Their secrets do not exist.
        assert_eq!(engine.wait(id).await.unwrap().status, OperationStatus::Failed);
    }
    let listed = engine.list(&OperationFilter::new(10)).await.unwrap();
    assert_eq!(listed.iter().map(|record| record.operation.operation_id).collect::<Vec<_>>(), [id(3), id(1)]);
    let error = engine.status(id(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unreadable, "the stored operation is damaged"));
    engine.purge_expired().await.unwrap();
}

#[tokio::test]
async fn an_operation_with_a_damaged_spec_can_be_saved_and_deleted() {
    let (_folder, path) = file_with("{", &to_json(&first())).await;
    let store = RedbOperationStore::open(&path).unwrap();
    let error = store.spec(id(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Unreadable, "the stored operation is damaged"));
    for status in [OperationStatus::Failed, OperationStatus::Running] {
        let mut checkpoint = store.load(id(2)).await.unwrap();
        checkpoint.status = status;
        store.save(id(2), &checkpoint).await.unwrap();
    }
    assert_eq!(queried(&store, OperationFilter::new(10).unfinished_only()).await, [3, 2, 1]);
    store.delete(id(2)).await.unwrap();
    assert_eq!(queried(&store, OperationFilter::new(10)).await, [3, 1]);
}

#[tokio::test]
async fn a_damaged_key_is_skipped() {
    let (_folder, path) = file_with(&to_json(&spec(2)), &to_json(&first())).await;
    change(&path, |writing| {
        let mut by_age = writing.open_table(BY_AGE).unwrap();
        for seconds in [i64::MAX, i64::MIN, 253_402_300_800] {
            by_age.insert((seconds, 0, 2), ()).unwrap();
        }
    });
    let store = RedbOperationStore::open(&path).unwrap();
    assert_eq!(store.list(None, 3).await.unwrap().len(), 3);
    assert_eq!(queried(&store, OperationFilter::new(10)).await, [3, 2, 1]);
}

#[tokio::test]
async fn a_record_of_a_later_format_is_refused() {
    let with_format = |record: &str| {
        let mut record: Value = serde_json::from_str(record).unwrap();
        record["format"] = json!(2);
        // Of a type that this version does not expect.
        record["context"] = json!("north");
        record.to_string()
    };
    let (_folder, path) = file_with(&with_format(&to_json(&spec(2))), &with_format(&to_json(&first()))).await;
    let store = RedbOperationStore::open(&path).unwrap();
    let expected = "the stored operation has format 2, which a later version has written";
    for error in [store.spec(id(2)).await.unwrap_err(), store.load(id(2)).await.unwrap_err()] {
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unsupported, expected));
    }
    assert_eq!(queried(&store, OperationFilter::new(10)).await, [3, 1]);
}

fn stored() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/stored")
}

/// The file and the records were written before records had a format.
#[tokio::test]
async fn a_file_of_format_1_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    std::fs::copy(stored().join("format-1.redb"), &path).unwrap();
    let store = RedbOperationStore::open(&path).unwrap();
    for number in 1..=3 {
        let read = |name| std::fs::read(stored().join(format!("{name}-{number}.json"))).unwrap();
        let spec: OperationSpec = serde_json::from_slice(&read("spec")).unwrap();
        let mut checkpoint: Checkpoint = serde_json::from_slice(&read("checkpoint")).unwrap();
        assert_eq!(*store.spec(id(number)).await.unwrap(), spec);
        // The runner has stopped.
        checkpoint.lease = None;
        assert_eq!(store.load(id(number)).await.unwrap(), checkpoint);
        assert_eq!((checkpoint.totals.exported, checkpoint.position.batch), (100 + number as u64, 9));
    }
    assert_eq!(queried(&store, OperationFilter::new(10)).await, [3, 2, 1]);
    assert_eq!(queried(&store, OperationFilter::new(10).unfinished_only()).await, [1]);
}

#[test]
fn unknown_members_are_ignored_and_missing_optional_ones_have_defaults() {
    for number in 1..=3 {
        let read = |name| -> Value {
            let json = std::fs::read(stored().join(format!("{name}-{number}.json"))).unwrap();
            serde_json::from_slice(&json).unwrap()
        };
        let (mut spec, mut checkpoint) = (read("spec"), read("checkpoint"));
        let later = json!({ "of": ["a later version"] });
        for record in [&mut spec, &mut checkpoint] {
            record["added"] = later.clone();
            record["context"]["added"] = later.clone();
        }
        for part in ["position", "totals"] {
            checkpoint[part]["added"] = later.clone();
        }
        spec["destination"]["added"] = later;
        // The name of `manifest` in earlier versions.
        let manifest = spec.as_object_mut().unwrap().remove("manifest").unwrap();
        spec["receipt"] = manifest.clone();
        let spec: OperationSpec = serde_json::from_value(spec).unwrap();
        assert_eq!((json!(spec.manifest), spec.context.partition.as_deref()), (manifest, Some("north")));

        let members = checkpoint.as_object_mut().unwrap();
        for optional in [
            "context",
            "errorHref",
            "estimate",
            "error",
            "warnings",
            "lease",
            "cancelRequested",
            "destination",
        ] {
            members.remove(optional).unwrap();
        }
        let checkpoint: Checkpoint = serde_json::from_value(checkpoint).unwrap();
        assert_eq!(checkpoint.totals.exported, 100 + number as u64);
        assert_eq!((checkpoint.last_progress_time, &checkpoint.runner), (None, &None));
        for required in ["version", "createdTime", "status", "position", "totals"] {
            let mut record = serde_json::to_value(&checkpoint).unwrap();
            record.as_object_mut().unwrap().remove(required).unwrap();
            assert!(
                serde_json::from_value::<Checkpoint>(record).is_err(),
                "a checkpoint without {required} is read"
            );
        }
    }
}

/// Earlier versions do not maintain the index.
#[tokio::test]
async fn the_index_of_unfinished_operations_is_rebuilt() {
    let (_folder, path) = file_with(&to_json(&spec(2)), &to_json(&first())).await;
    change(&path, |writing| {
        let mut unfinished = writing.open_table(UNFINISHED).unwrap();
        unfinished.remove(1).unwrap();
        unfinished.insert(2, (0, 0)).unwrap();
        unfinished.insert(7, (0, 0)).unwrap();
    });
    let store = RedbOperationStore::open(&path).unwrap();
    assert_eq!(queried(&store, OperationFilter::new(10).unfinished_only()).await, [3, 2, 1]);
    assert_eq!(
        queried(&store, OperationFilter::new(10).status(OperationStatus::NotStarted)).await,
        [3, 2, 1]
    );
}

/// A search for orphaned operations read every operation that had ended. This one's record is damaged, so that each time it
/// is read is logged.
#[tokio::test]
async fn a_query_for_unfinished_operations_does_not_read_those_that_have_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    let (ended, secret) = (spec(0xE4D3D), "Doe^Jane");
    let store = RedbOperationStore::open(&path).unwrap();
    store.create(&ended, &completed()).await.unwrap();
    store.create(&spec(1), &first()).await.unwrap();
    drop(store);
    change(&path, |writing| {
        let damaged = format!(r#"{{ "version": 1, "status": "{secret}" "#);
        let mut checkpoints = writing.open_table(CHECKPOINTS).unwrap();
        checkpoints.insert(ended.id.as_u128(), (1, damaged.as_bytes())).unwrap();
    });
    let log = log();
    let logged = || {
        let log = log.lock().unwrap();
        assert!(!log.contains(secret), "the content of a record is logged");
        log.lines().filter(|line| line.contains("WARN") && line.contains(&ended.id.to_string())).count()
    };
    let store = RedbOperationStore::open(&path).unwrap();
    assert_eq!(logged(), 1, "opening the file logs a damaged record");
    assert_eq!(queried(&store, OperationFilter::new(10).unfinished_only()).await, [1]);
    assert_eq!(logged(), 1);
    assert_eq!(queried(&store, OperationFilter::new(10)).await, [1]);
    assert_eq!(logged(), 2, "a query logs a damaged record");
}

fn completed() -> Checkpoint {
    let mut checkpoint = first();
    checkpoint.status = OperationStatus::Completed;
    checkpoint
}

/// Everything that this process logs from the first call on.
fn log() -> Arc<Mutex<String>> {
    static LOG: LazyLock<Arc<Mutex<String>>> = LazyLock::new(|| {
        let log: Arc<Mutex<String>> = Arc::default();
        let writer = Writer(Arc::clone(&log));
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        log
    });
    Arc::clone(&LOG)
}

#[derive(Clone)]
struct Writer(Arc<Mutex<String>>);

impl io::Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
