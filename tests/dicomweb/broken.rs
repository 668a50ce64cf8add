//! Servers that fail to list one object, and servers that fail to list any.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use dicom_export::source::{ListRequest, Scope};
use dicom_export::testing::fixtures;
use dicom_export::{ErrorKind, InstanceSource};
use futures::future::join_all;
use serde_json::json;

use crate::listing::everything;
use crate::server::{Framing, Quirks, Reply};
use crate::{archive, server, source};

/// Responses for one list that do not concern the server as a whole.
fn failures() -> Vec<Reply> {
    vec![
        Reply::new(500),
        Reply::new(400),
        Reply::new(409),
        Reply::new(451),
        Reply::new(501),
        Reply::new(424),
        Reply::new(302).header("location", ""),
        Reply::json(&[]).body("[{]"),
        Reply::json(&[]).framing(Framing::CutAt(1)),
    ]
}

fn instances_path(study: u32, series: u32) -> String {
    let (study, series) = (fixtures::study_uid(study), fixtures::series_uid(study, series));
    format!("studies/{study}/series/{series}/instances")
}

#[tokio::test]
async fn a_series_that_cannot_be_listed_is_a_failure() {
    let all = failures().into_iter().map(|reply| async move {
        let (archive, path, status) = (archive(), instances_path(2, 1), reply.status);
        let server =
            server(&archive, Quirks::default(), move |request| (request.path == path).then(|| reply.clone()))
                .await;
        let source = source(&server);
        // Instances that were listed before are returned without waiting for the series.
        let first = source.list(ListRequest::new(Scope::Everything, None, 100)).await.unwrap();
        assert_eq!((first.instances.len(), first.failures.len()), (8, 0), "{status}");
        assert!(first.next.is_some(), "{status}");
        let all = everything(&source, 100).await.unwrap();
        assert_eq!(all.instances.len(), 20, "{status}");
        let failures: Vec<_> = all.failures.iter().map(|one| (&*one.identifier, &*one.error)).collect();
        let series = fixtures::series_identifier(2, 1).to_string();
        assert_eq!(failures, [(&*series, "the server fails to list instances")], "{status}");
    });
    join_all(all).await;
}

#[tokio::test]
async fn a_study_whose_series_cannot_be_listed_is_a_failure() {
    for status in [500, 404] {
        let archive = archive();
        let path = format!("studies/{}/series", fixtures::study_uid(2));
        let server = server(&archive, Quirks { counts: Some(0), ..Quirks::default() }, move |request| {
            (request.path == path).then(|| Reply::new(status))
        })
        .await;
        let all = everything(&source(&server), 100).await.unwrap();
        assert_eq!(all.instances.len(), 16, "{status}");
        let failures: Vec<_> = all.failures.iter().map(|one| (&*one.identifier, &*one.error)).collect();
        let study = fixtures::study_identifier(2).to_string();
        assert_eq!(failures, [(&*study, "the server fails to list series")], "{status}");
    }
}

/// The page that contains the broken row is divided until the row is found.
#[tokio::test]
async fn a_row_that_cannot_be_listed_hides_no_others() {
    for counts in [None, Some(0)] {
        let archive = archive();
        let path = instances_path(2, 1);
        let server = server(&archive, Quirks { counts, ..Quirks::default() }, move |request| {
            let number = |name: &str| request.query[name].parse::<usize>().unwrap();
            let is_broken = || (number("offset")..number("offset") + number("limit")).contains(&2);
            (request.path == path && is_broken()).then(|| Reply::new(500))
        })
        .await;
        let all = everything(&source(&server), 100).await.unwrap();
        assert_eq!(all.instances.len(), 23);
        let failures: Vec<_> = all.failures.iter().map(|one| (&*one.identifier, &*one.error)).collect();
        let series = fixtures::series_identifier(2, 1).to_string();
        assert_eq!(failures, [(&*series, "the server fails to list one instance")]);
    }
}

/// A failure for all studies or series is a failure of the server, and skips none of them.
#[tokio::test]
async fn a_server_that_lists_no_series_or_no_instances_is_an_error() {
    for (list, named) in [
        ("/series", fixtures::study_uid(1).to_string()),
        ("/instances", fixtures::series_identifier(1, 1).to_string()),
    ] {
        for (reply, kind) in [
            (Reply::new(500), ErrorKind::Unavailable),
            (Reply::new(424), ErrorKind::Unavailable),
            (Reply::new(501), ErrorKind::Unsupported),
            (Reply::new(400), ErrorKind::Invalid),
            (Reply::json(&[]).body("[{]"), ErrorKind::Unsupported),
        ] {
            let archive = archive();
            let server = server(&archive, Quirks::default(), move |request| {
                request.path.ends_with(list).then(|| reply.clone())
            })
            .await;
            let error = everything(&source(&server), 100).await.unwrap_err();
            assert_eq!(error.kind(), kind, "{list}: {error}");
            assert!(error.message().contains(&named), "{list}: {error}");
        }
    }
}

/// If all lists fail after some have succeeded, the server has failed, and not single studies or series.
#[tokio::test]
async fn a_server_that_fails_after_it_worked_is_an_error() {
    let archive = archive();
    let requests = Arc::new(AtomicUsize::new(0));
    let server = server(&archive, Quirks::default(), move |request| {
        let is_list = request.path.ends_with("/instances");
        (is_list && requests.fetch_add(1, SeqCst) >= 8).then(|| Reply::new(500))
    })
    .await;
    let source = source(&server);
    let first = source.list(ListRequest::new(Scope::Everything, None, 100)).await.unwrap();
    assert!(!first.instances.is_empty() && first.failures.is_empty());
    let request = ListRequest::new(Scope::Everything, first.next.as_ref(), 100);
    assert_eq!(source.list(request).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// Lists in nearly valid JSON.
#[tokio::test]
async fn nearly_valid_json_is_read() {
    let archive = archive();
    let reference = server(&archive, Quirks::default(), |_| None).await;
    let expected = everything(&source(&reference), 100).await.unwrap();
    let lenient = server(&archive, Quirks { counts: Some(0), ..Quirks::default() }, {
        let archive = Arc::clone(&archive);
        move |request| {
            let reply =
                crate::server::dicomweb(&archive, Quirks { counts: Some(0), ..Quirks::default() }, request);
            if reply.status != 200 || request.path.contains("/instances/") {
                return None;
            }
            let mut rows: Vec<serde_json::Value> = serde_json::from_slice(&reply.body).unwrap();
            for row in &mut rows {
                for (tag, attribute) in row.as_object_mut().unwrap() {
                    let value = attribute["Value"][0].clone();
                    match &**tag {
                        "0020000D" => *attribute = json!({ "Value": value }),
                        "0020000E" => *attribute = json!([value]),
                        "00201208" | "00201209" => *attribute = json!({ "Value": ["many"] }),
                        "00100010" => *attribute = json!({ "Value": "@" }),
                        _ => {}
                    }
                }
            }
            if !rows.is_empty() {
                rows.push(json!(null));
            }
            let text = serde_json::to_string(&rows).unwrap();
            let text = text.replace("\"@\"", "\"a\u{1}\n\tb\",\"Value\":[{}]").into_bytes();
            let latin1 = text.iter().map(|byte| if *byte == 1 { 0xE9 } else { *byte });
            let body: Vec<u8> = b"\xEF\xBB\xBF".iter().copied().chain(latin1).collect();
            Some(Reply::json(&[]).body(body))
        }
    })
    .await;
    let all = everything(&source(&lenient), 100).await.unwrap();
    assert_eq!(all.instances, expected.instances);
    assert!(all.failures.is_empty() && all.warnings.is_empty(), "{:?} {:?}", all.failures, all.warnings);
}

/// A large response is read row by row.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_large_response_takes_little_memory() {
    let archive = archive();
    let mut body = b"[{}".to_vec();
    while body.len() < 60 << 20 {
        body.extend_from_slice(b",{}");
    }
    body.push(b']');
    let body = bytes::Bytes::from(body);
    let server = server(&archive, Quirks::default(), move |request| {
        let is_first = request.path == "studies" && request.query["offset"] == "0";
        is_first.then(|| Reply::json(&[]).body(body.clone()))
    })
    .await;
    let page = source(&server).list(ListRequest::new(Scope::Everything, None, 2000)).await.unwrap();
    assert_eq!(page.failures.len(), 1000);
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(peak < 500 << 10, "{peak} KiB");
}
