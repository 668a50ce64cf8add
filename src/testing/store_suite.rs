//! [`store_conformance`]: a conformance suite for [`OperationStore`].
#![allow(clippy::expect_used, reason = "a suite panics on a violation")]

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::error::ErrorKind;
use crate::model::{
    Checkpoint, Cursor, DicomIdentifier, ExportSource, Lease, OperationContext, OperationId, OperationIssue,
    OperationKey, OperationSpec, OperationStatus, StoredDestination, Timestamp,
};
use crate::store::OperationStore;
use crate::testing::fixtures;

/// Checks a store against the contract of [`OperationStore`]. The store must be empty, and is empty again afterwards.
///
/// # Panics
/// If the store violates the contract.
///
/// ```
/// use dicom_export::store::MemoryOperationStore;
/// use dicom_export::testing::store_conformance;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// store_conformance(&MemoryOperationStore::new()).await;
/// # }
/// ```
pub async fn store_conformance(store: &dyn OperationStore) {
    assert_eq!(store.list(None, 10).await.expect("list succeeds"), [], "the store is not empty");
    unknown_operations_are_not_found(store).await;
    created_operations_can_be_loaded(store).await;
    save_compares_versions(store).await;
    operations_are_listed_newest_first(store).await;
    assert_eq!(store.list(None, 10).await.expect("list succeeds"), [], "deleted operations are still listed");
}

fn spec(id: OperationId, created_time: Timestamp, identifiers: u32) -> OperationSpec {
    let source = match identifiers {
        0 => ExportSource::Everything,
        count => ExportSource::identifiers(
            (0..count).map(|number| DicomIdentifier::study(fixtures::study_uid(number))),
        )
        .expect("identifiers"),
    };
    OperationSpec {
        id,
        created_time,
        source,
        destination: StoredDestination::new("test", "memory:///", json!({ "a": [1, null, "ü"] }), true),
        error_href: format!("memory:///{id}/errors.log"),
        context: OperationContext::default().with_partition("one").with_attribute("ä", "\"\n"),
        manifest: identifiers % 2 == 1,
    }
}

fn new_spec() -> OperationSpec {
    spec(OperationId::random(), Timestamp::now(), 0)
}

/// A checkpoint with a value in every field.
fn progressed(mut checkpoint: Checkpoint) -> Checkpoint {
    let now = Timestamp::now();
    checkpoint.status = OperationStatus::Running;
    checkpoint.last_updated_time = now;
    checkpoint.position.scope += 1;
    checkpoint.position.after = Some(Cursor::new("{\"after\":\"ü\"}"));
    checkpoint.position.found = u64::MAX;
    checkpoint.position.batch += 1;
    checkpoint.totals.exported += 10;
    checkpoint.totals.skipped += 1;
    checkpoint.totals.bytes = u64::MAX;
    checkpoint.totals.warnings.insert("aWarning".to_owned(), ("some".to_owned(), 3));
    checkpoint.estimate = Some(100);
    checkpoint.error = Some(OperationIssue::new("unavailable", "it was"));
    checkpoint.warnings.push(OperationIssue::new("another", "one"));
    checkpoint.lease = Some(Lease::new("a runner", now, Duration::from_secs(30)));
    checkpoint.cancel_requested = true;
    checkpoint
}

async fn unknown_operations_are_not_found(store: &dyn OperationStore) {
    let id = OperationId::random();
    let not_found = Some(ErrorKind::NotFound);
    assert_eq!(
        store.spec(id).await.err().map(|error| error.kind()),
        not_found,
        "spec of an unknown operation"
    );
    assert_eq!(
        store.load(id).await.err().map(|error| error.kind()),
        not_found,
        "load of an unknown operation"
    );
    let checkpoint = Checkpoint { version: 1, ..Checkpoint::first(Timestamp::now()) };
    assert_eq!(
        store.save(id, &checkpoint).await.err().map(|error| error.kind()),
        not_found,
        "save of an unknown operation"
    );
    store.delete(id).await.expect("deleting an unknown operation succeeds");
}

async fn created_operations_can_be_loaded(store: &dyn OperationStore) {
    let spec = spec(OperationId::random(), Timestamp::now(), 5000);
    let first = progressed(Checkpoint::first(Timestamp::now()));
    store.create(&spec, &first).await.expect("create succeeds");
    assert_eq!(*store.spec(spec.id).await.expect("spec succeeds"), spec, "the loaded spec differs");
    let stored = Checkpoint { version: 1, ..first.clone() };
    assert_eq!(store.load(spec.id).await.expect("load succeeds"), stored, "the loaded checkpoint differs");

    let other = OperationSpec { created_time: Timestamp::now(), ..new_spec() };
    let other = OperationSpec { id: spec.id, ..other };
    let refused = store.create(&other, &Checkpoint::first(Timestamp::now())).await;
    assert_eq!(
        refused.err().map(|error| error.kind()),
        Some(ErrorKind::Conflict),
        "an operation was created twice"
    );
    assert_eq!(*store.spec(spec.id).await.expect("spec succeeds"), spec, "a refused create changed the spec");
    assert_eq!(
        store.load(spec.id).await.expect("load succeeds"),
        stored,
        "a refused create changed the checkpoint"
    );
    assert_eq!(store.list(None, 10).await.expect("list succeeds"), [OperationKey::from(&spec)]);

    store.delete(spec.id).await.expect("delete succeeds");
    assert_eq!(
        store.spec(spec.id).await.err().map(|error| error.kind()),
        Some(ErrorKind::NotFound),
        "spec of a deleted operation"
    );
    store.create(&spec, &first).await.expect("create succeeds after delete");
    assert_eq!(store.load(spec.id).await.expect("load succeeds").version, 1, "the version restarts at 1");
    store.delete(spec.id).await.expect("delete succeeds");
}

async fn save_compares_versions(store: &dyn OperationStore) {
    let spec = new_spec();
    store.create(&spec, &Checkpoint::first(Timestamp::now())).await.expect("create succeeds");
    let old = store.load(spec.id).await.expect("load succeeds");
    let new = progressed(old.clone());
    assert_eq!(
        store.save(spec.id, &new).await.expect("save succeeds"),
        2,
        "the version after the first save"
    );
    let stored = Checkpoint { version: 2, ..new };
    assert_eq!(store.load(spec.id).await.expect("load succeeds"), stored, "the loaded checkpoint differs");
    for version in [0, 1, 3, u64::MAX] {
        let stale = Checkpoint { version, ..progressed(stored.clone()) };
        let refused = store.save(spec.id, &stale).await;
        assert_eq!(
            refused.err().map(|error| error.kind()),
            Some(ErrorKind::Conflict),
            "a checkpoint of version {version} was saved over version 2"
        );
    }
    assert_eq!(
        store.load(spec.id).await.expect("load succeeds"),
        stored,
        "a refused save changed the checkpoint"
    );

    for version in 2..7 {
        let contenders: Vec<_> = (0..8)
            .map(|number| {
                let mut mine = Checkpoint { version, ..stored.clone() };
                mine.totals.exported = 1000 * version + number;
                mine
            })
            .collect();
        let outcomes = join_all(contenders.iter().map(|mine| store.save(spec.id, mine))).await;
        let won: Vec<_> = contenders.iter().zip(&outcomes).filter(|(_, outcome)| outcome.is_ok()).collect();
        assert_eq!(won.len(), 1, "the number of concurrent saves of one version that succeeded");
        let expected = Checkpoint { version: version + 1, ..won[0].0.clone() };
        assert_eq!(
            store.load(spec.id).await.expect("load succeeds"),
            expected,
            "the stored checkpoint is not the one whose save succeeded"
        );
    }
    store.delete(spec.id).await.expect("delete succeeds");
}

async fn operations_are_listed_newest_first(store: &dyn OperationStore) {
    let now = Timestamp::now();
    // Unordered. Three operations have the same time, and two differ by the precision of timestamps.
    let ages = [50, 10, 30, 30, 30, 99, 0].map(|age| now.saturating_sub(Duration::from_secs(age)));
    let ages = ages.into_iter().chain([now.saturating_sub(Duration::from_nanos(100))]);
    let mut keys = Vec::new();
    for created_time in ages {
        let spec = spec(OperationId::random(), created_time, 1);
        store.create(&spec, &Checkpoint::first(created_time)).await.expect("create succeeds");
        keys.push(OperationKey::from(&spec));
    }
    keys.sort_unstable();
    keys.reverse();
    for limit in [1, 2, 3, keys.len(), 100] {
        let mut listed: Vec<OperationKey> = Vec::new();
        loop {
            let page = store.list(listed.last().copied(), limit).await.expect("list succeeds");
            assert!(page.len() <= limit, "list returned more operations than its limit");
            if page.is_empty() {
                break;
            }
            listed.extend(page);
            assert!(listed.len() <= keys.len(), "an operation is listed twice");
        }
        assert_eq!(listed, keys, "the listing with pages of {limit} is not newest first");
    }
    // A save does not change the order, and the key of a deleted operation is a valid position.
    let loaded = store.load(keys[3].id).await.expect("load succeeds");
    store.save(keys[3].id, &progressed(loaded)).await.expect("save succeeds");
    store.delete(keys[2].id).await.expect("delete succeeds");
    assert_eq!(
        store.list(Some(keys[2]), 2).await.expect("list succeeds"),
        keys[3..5],
        "the listing after a deleted operation"
    );
    for key in keys {
        store.delete(key.id).await.expect("delete succeeds");
    }
}
