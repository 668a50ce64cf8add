//! [`source_conformance`]: a conformance suite for [`InstanceSource`].
#![allow(clippy::expect_used, reason = "a suite panics on a violation")]
#![allow(clippy::future_not_send, reason = "a suite is awaited in its test's own task")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::TryStreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::content::Content;
use crate::model::{
    Cursor, DicomIdentifier, ExportSource, Instance, InstanceIdentifier, ListRequest, Page, Scope, Uid,
};
use crate::source::InstanceSource;

/// More instances than the suite supports.
const MAX_INSTANCES: usize = 10_000;

/// Checks a source against the contract of [`InstanceSource`].
///
/// `open` returns the source in the state in which a new process would open it. For a source in memory it can return clones
/// of one [`Arc`](std::sync::Arc). `expected` contains all instances of the source: at least four, in two studies and three
/// series, and at most a few hundred, because the suite lists each instance several times.
///
/// The suite opens only instances that the source has listed. Test separately that opening an instance which was deleted
/// after it was listed fails with [`NotFound`](crate::ErrorKind::NotFound).
///
/// # Panics
/// If the source violates the contract.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
/// use dicom_export::MemorySource;
/// use dicom_export::testing::{fixtures, source_conformance};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let numbers = [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1)];
/// let expected: BTreeMap<_, _> = numbers
///     .map(|(study, series, n)| (fixtures::instance(study, series, n), fixtures::ct_slice(study, series, n)))
///     .into();
/// let source: Arc<MemorySource> = Arc::new(expected.clone().into_iter().collect());
/// source_conformance(|| Arc::clone(&source), &expected).await;
/// # }
/// ```
pub async fn source_conformance<S: InstanceSource>(
    open: impl Fn() -> S,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
) {
    let studies: BTreeSet<_> = expected.keys().map(|of| of.study_instance_uid().clone()).collect();
    let series: BTreeSet<_> = expected
        .keys()
        .map(|of| (of.study_instance_uid().clone(), of.series_instance_uid().clone()))
        .collect();
    assert!(
        expected.len() >= 4 && studies.len() >= 2 && series.len() >= 3,
        "the suite needs at least four instances in two studies and three series"
    );

    let all = everything_is_listed_once(&open, expected).await;
    scopes_list_their_instances(&open, expected, &studies, &series).await;
    unknown_scopes_are_empty(&open, expected).await;
    contents_are_complete(&open(), expected, &all).await;

    let everything = open().estimate(&ExportSource::Everything).await.expect("estimate succeeds");
    assert!(
        everything.is_none_or(|count| count == all.len() as u64),
        "the estimate of all instances is wrong"
    );
}

async fn everything_is_listed_once<S: InstanceSource>(
    open: &impl Fn() -> S,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
) -> Vec<Instance> {
    let all = list(open, Scope::Everything, MAX_INSTANCES).await;
    let found: BTreeSet<_> = all.iter().map(Instance::identifier).collect();
    assert_eq!(found.len(), all.len(), "an instance is listed twice");
    assert!(found.iter().copied().eq(expected.keys()), "the listed instances are not the expected ones");
    for limit in [1, 2, 3, all.len() - 1, all.len()] {
        let again = list(open, Scope::Everything, limit).await;
        assert_eq!(again, all, "the listing with pages of {limit} differs");
    }
    // A call may be repeated because its response was lost.
    let source = open();
    let request = ListRequest::new(Scope::Everything, None, 2);
    let first = source.list(request).await.expect("list succeeds");
    assert_eq!(
        source.list(request).await.expect("list succeeds"),
        first,
        "a repeated call returns another page"
    );
    let request = ListRequest::new(Scope::Everything, first.next.as_ref(), 2);
    let second = source.list(request).await.expect("list succeeds");
    assert_eq!(
        source.list(request).await.expect("list succeeds"),
        second,
        "a repeated call returns another page"
    );
    all
}

async fn scopes_list_their_instances<S: InstanceSource>(
    open: &impl Fn() -> S,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
    studies: &BTreeSet<Uid>,
    series: &BTreeSet<(Uid, Uid)>,
) {
    let studies = studies.iter().cloned().map(DicomIdentifier::study);
    let series = series.iter().cloned().map(|(study, series)| DicomIdentifier::series(study, series));
    let instances = expected.keys().take(3).cloned().map(DicomIdentifier::from);
    for scope in studies.chain(series).chain(instances) {
        let listed = list(open, Scope::Identifier(&scope), MAX_INSTANCES).await;
        let found: BTreeSet<_> = listed.iter().map(Instance::identifier).collect();
        let covered = expected.keys().filter(|of| scope.covers(of));
        assert_eq!(found.len(), listed.len(), "an instance of {scope} is listed twice");
        assert!(
            found.iter().copied().eq(covered),
            "the instances listed for {scope} are not the expected ones"
        );
        for limit in [1, 2] {
            let again = list(open, Scope::Identifier(&scope), limit).await;
            assert_eq!(again, listed, "the listing of {scope} with pages of {limit} differs");
        }
        let source = ExportSource::identifiers([scope]).expect("a valid identifier");
        let estimate = open().estimate(&source).await.expect("estimate succeeds");
        assert!(
            estimate.is_none_or(|count| count == listed.len() as u64),
            "the estimate of a scope is wrong"
        );
    }
}

async fn unknown_scopes_are_empty<S: InstanceSource>(
    open: &impl Fn() -> S,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
) {
    let known = expected.keys().next().expect("at least one instance");
    let other = expected.keys().next_back().expect("at least one instance");
    let (study, series) = (known.study_instance_uid(), known.series_instance_uid());
    // UIDs that are prefixes of known UIDs or have them as prefixes.
    for unknown in [
        unknown_to(expected, |uid| format!("{uid}1")),
        unknown_to(expected, |uid| uid[..uid.len() - 1].to_owned()),
    ] {
        for scope in [
            DicomIdentifier::study(unknown.clone()),
            DicomIdentifier::series(study.clone(), unknown.clone()),
            DicomIdentifier::series(study.clone(), other.series_instance_uid().clone()),
            DicomIdentifier::instance(study.clone(), series.clone(), unknown.clone()),
            DicomIdentifier::instance(unknown.clone(), series.clone(), known.sop_instance_uid().clone()),
        ] {
            if expected.keys().any(|of| scope.covers(of)) {
                continue;
            }
            let page = open().list(ListRequest::new(Scope::Identifier(&scope), None, 5)).await;
            let page = page.expect("listing an unknown scope succeeds");
            assert!(
                page.instances.is_empty() && page.failures.is_empty(),
                "an unknown scope {scope} has instances"
            );
            assert!(page.next.is_none(), "an unknown scope {scope} has another page");
        }
    }
}

async fn contents_are_complete(
    source: &impl InstanceSource,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
    all: &[Instance],
) {
    for instance in all {
        // As another process would receive it.
        let (listed, instance) = (instance, round_trip(instance));
        let name = instance.identifier();
        let whole = &expected[name];
        let unread = source.open(&instance).await.expect("open succeeds");
        drop(unread);
        for instance in [listed, &instance, &instance] {
            let content = source.open(instance).await.expect("open succeeds");
            let length = content.length();
            assert!(
                length.is_none_or(|length| length == whole.len() as u64),
                "the content of {name} states a wrong length"
            );
            assert!(read(content).await == *whole, "the content of {name} differs");
        }
        assert!(
            instance.size().is_none_or(|size| size == whole.len() as u64),
            "the listed size of {name} is wrong"
        );
    }
    let opened =
        all.iter().map(|instance| async { read(source.open(instance).await.expect("open succeeds")).await });
    for (bytes, instance) in futures::future::join_all(opened).await.iter().zip(all) {
        assert!(*bytes == expected[instance.identifier()], "concurrently opened contents were mixed");
    }
}

/// A UID that does not occur, derived from a known UID.
fn unknown_to(expected: &BTreeMap<InstanceIdentifier, Bytes>, mut change: impl FnMut(&str) -> String) -> Uid {
    let known: BTreeSet<_> = expected
        .keys()
        .flat_map(|of| [of.study_instance_uid(), of.series_instance_uid(), of.sop_instance_uid()])
        .collect();
    let mut text =
        expected.keys().next().expect("at least one instance").study_instance_uid().as_str().to_owned();
    loop {
        text = change(&text);
        let uid = Uid::from_padded(text.trim_end_matches('.')).expect("a valid UID");
        if !known.contains(&uid) {
            return uid;
        }
    }
}

/// Lists a scope. Each page is read from a newly opened source, with a cursor that was serialized.
async fn list<S: InstanceSource>(open: &impl Fn() -> S, scope: Scope<'_>, limit: usize) -> Vec<Instance> {
    let mut listed = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let Page { instances, failures, next, .. } =
            open().list(ListRequest::new(scope, after.as_ref(), limit)).await.expect("list succeeds");
        assert!(failures.is_empty(), "instances cannot be listed: {failures:?}");
        assert!(instances.len() <= limit, "a page has more instances than its limit");
        assert!(listed.len() < MAX_INSTANCES, "the listing does not end");
        listed.extend(instances);
        match next {
            Some(next) => {
                assert_ne!(after.as_ref(), Some(&next), "the cursor does not advance");
                after = Some(round_trip(&next));
            }
            None => return listed,
        }
    }
}

async fn read(content: Content) -> Bytes {
    let chunks: Vec<Bytes> = content.into_stream().try_collect().await.expect("reading the content succeeds");
    chunks.concat().into()
}

fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).expect("serialization succeeds"))
        .expect("deserialization succeeds")
}
