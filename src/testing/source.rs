//! The contract of [`InstanceSource`], as a test.
#![allow(clippy::expect_used, reason = "a failed expectation is what a test is for")]
#![allow(clippy::future_not_send, reason = "a test waits for it in place, and its closures may be plain")]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::TryStreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::content::Content;
use crate::error::ErrorKind;
use crate::model::ExportSource;
use crate::model::{Cursor, Instance, ListRequest, Page, Scope};
use crate::model::{DicomIdentifier, InstanceIdentifier, Uid};
use crate::source::InstanceSource;

/// More than a page of any test holds.
const LARGE: usize = 10_000;

/// Holds a source to the contract of [`InstanceSource`].
///
/// `open` gives the source as a new process would find it; one that lives in memory gives the same again, behind an
/// [`Arc`](std::sync::Arc). `expected` is everything it holds: at least four instances, in two studies and three
/// series, and at most a few hundred, since every instance is listed several times.
///
/// # Panics
/// With a message, where the contract is broken.
pub async fn source_conformance<S: InstanceSource>(
    open: impl Fn() -> S,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
) {
    let studies: BTreeSet<_> = expected.keys().map(|of| of.study_instance_uid().clone()).collect();
    let series: BTreeSet<_> = expected
        .keys()
        .map(|of| (of.study_instance_uid().clone(), of.series_instance_uid().clone()))
        .collect();
    assert!(expected.len() >= 4 && studies.len() >= 2 && series.len() >= 3, "the suite needs more to list");

    let all = everything_is_listed_once(&open, expected).await;
    scopes_hold_what_lies_under_them(&open, expected, &studies, &series).await;
    unknown_scopes_are_empty(&open, expected).await;
    contents_are_whole(&open(), expected, &all).await;
    what_is_unknown_is_not_found(&open(), expected).await;

    let everything = open().estimate(&ExportSource::Everything).await.expect("an estimate, or none");
    assert!(everything.is_none_or(|count| count == all.len() as u64), "the estimate of everything is wrong");
}

async fn everything_is_listed_once<S: InstanceSource>(
    open: &impl Fn() -> S,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
) -> Vec<Instance> {
    let all = list(open, Scope::Everything, LARGE).await;
    let found: BTreeSet<_> = all.iter().map(Instance::identifier).collect();
    assert_eq!(found.len(), all.len(), "an instance is listed twice");
    assert!(found.iter().copied().eq(expected.keys()), "the instances listed are not those there are");
    for limit in [1, 2, 3, all.len() - 1, all.len()] {
        let again = list(open, Scope::Everything, limit).await;
        assert_eq!(again, all, "by pages of {limit} the listing is another");
    }
    // A call may be repeated: its answer was lost.
    let source = open();
    let request = ListRequest::new(Scope::Everything, None, 2);
    let first = source.list(request).await.expect("a page");
    assert_eq!(source.list(request).await.expect("a page"), first, "the same call gives another page");
    let request = ListRequest::new(Scope::Everything, first.next.as_ref(), 2);
    let second = source.list(request).await.expect("a page");
    assert_eq!(source.list(request).await.expect("a page"), second, "the same call gives another page");
    all
}

async fn scopes_hold_what_lies_under_them<S: InstanceSource>(
    open: &impl Fn() -> S,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
    studies: &BTreeSet<Uid>,
    series: &BTreeSet<(Uid, Uid)>,
) {
    let studies = studies.iter().cloned().map(DicomIdentifier::study);
    let series = series.iter().cloned().map(|(study, series)| DicomIdentifier::series(study, series));
    let instances = expected.keys().take(3).cloned().map(DicomIdentifier::from);
    for scope in studies.chain(series).chain(instances) {
        let listed = list(open, Scope::Identifier(&scope), LARGE).await;
        let found: BTreeSet<_> = listed.iter().map(Instance::identifier).collect();
        let covered = expected.keys().filter(|of| scope.covers(of));
        assert_eq!(found.len(), listed.len(), "an instance is listed twice under {scope}");
        assert!(found.iter().copied().eq(covered), "under {scope} other instances are listed than there are");
        for limit in [1, 2] {
            let again = list(open, Scope::Identifier(&scope), limit).await;
            assert_eq!(again, listed, "by pages of {limit} the listing of {scope} is another");
        }
        let source = ExportSource::identifiers([scope]).expect("one identifier");
        let estimate = open().estimate(&source).await.expect("an estimate, or none");
        assert!(estimate.is_none_or(|count| count == listed.len() as u64), "an estimate is wrong");
    }
}

async fn unknown_scopes_are_empty<S: InstanceSource>(
    open: &impl Fn() -> S,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
) {
    let known = expected.keys().next().expect("an instance");
    let other = expected.keys().next_back().expect("an instance");
    let (study, series) = (known.study_instance_uid(), known.series_instance_uid());
    // Neighbours of known UIDs: one a comparison of beginnings would find, one that begins with a known one.
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
            let page = page.expect("a scope that holds nothing is no error");
            assert!(
                page.instances.is_empty() && page.failures.is_empty(),
                "something lies under an unknown {scope}"
            );
            assert!(page.next.is_none(), "an unknown {scope} goes on");
        }
    }
}

async fn contents_are_whole(
    source: &impl InstanceSource,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
    all: &[Instance],
) {
    for instance in all {
        // As it comes to another process; what it carries besides, as it was listed.
        let (listed, instance) = (instance, round_trip(instance));
        let name = instance.identifier();
        let whole = &expected[name];
        let unread = source.open(&instance).await.expect("a content");
        drop(unread);
        for instance in [listed, &instance, &instance] {
            let content = source.open(instance).await.expect("a content");
            let length = content.length();
            assert!(length.is_none_or(|length| length == whole.len() as u64), "{name} states a wrong length");
            assert!(read(content).await == *whole, "the bytes of {name} are others");
        }
        assert!(
            instance.size().is_none_or(|size| size == whole.len() as u64),
            "{name} is listed with a wrong size"
        );
    }
    let opened =
        all.iter().map(|instance| async { read(source.open(instance).await.expect("a content")).await });
    for (bytes, instance) in futures::future::join_all(opened).await.iter().zip(all) {
        assert!(*bytes == expected[instance.identifier()], "contents that are open at once are mixed up");
    }
}

async fn what_is_unknown_is_not_found(
    source: &impl InstanceSource,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
) {
    let unknown = unknown_to(expected, |uid| format!("{uid}1"));
    let unknown = Instance::new(InstanceIdentifier::new(unknown.clone(), unknown.clone(), unknown));
    let error = source.open(&unknown).await.expect_err("an instance that is not there is opened");
    assert_eq!(
        error.kind(),
        ErrorKind::NotFound,
        "an instance that is not there is another error than NotFound"
    );
}

/// A UID that occurs nowhere, made of the first instance's study.
fn unknown_to(expected: &BTreeMap<InstanceIdentifier, Bytes>, mut change: impl FnMut(&str) -> String) -> Uid {
    let known: BTreeSet<_> = expected
        .keys()
        .flat_map(|of| [of.study_instance_uid(), of.series_instance_uid(), of.sop_instance_uid()])
        .collect();
    let mut text = expected.keys().next().expect("an instance").study_instance_uid().as_str().to_owned();
    loop {
        text = change(&text);
        let uid = Uid::from_padded(text.trim_end_matches('.')).expect("a UID");
        if !known.contains(&uid) {
            return uid;
        }
    }
}

/// Lists a scope, each page from a source of its own and after a cursor that was stored.
async fn list<S: InstanceSource>(open: &impl Fn() -> S, scope: Scope<'_>, limit: usize) -> Vec<Instance> {
    let mut listed = Vec::new();
    let mut after: Option<Cursor> = None;
    loop {
        let Page { instances, failures, next, .. } =
            open().list(ListRequest::new(scope, after.as_ref(), limit)).await.expect("a page");
        assert!(failures.is_empty(), "an instance cannot be listed: {failures:?}");
        assert!(instances.len() <= limit, "a page holds more than it may");
        assert!(listed.len() < LARGE, "the listing does not end");
        listed.extend(instances);
        match next {
            Some(next) => {
                assert_ne!(after.as_ref(), Some(&next), "the listing stands still");
                after = Some(round_trip(&next));
            }
            None => return listed,
        }
    }
}

async fn read(content: Content) -> Bytes {
    let chunks: Vec<Bytes> = content.into_stream().try_collect().await.expect("the bytes");
    chunks.concat().into()
}

fn round_trip<T: Serialize + DeserializeOwned>(value: &T) -> T {
    serde_json::from_str(&serde_json::to_string(value).expect("JSON")).expect("the same value")
}
