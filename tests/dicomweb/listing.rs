//! Listing from unusual and faulty servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use dicom_export::source::{Cursor, ListRequest, Page, Scope};
use dicom_export::testing::{fixtures, source_conformance};
use dicom_export::{DicomIdentifier, DicomWebSource, ErrorKind, ExportSource, InstanceSource, Result};
use serde_json::json;

use crate::server::{Framing, Quirks, Reply, Server, dicomweb};
use crate::{archive, server, source};

pub(crate) async fn everything(source: &DicomWebSource, limit: usize) -> Result<Page> {
    let mut all = Page::default();
    let mut after: Option<Cursor> = None;
    loop {
        let page = source.list(ListRequest::new(Scope::Everything, after.as_ref(), limit)).await?;
        all.instances.extend(page.instances);
        all.failures.extend(page.failures);
        all.warnings.extend(page.warnings);
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(all),
        }
    }
}

#[tokio::test]
async fn unusual_servers_pass_the_conformance_suite() {
    let archive = archive();
    let plain = Quirks::default();
    for quirks in [
        plain,
        Quirks { counts: Some(0), ..plain },
        Quirks { strict: true, chunks: Some(3), ..plain },
        Quirks { cap: Some(2), ..plain },
        Quirks { cap: Some(2), counts: Some(0), ..plain },
        Quirks { doubles: true, ..plain },
        Quirks { ignores_limit: true, ..plain },
        Quirks { ignores_limit: true, ignores_offset: true, ignores_match: true, ..plain },
    ] {
        let server = server(&archive, quirks, |_| None).await;
        let one = Arc::new(source(&server));
        source_conformance(|| Arc::clone(&one), &archive).await;
    }
}

#[tokio::test]
async fn a_cursor_is_valid_in_another_process() {
    let archive = archive();
    let server = server(&archive, Quirks { counts: Some(0), ..Quirks::default() }, |_| None).await;
    source_conformance(|| source(&server), &archive).await;
}

#[tokio::test]
async fn an_estimate_is_the_stated_count() {
    let archive = archive();
    let server = server(&archive, Quirks { counts: Some(0), ..Quirks::default() }, |_| None).await;
    let source = source(&server);
    assert_eq!(source.estimate(&ExportSource::Everything).await.unwrap(), Some(24));
    let some = ["1.2/3".parse().unwrap(), fixtures::study_identifier(1), fixtures::series_identifier(2, 1)];
    let known = ExportSource::identifiers(some[1..].to_vec()).unwrap();
    assert_eq!(source.estimate(&known).await.unwrap(), Some(12));
    let some = ExportSource::identifiers(some).unwrap();
    assert_eq!(source.estimate(&some).await.unwrap(), None, "one of them is unknown");

    // A concurrent listing uses the same list of studies.
    let before = server.requests().iter().filter(|request| request.path == "studies").count();
    everything(&source, 10).await.unwrap();
    assert_eq!(server.requests().iter().filter(|request| request.path == "studies").count(), before);
}

/// Without the stated counts, each small study would take four sequential requests.
#[tokio::test]
async fn stated_counts_save_requests() {
    let archive = archive();
    let server = server(&archive, Quirks { counts: Some(0), ..Quirks::default() }, |_| None).await;
    let all = everything(&source(&server), 100).await.unwrap();
    assert_eq!((all.instances.len(), all.warnings.len()), (24, 0));
    let of = |end: &str| server.requests().iter().filter(|request| request.path.ends_with(end)).count();
    // The number of studies is not stated: their list is read past its end. The other lists take one request each.
    assert_eq!((of("studies"), of("series"), of("instances")), (3, 3, 6));
}

#[tokio::test]
async fn an_incomplete_list_is_a_failure_or_a_warning() {
    let archive = archive();
    let plain = Quirks::default();
    // A page that is repeated is followed by one with a higher limit.
    let uncapped = server(&archive, Quirks { ignores_offset: true, ..plain }, |_| None).await;
    let source2 = DicomWebSource::builder(uncapped.root()).page_size(2).build().unwrap();
    let all = everything(&source2, 100).await.unwrap();
    assert_eq!(all.instances.len(), 24);

    // A list that is capped, with a warning (PS3.18 10.6.3.1) and without.
    let repeating = server(&archive, Quirks { ignores_offset: true, cap: Some(2), ..plain }, |_| None).await;
    let warning = server(&archive, plain, |request| {
        let rows = [json!({ "0020000D": { "vr": "UI", "Value": ["1.2"] } })];
        let rows = if request.query["offset"] == "0" { &rows[..] } else { &[] };
        let warning = "299 dicom: There are 7 additional results that can be requested";
        (request.path == "studies").then(|| Reply::json(rows).header("warning", warning))
    });
    for capped in [repeating, warning.await] {
        let source = DicomWebSource::builder(capped.root()).page_size(2).build().unwrap();
        let all = everything(&source, 100).await.unwrap();
        let message = "studies are missing: the server caps their list";
        assert!(all.failures.iter().any(|failure| failure.error == message), "{:?}", all.failures);
        assert!(all.warnings.iter().any(|warning| warning.code == "listCapped"), "{:?}", all.warnings);
    }

    // 2 or 3 rows for a limit of 5, regardless of the offset, may be the whole list.
    let server1 = server(&archive, Quirks { ignores_offset: true, ..plain }, |_| None).await;
    let all = everything(&source(&server1), 100).await.unwrap();
    assert_eq!(all.instances.len(), 24);
    assert!(all.warnings.iter().all(|warning| warning.code == "pagingIgnored"), "{:?}", all.warnings);
    assert_eq!(all.warnings.iter().map(|warning| warning.count).sum::<u64>(), 1 + 3 + 6);

    let server2 = server(&archive, Quirks { counts: Some(1), ..plain }, |_| None).await;
    let all = everything(&source(&server2), 100).await.unwrap();
    assert_eq!((all.instances.len(), all.warnings.len()), (24, 1));
    assert_eq!((&*all.warnings[0].code, all.warnings[0].count), ("fewerThanStated", 6));
    let mut failed: Vec<_> = all.failures.iter().map(|failure| &*failure.identifier).collect();
    failed.sort_unstable();
    let series = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2)];
    let mut expected = series.map(|(study, series)| fixtures::series_identifier(study, series).to_string());
    expected.sort_unstable();
    assert_eq!(failed, expected);
}

#[tokio::test]
async fn rows_without_usable_uids_are_failures() {
    let archive = archive();
    let study = fixtures::study_uid(1);
    let series = format!("studies/{study}/series");
    let instances = format!("studies/{study}/series/{}/instances", fixtures::series_uid(1, 1));
    let uid = |tag: &str, uid: &str| json!({ tag: { "vr": "UI", "Value": [uid] } });
    let server = server(&archive, Quirks::default(), move |request| {
        let rows = match &request.path {
            path if path == "studies" => {
                vec![uid("0020000D", "1.2/../x"), uid("0020000D", study.as_str()), json!({})]
            }
            path if *path == series => {
                vec![uid("0020000E", "Doe^Jane"), uid("0020000E", fixtures::series_uid(1, 1).as_str())]
            }
            path if *path == instances => vec![
                uid("00080018", "1.2.3\0"),
                uid("00080018", ""),
                json!({ "00080018": { "vr": "UI" } }),
                uid("00080018", "1..x"),
                // A row of another study: the server ignores the path.
                json!({ "0020000D": { "Value": ["9"] }, "00080018": { "Value": ["1.2.4"] } }),
            ],
            _ => return None,
        };
        Some(Reply::json(if request.query["offset"] == "0" { &rows } else { &[] }))
    })
    .await;
    for limit in [1, 2, 100] {
        let all = everything(&source(&server), limit).await.unwrap();
        assert_eq!(all.instances.len(), 1, "limit {limit}");
        let (study, series) =
            (fixtures::study_uid(1).to_string(), fixtures::series_identifier(1, 1).to_string());
        let mut identifiers: Vec<_> = all.failures.iter().map(|failure| &*failure.identifier).collect();
        identifiers.sort_unstable();
        assert_eq!(identifiers, ["", "", &study, &series, &series, &series], "limit {limit}");
        assert!(!format!("{:?}", all.failures).contains("Doe"));
    }
}

/// A listing continues where it was interrupted, regardless of the cause.
#[tokio::test]
async fn an_interrupted_list_continues() {
    let archive = archive();
    let broken = [
        Reply::new(503).header("retry-after", "0"),
        Reply::json(&[]).framing(Framing::CutAt(1)),
        Reply::json(&[]).framing(Framing::ChunkedCutAt(1)),
        Reply::json(&[json!({})]).body("[{\"0020000D\": {").framing(Framing::Close),
    ];
    for reply in broken {
        let (requests, cut) = (AtomicUsize::new(0), reply.clone());
        let server = server(&archive, Quirks::default(), move |_| {
            (requests.fetch_add(1, SeqCst) % 4 == 1).then(|| cut.clone())
        })
        .await;
        let source = DicomWebSource::builder(server.root()).page_size(2).build().unwrap();
        let throttled = reply.status == 503;
        let (mut all, mut after, mut errors) = (Vec::new(), None, 0);
        loop {
            match source.list(ListRequest::new(Scope::Everything, after.as_ref(), 7)).await {
                Ok(page) => {
                    all.extend(page.instances);
                    match page.next {
                        Some(next) => after = Some(next),
                        None => break,
                    }
                }
                Err(error) => {
                    errors += 1;
                    assert!(errors < 200, "the listing makes no progress: {error}");
                    assert!(error.kind().is_transient(), "{error}");
                    assert_eq!(error.retry_after().is_some_and(|wait| wait.is_zero()), throttled);
                }
            }
        }
        assert!(all.iter().map(|instance| instance.identifier()).eq(archive.keys()));
        // Other failures are retried by the source while the server works for others.
        assert_eq!(errors > 1, throttled);
    }
}

#[tokio::test]
async fn a_response_that_is_not_a_list_is_an_error() {
    let archive = archive();
    let replies = [
        (Reply::html(), ErrorKind::Unsupported),
        (Reply::new(200).header("content-type", "application/json").body("{}"), ErrorKind::Unsupported),
        (
            Reply::new(200).header("content-type", "application/dicom+json").body("[[1]]"),
            ErrorKind::Unsupported,
        ),
        (Reply::new(404), ErrorKind::NotFound),
        (Reply::new(401), ErrorKind::Unauthorized),
        (Reply::new(403), ErrorKind::Unauthorized),
        (Reply::new(429), ErrorKind::Throttled),
        (Reply::new(500), ErrorKind::Unavailable),
        (Reply::new(501), ErrorKind::Unsupported),
        (Reply::new(302).header("location", "/dicom-web/studies"), ErrorKind::Unavailable),
        (Reply::new(304), ErrorKind::Unavailable),
        (Reply::new(423), ErrorKind::Unavailable),
        (Reply::new(424), ErrorKind::Unavailable),
        (Reply::new(425), ErrorKind::Unavailable),
    ];
    for (reply, kind) in replies {
        let sent = reply.clone();
        let server = server(&archive, Quirks::default(), move |_| Some(sent.clone())).await;
        let error = everything(&source(&server), 10).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{reply:?}");
        let scope = fixtures::study_identifier(1);
        let page = source(&server).list(ListRequest::new(Scope::Identifier(&scope), None, 10)).await;
        assert_eq!(page.unwrap_err().kind(), kind, "{reply:?}");
    }
}

/// A server that lists studies but not their series is not an empty archive.
#[tokio::test]
async fn a_listed_study_without_a_series_list_is_an_error() {
    let archive = archive();
    let server = server(&archive, Quirks::default(), |request| {
        request.path.ends_with("/series").then(|| Reply::new(404))
    })
    .await;
    let error = everything(&source(&server), 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let unknown: DicomIdentifier = "1.2.3".parse().unwrap();
    let page = source(&server).list(ListRequest::new(Scope::Identifier(&unknown), None, 10)).await.unwrap();
    assert_eq!(page, Page::default());
}

/// Instances that are added or deleted during an export do not shift the pages.
#[tokio::test]
async fn an_archive_may_change_between_pages() {
    let full = archive();
    let (now, all) =
        (Arc::new(std::sync::Mutex::new((*full).clone())), full.keys().cloned().collect::<Vec<_>>());
    now.lock().unwrap().remove(&all[7]);
    let served = Arc::clone(&now);
    let server =
        Server::start(move |request| dicomweb(&served.lock().unwrap(), Quirks::default(), request)).await;
    let first = source(&server).list(ListRequest::new(Scope::Everything, None, 6)).await.unwrap();
    assert!(first.instances.iter().map(|instance| instance.identifier()).eq(&all[..6]));
    {
        let mut now = now.lock().unwrap();
        now.remove(&all[2]);
        now.remove(&all[5]);
        now.insert(all[7].clone(), full[&all[7]].clone());
    }
    let request = ListRequest::new(Scope::Everything, first.next.as_ref(), 100);
    let rest = source(&server).list(request).await.unwrap();
    assert!(rest.instances.iter().map(|instance| instance.identifier()).eq(&all[6..]));
}
