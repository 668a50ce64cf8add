//! Errors of sources and stores, to the end of their chains.

use std::fmt::Debug;
use std::sync::Arc;

use dicom_export::object_store::ObjectStore;
use dicom_export::object_store::local::LocalFileSystem;
use dicom_export::object_store::memory::InMemory;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::sink::{Secret, SinkProvider};
use dicom_export::source::{Cursor, Instance, ListRequest, Locator, Scope};
use dicom_export::store::{Checkpoint, OperationStore, RedbOperationStore};
use dicom_export::{
    DirectorySource, ErrorKind, InstanceSource, MemorySource, ObjectStoreSource, OperationId, OperationSpec,
    Timestamp,
};
use redb::{Database, TableDefinition};
use serde_json::json;

use crate::archive;
use crate::canary::{Canaries, all_of};

const SIGNATURE: &str = "Y2FuYXJ5LXNpZ25hdHVyZS1pbi1hbi1lcnJvcg%3D%3D";

fn canaries() -> Canaries {
    archive::canaries().with("the signature", SIGNATURE)
}

#[track_caller]
fn assert_no_leak<T: Debug>(outcome: dicom_export::Result<T>) -> ErrorKind {
    let error = outcome.unwrap_err();
    canaries().assert_absent("an error", all_of(&error));
    error.kind()
}

#[tokio::test]
async fn guarantee_6_errors_of_a_folder_contain_no_file_name() {
    let folder = archive::folder(2);
    let patient = folder.path().join(archive::FOLDER);
    assert_no_leak(DirectorySource::open(patient.join("gone")));
    assert_no_leak(DirectorySource::open(patient.join(format!("{}-0.dcm", archive::FOLDER))));
    let source = DirectorySource::open(folder.path()).unwrap();
    let at = |path: String| Instance::new(archive::instance(1)).with_locator(Locator::new(path));
    let within = |rest: &str| format!("{0}/{0}-{rest}", archive::FOLDER);
    for path in
        [within("gone.dcm"), within("0.dcm/x"), archive::FOLDER.to_owned(), format!("../{}", archive::FOLDER)]
    {
        match source.open(&at(path)).await {
            Ok(content) => {
                let chunks: Vec<_> = futures::StreamExt::collect(content.into_stream()).await;
                assert!(
                    chunks
                        .into_iter()
                        .filter_map(Result::err)
                        .map(|error| canaries().assert_absent("an error", all_of(&error)))
                        .count()
                        > 0
                );
            }
            outcome => _ = assert_no_leak(outcome),
        }
    }
    let cursor = Cursor::new(format!("/{}", archive::FOLDER));
    assert_no_leak(source.list(ListRequest::new(Scope::Everything, Some(&cursor), 9)).await);
    let study = "1.2.3".parse().unwrap();
    assert_no_leak(source.list(ListRequest::new(Scope::Identifier(&study), Some(&cursor), 9)).await);
    assert_no_leak(MemorySource::new().list(ListRequest::new(Scope::Everything, Some(&cursor), 9)).await);
    // The folder is deleted.
    std::fs::remove_dir_all(folder.path()).unwrap();
    assert_no_leak(source.open(&at(within("0.dcm"))).await);
    let gone = source.list(ListRequest::new(Scope::Everything, None, 9)).await;
    assert_eq!(assert_no_leak(gone), ErrorKind::Unavailable);
}

#[tokio::test]
async fn guarantee_6_errors_of_an_object_store_contain_no_key() {
    let folder = archive::folder(1);
    let local = LocalFileSystem::new_with_prefix(folder.path().join(archive::FOLDER)).unwrap();
    let stores: [Arc<dyn ObjectStore>; 2] = [Arc::new(InMemory::new()), Arc::new(local)];
    for store in stores {
        let source = ObjectStoreSource::new(store).with_prefix(archive::FOLDER).unwrap();
        assert_eq!(
            assert_no_leak(source.open(&Instance::new(archive::instance(1))).await),
            ErrorKind::NotFound
        );
        let cursor = Cursor::new(format!("{}//x", archive::FOLDER));
        assert_no_leak(source.list(ListRequest::new(Scope::Everything, Some(&cursor), 9)).await);
        assert_no_leak(source.with_prefix(&format!("{}/../x", archive::FOLDER)));
    }
    // A folder in the place of a file.
    let at = archive::instance(1).to_string() + ".dcm";
    std::fs::create_dir_all(folder.path().join(archive::FOLDER).join(at)).unwrap();
    let local = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    let source = ObjectStoreSource::new(Arc::new(local)).with_prefix(archive::FOLDER).unwrap();
    assert_no_leak(source.open(&Instance::new(archive::instance(1))).await);
}

/// A damaged state file contains paths in the source's cursors.
#[tokio::test]
async fn guarantee_6_errors_of_a_damaged_state_file_do_not_quote_it() {
    const CHECKPOINTS: TableDefinition<'_, u128, (u64, &[u8])> = TableDefinition::new("checkpoints");
    const SPECS: TableDefinition<'_, u128, &[u8]> = TableDefinition::new("specs");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    drop(RedbOperationStore::open(&path).unwrap());
    let id = OperationId::random();
    let damage = |checkpoint: &str, spec: &str| {
        let database = Database::open(&path).unwrap();
        let writing = database.begin_write().unwrap();
        writing.open_table(CHECKPOINTS).unwrap().insert(id.as_u128(), (1, checkpoint.as_bytes())).unwrap();
        writing.open_table(SPECS).unwrap().insert(id.as_u128(), spec.as_bytes()).unwrap();
        writing.commit().unwrap();
    };
    let name = archive::NAME;
    let mut checkpoint = serde_json::to_value(Checkpoint::first(Timestamp::now())).unwrap();
    damage(&checkpoint.to_string(), &json!({ "id": name, "createdTime": name }).to_string());
    let store = RedbOperationStore::open(&path).unwrap();
    assert_eq!(assert_no_leak(store.spec(id).await), ErrorKind::Unreadable);
    drop(store);
    for damaged in [json!({ "scope": name }), json!(name), json!({ name: name }), json!([name])] {
        checkpoint["position"] = damaged;
        damage(&checkpoint.to_string(), "{}");
        let store = RedbOperationStore::open(&path).unwrap();
        assert_eq!(assert_no_leak(store.load(id).await), ErrorKind::Unreadable);
    }
    std::fs::write(&path, name.repeat(1000)).unwrap();
    assert_no_leak(RedbOperationStore::open(&path));
    assert_no_leak(RedbOperationStore::open(folder.path().join(archive::FOLDER).join("state")));
}

/// A stored destination that is damaged or of another version.
#[tokio::test]
async fn guarantee_6_errors_of_a_stored_destination_do_not_quote_it() {
    let provider = AzureBlobProvider::new(AzureBlobPolicy::new());
    let uri = format!("https://account.blob.core.windows.net/container?sig={SIGNATURE}");
    for settings in [
        json!(uri),
        json!({ "blobContainerUri": uri, "account": "account", "credential": SIGNATURE }),
        json!({ "blobContainerUri": [uri], "account": "account", "credential": "sas" }),
        json!({ "blobContainerUri": SIGNATURE, "account": "account", "credential": "sas" }),
        json!({ "blobContainerUri": format!("https://{SIGNATURE}:{SIGNATURE}@/x"), "account": "a", "credential": "sas" }),
    ] {
        let spec = json!({
            "id": OperationId::random(), "createdTime": Timestamp::now(), "source": null, "errorHref": "",
            "context": { "partition": null, "caller": null, "attributes": {} },
            "destination": { "type": "azureblob", "location": "", "settings": settings, "hasSecret": true, "expires": null },
        });
        let spec: OperationSpec = serde_json::from_value(spec).unwrap();
        let secret = Secret::new(format!("sig={SIGNATURE}"));
        assert!(
            provider
                .open(&spec, Some(&secret))
                .await
                .err()
                .inspect(|error| canaries().assert_absent("an error", all_of(error)))
                .is_some()
        );
    }
    assert_no_leak(Secret::new(SIGNATURE).decode::<u64>());
    assert_no_leak(Cursor::new(archive::NAME).decode::<u64>());
    assert_no_leak(Locator::new(json!(archive::NAME).to_string()).decode::<u64>());
}
