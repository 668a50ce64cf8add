//! [`store_conformance`]: a conformance suite for [`OperationStore`].
#![allow(clippy::expect_used, reason = "a suite panics on a violation")]

use std::cmp::Reverse;
use std::num::NonZeroU64;
use std::time::Duration;

use chrono::TimeDelta;
use futures::future::join_all;
use serde_json::json;

use crate::error::ErrorKind;
use crate::model::{
    Checkpoint, Cursor, DicomIdentifier, ExportSource, Lease, OperationContext, OperationId, OperationIssue,
    OperationKey, OperationSpec, OperationStatus, Position, RecordFormat, StoredDestination, Timestamp,
    Totals,
};
use crate::store::{OperationFilter, OperationStore};
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
    queries_return_the_operations_that_match(store).await;
    assert_eq!(store.list(None, 10).await.expect("list succeeds"), [], "deleted operations are still listed");
}

/// Text with characters that a store might not keep: a control character, a character that JSON escapes, and one of the
/// private use area.
const ANY_TEXT: &str = "\"\\u0000\n\0\u{E000}0";

fn spec(id: OperationId, created_time: Timestamp, identifiers: u32) -> OperationSpec {
    let source = match identifiers {
        0 => ExportSource::Everything,
        count => ExportSource::identifiers(
            (0..count).map(|number| DicomIdentifier::study(fixtures::study_uid(number))),
        )
        .expect("identifiers"),
    };
    OperationSpec {
        format: RecordFormat,
        id,
        created_time,
        source,
        destination: destination(),
        error_href: format!("memory:///{id}/errors.log"),
        context: OperationContext::default()
            .with_partition("one")
            .with_caller("ü")
            .with_attribute("ä", ANY_TEXT),
        manifest: identifiers % 2 == 1,
    }
}

fn new_spec() -> OperationSpec {
    spec(OperationId::random(), Timestamp::now(), 0)
}

fn destination() -> StoredDestination {
    let settings = json!({ "a": [1, null, "ü"] });
    let expires = Some(Timestamp::now());
    StoredDestination { expires, ..StoredDestination::new("test", "memory:///", settings, true) }
}

/// A checkpoint with another value than the default in every field.
fn filled(version: u64) -> Checkpoint {
    let now = Timestamp::now();
    // Without `..`, so that a new field is not forgotten.
    Checkpoint {
        format: RecordFormat,
        version,
        created_time: now,
        error_href: "memory:///errors.log".to_owned(),
        context: OperationContext::default()
            .with_partition("two")
            .with_caller("ü")
            .with_attribute("ä", ANY_TEXT),
        status: OperationStatus::Running,
        last_updated_time: now,
        last_progress_time: Some(now),
        runner: Some("a host:1".to_owned()),
        position: Position {
            scope: 1,
            after: Some(Cursor::new(format!("{{\"after\":\"{ANY_TEXT}\"}}"))),
            found: u64::MAX,
            batch: 2,
            done: true,
        },
        totals: Totals {
            exported: 10,
            skipped: 1,
            bytes: u64::MAX,
            warnings: [("aWarning".to_owned(), ("some".to_owned(), 3))].into(),
        },
        estimate: Some(100),
        error: Some(OperationIssue::new("unavailable", "planned failure")),
        warnings: vec![OperationIssue::new("another", "one")],
        lease: Some(Lease::new("a runner", now, Duration::from_secs(30))),
        cancel_requested: true,
        pause_requested: true,
        bytes_per_second: NonZeroU64::new(1_000_000),
        end_pending: true,
        destination: Some(destination()),
    }
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
    // An odd number: with a manifest.
    let spec = spec(OperationId::random(), Timestamp::now(), 5001);
    let first = filled(0);
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
    let new = filled(old.version);
    assert_eq!(
        store.save(spec.id, &new).await.expect("save succeeds"),
        2,
        "the version after the first save"
    );
    let stored = Checkpoint { version: 2, ..new };
    assert_eq!(store.load(spec.id).await.expect("load succeeds"), stored, "the loaded checkpoint differs");
    for version in [0, 1, 3, u64::MAX] {
        let stale = filled(version);
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
    store.save(keys[3].id, &filled(loaded.version)).await.expect("save succeeds");
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

async fn queries_return_the_operations_that_match(store: &dyn OperationStore) {
    let now = Timestamp::now();
    let lease = |seconds: i64| {
        let expires = Timestamp::try_from(now.to_utc() + TimeDelta::seconds(seconds)).expect("a valid time");
        Some(Lease { holder: "a runner".to_owned(), expires })
    };
    let statuses = [
        OperationStatus::NotStarted,
        OperationStatus::Running,
        OperationStatus::Paused,
        OperationStatus::Completed,
        OperationStatus::Failed,
        OperationStatus::Canceled,
    ];
    let mut stored = Vec::new();
    for (status, partition, lease) in statuses.into_iter().flat_map(|status| {
        [(status, None, None), (status, Some("one"), lease(10)), (status, Some("two"), lease(-10))]
    }) {
        let age = |number: usize| now.saturating_sub(Duration::from_secs(10 * number as u64));
        let spec = spec(OperationId::random(), age(stored.len()), 0);
        // Created in another status, so that an index must follow the saves.
        let first = if status.is_ended() { OperationStatus::Running } else { OperationStatus::Completed };
        let first = Checkpoint { status: first, ..Checkpoint::first(spec.created_time) };
        store.create(&spec, &first).await.expect("create succeeds");
        let mut checkpoint = Checkpoint { version: 1, status, lease, ..first };
        checkpoint.context.partition = partition.map(str::to_owned);
        checkpoint.end_pending = status.is_ended() && stored.len() % 2 == 0;
        checkpoint.last_updated_time = age(stored.len() / 2);
        checkpoint.version = store.save(spec.id, &checkpoint).await.expect("save succeeds");
        stored.push((OperationKey::from(&spec), checkpoint));
    }
    stored.sort_unstable_by_key(|(key, _)| Reverse(*key));

    let all = OperationFilter::new(100);
    let mut filters = vec![
        all.clone(),
        all.clone().unfinished_only(),
        all.clone().lease_lapsed_at(now),
        all.clone().partition("one"),
        all.clone().partition("three"),
        all.clone().end_pending_only(),
        all.clone().end_pending_only().lease_lapsed_at(now).partition("one"),
        all.clone().ended_before(now),
        all.clone().ended_before(now.saturating_sub(Duration::from_secs(50))).partition("one"),
        all.clone().ended_before(now.saturating_sub(Duration::from_secs(50))).status(OperationStatus::Failed),
        all.clone().unfinished_only().lease_lapsed_at(now),
        all.clone().unfinished_only().partition("two").lease_lapsed_at(now).status(OperationStatus::Running),
    ];
    filters.extend(statuses.map(|status| all.clone().status(status)));
    for filter in filters {
        let expected: Vec<_> =
            stored.iter().filter(|(_, checkpoint)| filter.matches(checkpoint)).cloned().collect();
        for limit in [1, 2, 100] {
            let mut found: Vec<(OperationKey, Checkpoint)> = Vec::new();
            loop {
                let page =
                    OperationFilter { limit, after: found.last().map(|(key, _)| *key), ..filter.clone() };
                let page = store.query(&page).await.expect("query succeeds");
                assert!(page.len() <= limit, "query returned more operations than its limit");
                let is_last = page.len() < limit;
                found.extend(page);
                assert!(found.len() <= stored.len(), "query returned an operation twice");
                if is_last {
                    break;
                }
            }
            assert_eq!(found, expected, "the operations of {filter:?} with pages of {limit}");
            let count =
                store.count(&OperationFilter { limit, ..filter.clone() }).await.expect("count succeeds");
            assert_eq!(count, expected.len().min(limit), "the count of {filter:?}, at most {limit}");
        }
    }
    assert_eq!(store.query(&OperationFilter::new(0)).await.expect("query succeeds"), [], "a limit of 0");
    assert_eq!(store.count(&OperationFilter::new(0)).await.expect("count succeeds"), 0, "a limit of 0");
    for (key, _) in stored {
        store.delete(key.id).await.expect("delete succeeds");
    }
    assert_eq!(store.query(&all).await.expect("query succeeds"), [], "deleted operations are still returned");
}
