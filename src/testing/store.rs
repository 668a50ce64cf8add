//! The contract of [`OperationStore`], as a test.
#![allow(clippy::expect_used, reason = "a failed expectation is what a test is for")]

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::error::ErrorKind;
use crate::model::Cursor;
use crate::model::DicomIdentifier;
use crate::model::ExportSource;
use crate::model::Timestamp;
use crate::model::{Checkpoint, Lease, OperationKey};
use crate::model::{
    OperationContext, OperationId, OperationIssue, OperationSpec, OperationStatus, StoredDestination,
};
use crate::store::OperationStore;
use crate::testing::fixtures;

/// Holds a store to the contract of [`OperationStore`]. It begins empty, and is empty again afterwards.
///
/// # Panics
/// With a message, where the contract is broken.
pub async fn store_conformance(store: &dyn OperationStore) {
    assert_eq!(store.list(None, 10).await.expect("a list"), [], "the store is not empty");
    an_unknown_operation_is_not_found(store).await;
    what_is_created_is_there(store).await;
    a_save_needs_the_version_before_it(store).await;
    operations_are_listed_newest_first(store).await;
    assert_eq!(store.list(None, 10).await.expect("a list"), [], "deleted operations are listed");
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

/// A checkpoint with something in every field.
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
    checkpoint.lease = Some(Lease::new("somebody", now, Duration::from_secs(30)));
    checkpoint.cancel_requested = true;
    checkpoint
}

async fn an_unknown_operation_is_not_found(store: &dyn OperationStore) {
    let id = OperationId::random();
    let not_found = Some(ErrorKind::NotFound);
    assert_eq!(store.spec(id).await.err().map(|error| error.kind()), not_found, "an unknown spec");
    assert_eq!(store.load(id).await.err().map(|error| error.kind()), not_found, "an unknown checkpoint");
    let checkpoint = Checkpoint { version: 1, ..Checkpoint::first(Timestamp::now()) };
    assert_eq!(
        store.save(id, &checkpoint).await.err().map(|error| error.kind()),
        not_found,
        "an unknown save"
    );
    store.delete(id).await.expect("deleting an unknown operation does nothing");
}

async fn what_is_created_is_there(store: &dyn OperationStore) {
    let spec = spec(OperationId::random(), Timestamp::now(), 5000);
    let first = progressed(Checkpoint::first(Timestamp::now()));
    store.create(&spec, &first).await.expect("an operation is created");
    assert_eq!(*store.spec(spec.id).await.expect("a spec"), spec, "the spec is another");
    let stored = Checkpoint { version: 1, ..first.clone() };
    assert_eq!(store.load(spec.id).await.expect("a checkpoint"), stored, "the checkpoint is another");

    let other = OperationSpec { created_time: Timestamp::now(), ..new_spec() };
    let other = OperationSpec { id: spec.id, ..other };
    let twice = store.create(&other, &Checkpoint::first(Timestamp::now())).await;
    assert_eq!(
        twice.err().map(|error| error.kind()),
        Some(ErrorKind::Conflict),
        "an operation is created twice"
    );
    assert_eq!(*store.spec(spec.id).await.expect("a spec"), spec, "a refused operation changed the spec");
    assert_eq!(
        store.load(spec.id).await.expect("a checkpoint"),
        stored,
        "a refused operation changed the checkpoint"
    );
    assert_eq!(store.list(None, 10).await.expect("a list"), [OperationKey::from(&spec)]);

    store.delete(spec.id).await.expect("an operation is deleted");
    assert_eq!(
        store.spec(spec.id).await.err().map(|error| error.kind()),
        Some(ErrorKind::NotFound),
        "a deleted spec"
    );
    store.create(&spec, &first).await.expect("a deleted operation is created again");
    assert_eq!(store.load(spec.id).await.expect("a checkpoint").version, 1, "the version begins anew");
    store.delete(spec.id).await.expect("an operation is deleted");
}

async fn a_save_needs_the_version_before_it(store: &dyn OperationStore) {
    let spec = new_spec();
    store.create(&spec, &Checkpoint::first(Timestamp::now())).await.expect("an operation is created");
    let old = store.load(spec.id).await.expect("a checkpoint");
    let new = progressed(old.clone());
    assert_eq!(store.save(spec.id, &new).await.expect("a checkpoint is saved"), 2, "the second version");
    let stored = Checkpoint { version: 2, ..new };
    assert_eq!(store.load(spec.id).await.expect("a checkpoint"), stored, "the checkpoint is another");
    for version in [0, 1, 3, u64::MAX] {
        let stale = Checkpoint { version, ..progressed(stored.clone()) };
        let lost = store.save(spec.id, &stale).await;
        assert_eq!(
            lost.err().map(|error| error.kind()),
            Some(ErrorKind::Conflict),
            "version {version} is saved over 2"
        );
    }
    assert_eq!(
        store.load(spec.id).await.expect("a checkpoint"),
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
        assert_eq!(won.len(), 1, "of eight saves over one version so many win");
        let expected = Checkpoint { version: version + 1, ..won[0].0.clone() };
        assert_eq!(
            store.load(spec.id).await.expect("a checkpoint"),
            expected,
            "another than the winner is stored"
        );
    }
    store.delete(spec.id).await.expect("an operation is deleted");
}

async fn operations_are_listed_newest_first(store: &dyn OperationStore) {
    let now = Timestamp::now().to_utc();
    // Not in order; three share a time, and the smallest step of the clock lies between two.
    let ages = [50, 10, 30, 30, 30, 99, 0].map(|age| Timestamp::from(now - Duration::from_secs(age)));
    let ages = ages.into_iter().chain([Timestamp::from(now - Duration::from_nanos(100))]);
    let mut keys = Vec::new();
    for created_time in ages {
        let spec = spec(OperationId::random(), created_time, 1);
        store.create(&spec, &Checkpoint::first(created_time)).await.expect("an operation is created");
        keys.push(OperationKey::from(&spec));
    }
    keys.sort_unstable();
    keys.reverse();
    for limit in [1, 2, 3, keys.len(), 100] {
        let mut listed: Vec<OperationKey> = Vec::new();
        loop {
            let page = store.list(listed.last().copied(), limit).await.expect("a list");
            assert!(page.len() <= limit, "a list is longer than it may be");
            if page.is_empty() {
                break;
            }
            listed.extend(page);
            assert!(listed.len() <= keys.len(), "operations are listed twice");
        }
        assert_eq!(listed, keys, "the list by {limit} is not newest first");
    }
    // A save moves nothing, and what is deleted still marks its place.
    let loaded = store.load(keys[3].id).await.expect("a checkpoint");
    store.save(keys[3].id, &progressed(loaded)).await.expect("a checkpoint is saved");
    store.delete(keys[2].id).await.expect("an operation is deleted");
    assert_eq!(store.list(Some(keys[2]), 2).await.expect("a list"), keys[3..5], "after a deleted operation");
    for key in keys {
        store.delete(key.id).await.expect("an operation is deleted");
    }
}
