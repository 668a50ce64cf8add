//! A server that is busy, fails, redirects or does not respond.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dicom_export::sink::PutResult;
use dicom_export::{BlobSink, Content, ErrorKind, Result, RetryPolicy, UploadContext};

use futures::{StreamExt, stream};

use crate::responder::{Reply, Request, Responder};
use crate::{MIB, SECRET, all_of, bytes, faulty, instance, log, upload};

/// The blocks that were received by id, with their number of requests.
type Blocks = BTreeMap<String, (usize, bytes::Bytes)>;

/// Keeps blocks. `fault` receives the number of each request and may return a response for it.
async fn block_server(
    fault: impl Fn(usize, &Request) -> Option<Reply> + Send + Sync + 'static,
) -> (Responder, Arc<Mutex<Blocks>>) {
    let blocks = Arc::new(Mutex::new(Blocks::new()));
    let (kept, count) = (Arc::clone(&blocks), Mutex::new(0));
    let server = Responder::start(move |request| {
        let number = {
            let mut count = count.lock().unwrap();
            *count += 1;
            *count
        };
        if let Some(id) = request.query.get("blockid") {
            let mut kept = kept.lock().unwrap();
            let (times, bytes) = kept.entry(id.clone()).or_default();
            (*times, *bytes) = (*times + 1, request.body.clone());
        }
        fault(number, request).unwrap_or(Reply::status(201).header("etag", "\"0x1\""))
    });
    (server.await, blocks)
}

/// Puts a content of this length.
async fn put(server: &Responder, length: usize) -> Result<PutResult> {
    faulty(&server.url()).put(&instance(), Content::from_bytes(bytes(length)), &upload(32 * MIB)).await
}

/// The block ids in a Put Block List.
fn listed(request: &Request) -> Vec<String> {
    let list = String::from_utf8(request.body.to_vec()).unwrap();
    let ids = list.split("<Latest>").skip(1).map(|id| id.split('<').next().unwrap().to_owned());
    ids.collect()
}

#[tokio::test]
async fn retry_after_is_obeyed_and_the_block_is_sent_again() {
    let busy =
        |number, _: &Request| (number == 2).then(|| Reply::code(503, "ServerBusy").header("retry-after", 1));
    let (server, blocks) = block_server(busy).await;
    let content = bytes(30 * MIB);
    let began = Instant::now();
    let stored = put(&server, content.len()).await;
    assert_eq!(stored.unwrap().etag.as_deref(), Some("\"0x1\""));
    assert!(began.elapsed() >= Duration::from_secs(1));
    let blocks = blocks.lock().unwrap();
    let times: usize = blocks.values().map(|(times, _)| times).sum();
    assert_eq!((blocks.len(), times), (4, 5));
    let requests = server.requests();
    let ids = listed(requests.last().unwrap());
    let whole: Vec<_> = ids.iter().flat_map(|id| blocks[id].1.to_vec()).collect();
    assert!(whole == content);
}

#[tokio::test]
async fn retry_after_beyond_the_budget_waits_for_the_rest_of_it() {
    let date = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let date = date.format("%a, %d %b %Y %T GMT").to_string();
    let (server, _) = block_server(move |_, _| Some(Reply::status(429).header("retry-after", &date))).await;
    let error = put(&server, 3).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled);
    assert!(error.retry_after().unwrap() > Duration::from_secs(3500));
    // The wait is limited to the budget, and the request is sent once more.
    assert_eq!(server.requests().len(), 2);
}

/// A wait beyond what a clock can represent used to cause a panic.
#[tokio::test]
async fn excessive_retry_after_is_clamped() {
    let year = "Fri, 31 Dec 9999 23:59:59 GMT";
    for wait in ["18446744073709551615", "99999999999999999999999999", "9223372036854775807", year] {
        let (server, _) =
            block_server(move |_, _| Some(Reply::status(503).header("retry-after", wait))).await;
        let error = put(&server, 3).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled);
        let wait = error.retry_after().unwrap();
        assert!(wait >= Duration::from_secs(3600) && wait <= Duration::from_secs(86_400), "{wait:?}");
    }
    let (server, _) = block_server(|_, _| Some(Reply::status(503).header("retry-after", "-1"))).await;
    let once = UploadContext::new(MIB as u64, RetryPolicy::none(), 1);
    let error =
        faulty(&server.url()).put(&instance(), Content::from_bytes(bytes(3)), &once).await.unwrap_err();
    assert_eq!(error.retry_after(), None);
}

#[tokio::test]
async fn broken_connection_repeats_one_block() {
    let (server, blocks) = block_server(|number, _| (number == 3).then_some(Reply::Disconnect)).await;
    put(&server, 20 * MIB).await.unwrap();
    let mut times: Vec<_> = blocks.lock().unwrap().values().map(|(times, _)| *times).collect();
    times.sort_unstable();
    assert_eq!(times, [1, 1, 2]);
}

/// The request whose response was lost may have committed the blocks.
#[tokio::test]
async fn block_list_is_repeated_after_a_lost_response() {
    let (server, _) = block_server(|number, _| (number == 3).then_some(Reply::Disconnect)).await;
    put(&server, 9 * MIB).await.unwrap();
    let requests = server.requests();
    let lists: Vec<_> = requests.iter().filter(|request| request.has_comp("blocklist")).collect();
    assert_eq!(lists.len(), 2);
    assert_eq!(lists[0].body, lists[1].body);
    assert_eq!(lists[0].header("x-ms-blob-content-type"), Some("application/dicom"));
}

#[tokio::test]
async fn lost_blocks_end_the_retries_of_the_block_list() {
    let lost =
        |_, request: &Request| request.has_comp("blocklist").then(|| Reply::code(400, "InvalidBlockList"));
    let (server, _) = block_server(lost).await;
    assert_eq!(put(&server, 9 * MIB).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let lists = server.requests().iter().filter(|request| request.has_comp("blocklist")).count();
    assert_eq!(lists, 1, "a repeated list does not restore blocks");
}

#[tokio::test]
async fn block_ids_are_unique_to_an_attempt() {
    let (server, blocks) = block_server(|_, _| None).await;
    let (sink, path) = (faulty(&server.url()), instance());
    for _ in 0..2 {
        sink.put(&path, Content::from_bytes(bytes(9 * MIB)), &upload(32 * MIB)).await.unwrap();
    }
    let blocks = blocks.lock().unwrap();
    assert_eq!(blocks.len(), 4);
    // Azure requires base64, and one length for all blocks of a blob.
    assert!(blocks.keys().all(|id| id.len() == 24 && id.bytes().all(|b| b.is_ascii_alphanumeric())));
}

#[tokio::test]
async fn error_kind_follows_from_the_status() {
    use ErrorKind::*;
    let cases = [
        (400, "InvalidHeaderValue", Invalid),
        (401, "NoAuthenticationInformation", Unauthorized),
        (403, "AuthenticationFailed", Unauthorized),
        (404, "ContainerNotFound", NotFound),
        (408, "", Unavailable),
        (409, "ContainerBeingDeleted", Conflict),
        (412, "LeaseIdMissing", Conflict),
        (413, "RequestBodyTooLarge", Invalid),
        (429, "", Throttled),
        (500, "InternalError", Unavailable),
        (501, "", Unsupported),
        (502, "", Unavailable),
        (503, "ServerBusy", Throttled),
        (504, "", Unavailable),
    ];
    for (status, code, kind) in cases {
        let server = Responder::start(move |_| Reply::code(status, code)).await;
        let sink = faulty(&server.url());
        let once = UploadContext::new(MIB as u64, RetryPolicy::none(), 1);
        let put = sink.put(&instance(), Content::from_bytes(bytes(3)), &once).await.unwrap_err();
        for error in [sink.prepare(&log()).await.unwrap_err(), put] {
            assert_eq!(error.kind(), kind, "{status} {code}");
            assert!(
                error.message().contains(&status.to_string()) && error.message().contains(code),
                "{error}"
            );
            assert!(!all_of(&error).contains(SECRET));
        }
    }
}

/// A redirect could send the credential to another host.
#[tokio::test]
async fn guarantee_7_redirects_are_not_followed() {
    let elsewhere = Responder::start(|_| Reply::status(201)).await;
    for status in [301, 302, 307, 308] {
        let target = format!("{}/devstoreaccount1/container", elsewhere.url());
        let server = Responder::start(move |_| Reply::status(status).header("location", &target)).await;
        let error = faulty(&server.url()).prepare(&log()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.message().contains("responded with a redirect"));
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn missing_response_is_unavailable_and_the_error_has_no_secret() {
    let silent = Responder::start(|_| Reply::Disconnect).await;
    let gone = Responder::start(|_| Reply::Disconnect).await.url();
    for url in [silent.url(), gone] {
        let error = faulty(&url).prepare(&log()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let all = all_of(&error);
        assert!(!all.contains(SECRET) && !all.contains("sig="), "{all}");
    }
    assert!(!silent.requests().is_empty());
}

/// The sink buffers what it has read and the server has not received, including the buffers of the network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarantee_5_put_buffers_at_most_the_buffer_limit() {
    const CHUNK: usize = 256 << 10;
    for (limit, length) in [(32, Some(64)), (3, Some(24)), (1, Some(5)), (8, None), (2, None)] {
        let arrived = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&arrived);
        let server = Responder::start(move |request| {
            if request.query.contains_key("blockid") {
                counted.fetch_add(request.body.len(), Ordering::SeqCst);
            }
            Reply::status(201)
        });
        let server = server.await;
        let most = Arc::new(AtomicUsize::new(0));
        let (held, total) = (Arc::clone(&most), length.unwrap_or(24) * MIB);
        let chunks = stream::iter(1..=total / CHUNK).map(move |number| {
            let here = number * CHUNK - arrived.load(Ordering::SeqCst);
            held.fetch_max(here, Ordering::SeqCst);
            Ok(bytes(CHUNK))
        });
        let content = Content::from_stream(length.map(|length| (length * MIB) as u64), chunks);
        let stored = faulty(&server.url()).put(&instance(), content, &upload(limit * MIB)).await.unwrap();
        assert_eq!(stored.size, total as u64);
        let most = most.load(Ordering::SeqCst);
        assert!(most <= limit * MIB + CHUNK, "{most} of {limit} MiB");
        assert!(most >= limit * MIB / 2, "{most} of {limit} MiB: the limit is not used");
    }
}
