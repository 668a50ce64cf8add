//! What the sink makes of the responses of a store.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use dicom_export::{BlobSink, Content, ErrorKind, RetryPolicy, UploadContext};

use crate::responder::{Reply, Request, Responder};
use crate::{MIB, SECRET, TOKEN, all_of, bytes, instance, log, sink_at, upload};

fn refused(status: u16, code: &str) -> Reply {
    let xml = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{SECRET}</Message></Error>");
    Reply::status(status).header("content-type", "application/xml").body(xml)
}

fn stored(request: &Request) -> Reply {
    let reply = Reply::status(200).header("etag", "\"tag\"");
    match request.header("x-amz-checksum-crc64nvme") {
        Some(checksum) => reply.header("x-amz-checksum-crc64nvme", checksum),
        None => reply,
    }
}

/// Accepts uploads. `fault` may return a response for a request.
async fn store(fault: impl Fn(usize, &Request) -> Option<Reply> + Send + Sync + 'static) -> Responder {
    let count = AtomicUsize::new(0);
    Responder::start(move |request| {
        if let Some(reply) = fault(count.fetch_add(1, SeqCst) + 1, request) {
            return reply;
        }
        if request.query.contains_key("uploads") {
            let id = "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>";
            return Reply::status(200).body(id);
        }
        let is_completion =
            request.query.contains_key("uploadId") && !request.query.contains_key("partNumber");
        if is_completion {
            let result =
                "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>";
            return Reply::status(200).body(result);
        }
        stored(request)
    })
    .await
}

#[tokio::test]
async fn body_has_two_checksums_and_the_secrets_stay_here() {
    let server = store(|_, _| None).await;
    sink_at(&server).put(&instance(), Content::from_bytes(bytes(1000)), &upload(MIB)).await.unwrap();
    let request = &server.requests()[0];
    assert!(request.path.starts_with("/bucket/"));
    assert_eq!(request.header("content-length"), Some("1000"));
    assert_eq!(request.header("content-type"), Some("application/dicom"));
    assert_eq!(request.header("x-amz-checksum-crc64nvme").unwrap().len(), 12);
    assert_eq!(request.header("x-amz-content-sha256").unwrap().len(), 64);
    assert_eq!(request.header("x-amz-security-token"), Some(TOKEN));
    assert!(request.header("authorization").unwrap().contains("Credential=key/"));
    assert!(request.headers.values().all(|value| !value.contains(SECRET)));
}

#[tokio::test]
async fn guarantee_1_body_that_the_store_reports_to_have_stored_otherwise_is_sent_again() {
    let wrong = |number, _: &Request| {
        (number <= 2).then(|| {
            Reply::status(200).header("etag", "\"tag\"").header("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")
        })
    };
    let server = store(wrong).await;
    let sink = sink_at(&server);
    sink.put(&instance(), Content::from_bytes(bytes(1000)), &upload(MIB)).await.unwrap();
    assert_eq!(server.requests().len(), 3);

    let server = store(|_, request| Some(refused(400, "BadDigest")).filter(|_| request.body.len() > 1)).await;
    let once = UploadContext::new(MIB as u64, RetryPolicy::none(), 1);
    let error = sink_at(&server).put(&instance(), Content::from_bytes(bytes(9)), &once).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.message(), "checksum mismatch: the request was damaged on the way (400 BadDigest)");
}

/// A proxy or a TLS-inspecting gateway answers with another success status, or with a page.
#[tokio::test]
async fn guarantee_3_gateway_that_answers_for_the_store_exports_nothing() {
    let page =
        || Reply::status(200).header("content-type", "text/html").header("etag", "\"tag\"").body("<html>");
    let replies = [
        Reply::status(202).header("etag", "\"tag\""),
        Reply::status(204).header("etag", "\"tag\""),
        Reply::status(206).header("etag", "\"tag\""),
        Reply::status(200),
        page(),
        Reply::status(403).header("content-type", "text/html").body("<html>"),
    ];
    for reply in replies {
        let answer = reply.clone();
        let server = Responder::start(move |_| answer.clone()).await;
        let once = UploadContext::new(MIB as u64, RetryPolicy::none(), 1);
        let error =
            sink_at(&server).put(&instance(), Content::from_bytes(bytes(9)), &once).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{reply:?}: {error}");
    }
}

#[tokio::test]
async fn error_kind_follows_from_the_status_and_the_code() {
    use ErrorKind::*;
    let cases = [
        (301, "PermanentRedirect", Invalid),
        (307, "TemporaryRedirect", Unavailable),
        (400, "InvalidArgument", Invalid),
        (400, "RequestTimeout", Unavailable),
        (400, "ExpiredToken", Unauthorized),
        (400, "AuthorizationHeaderMalformed", Unauthorized),
        (400, "XAmzContentSHA256Mismatch", Unavailable),
        (403, "AccessDenied", Unauthorized),
        (403, "InvalidAccessKeyId", Unauthorized),
        (404, "NoSuchBucket", NotFound),
        (405, "MethodNotAllowed", Invalid),
        (408, "", Unavailable),
        (409, "OperationAborted", Unavailable),
        (429, "", Throttled),
        (500, "InternalError", Unavailable),
        (500, "SlowDown", Throttled),
        (501, "NotImplemented", Unsupported),
        (502, "", Unavailable),
        (503, "SlowDown", Throttled),
        (503, "ServiceUnavailable", Throttled),
        (504, "", Unavailable),
    ];
    for (status, code, kind) in cases {
        let server = Responder::start(move |_| refused(status, code)).await;
        let once = UploadContext::new(MIB as u64, RetryPolicy::none(), 1);
        let put = sink_at(&server).put(&instance(), Content::from_bytes(bytes(9)), &once).await.unwrap_err();
        let prepared = sink_at(&server).prepare(&log()).await.unwrap_err();
        for error in [put, prepared] {
            assert_eq!(error.kind(), kind, "{status} {code}: {error}");
            // The response to a HEAD request has no code.
            let expected = [format!("({status})"), format!("({status} {code})")];
            assert!(expected.iter().any(|end| error.message().ends_with(end)), "{error}");
            let all = all_of(&error);
            assert!(!all.contains(SECRET) && !all.contains(TOKEN), "{all}");
        }
    }
}

/// The response of a store may quote the credential.
#[tokio::test]
async fn guarantee_6_responses_are_not_quoted() {
    let server = Responder::start(|_| refused(403, SECRET)).await;
    let error = sink_at(&server).prepare(&log()).await.unwrap_err();
    assert_eq!(error.message(), "the store refused the credential or the permission (403)");
    let all = all_of(&error);
    assert!(!all.contains(SECRET) && !all.contains(TOKEN), "{all}");
    let debug = format!("{:?}", sink_at(&server));
    assert!(!debug.contains(SECRET) && !debug.contains(TOKEN), "{debug}");
}

/// A redirect could send the credential to another host.
#[tokio::test]
async fn guarantee_7_redirects_are_not_followed() {
    let elsewhere = Responder::start(stored).await;
    for status in [301, 302, 303, 307, 308] {
        let target = format!("{}/bucket/x", elsewhere.url());
        let server = Responder::start(move |_| Reply::status(status).header("location", &target)).await;
        let error = sink_at(&server).prepare(&log()).await.unwrap_err();
        assert!(error.message().contains("redirect"), "{error}");
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn retry_after_is_obeyed_and_the_part_is_sent_again() {
    let refusals = AtomicUsize::new(0);
    let slow_down = move |_, request: &Request| {
        let is_second_part = request.query.get("partNumber").is_some_and(|part| part == "2");
        (is_second_part && refusals.fetch_add(1, SeqCst) == 0)
            .then(|| refused(503, "SlowDown").header("retry-after", 1))
    };
    let server = store(slow_down).await;
    let began = Instant::now();
    let content = Content::from_bytes(bytes(12 * MIB));
    let result = sink_at(&server).put(&instance(), content, &upload(32 * MIB)).await.unwrap();
    assert_eq!((result.size, result.etag.as_deref()), (12 << 20, Some("\"whole\"")));
    assert!(began.elapsed() >= Duration::from_secs(1));
    let mut parts = BTreeMap::new();
    for request in server.requests() {
        if let Some(part) = request.query.get("partNumber") {
            *parts.entry(part.clone()).or_insert(0) += 1;
        }
    }
    assert_eq!(parts, BTreeMap::from([("1".to_owned(), 1), ("2".to_owned(), 2), ("3".to_owned(), 1)]));
}

/// Parts wait for their turn among all requests to the destination.
#[tokio::test]
async fn parts_are_limited_like_other_requests() {
    let server = store(|_, _| None).await;
    let retry = RetryPolicy::none();
    let context = UploadContext::new(64 * MIB as u64, retry, 1);
    let content = Content::from_bytes(bytes(40 * MIB));
    sink_at(&server).put(&instance(), content, &context).await.unwrap();
    // One connection for one request at a time.
    assert_eq!(server.connections(), 1);
    assert_eq!(server.requests().len(), 10);
}

/// An upload that another run aborted, or whose completion was not confirmed, is started again by the engine.
#[tokio::test]
async fn missing_upload_ends_the_retries_of_a_part() {
    let missing =
        |_, request: &Request| request.query.contains_key("partNumber").then(|| refused(404, "NoSuchUpload"));
    let server = store(missing).await;
    let content = Content::from_bytes(bytes(6 * MIB));
    let error = sink_at(&server).put(&instance(), content, &upload(32 * MIB)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let parts = server.requests().iter().filter(|request| request.query.contains_key("partNumber")).count();
    assert!(parts <= 2, "{parts}");
}

/// The uploads of an operation are aborted when it is prepared again, and those of others are not.
#[tokio::test]
async fn leftovers_of_the_operation_are_aborted_on_a_resumption() {
    let log = log();
    let operation = log.as_str().split('/').next().unwrap().to_owned();
    let pages = Mutex::new(vec![("b", "3", false), ("a", "1", true)]);
    let key = format!("{operation}/results");
    let reply = move |request: &Request| {
        if request.query.contains_key("uploads") {
            let (name, id, is_truncated) = pages.lock().unwrap().pop().unwrap();
            let markers =
                format!("<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>{id}</NextUploadIdMarker>");
            let of_other = "<Upload><Key>other/results/x</Key><UploadId>9</UploadId></Upload>";
            return Reply::status(200).body(format!(
                "<ListMultipartUploadsResult><IsTruncated>{is_truncated}</IsTruncated>{markers}\
                 <Upload><Key>{key}/{name}</Key><UploadId>{id}</UploadId></Upload>{of_other}\
                 </ListMultipartUploadsResult>"
            ));
        }
        if request.query.contains_key("uploadId") {
            return Reply::status(204);
        }
        if request.query.contains_key("list-type") {
            return Reply::status(200).body("<ListBucketResult></ListBucketResult>");
        }
        if request.body.starts_with(b"<Delete") {
            let deleted = "<DeleteResult><Deleted><Key>k</Key></Deleted></DeleteResult>";
            return Reply::status(200).body(deleted);
        }
        stored(request).header("last-modified", "Wed, 21 Oct 2026 07:28:00 GMT")
    };
    let server = Responder::start(reply).await;
    sink_at(&server).prepare(&log).await.unwrap();
    let requests = server.requests();
    let aborted: Vec<_> =
        requests.iter().filter_map(|request| request.query.get("uploadId").cloned()).collect();
    assert_eq!(aborted, ["1", "3"]);
    let lists: Vec<_> = requests.iter().filter(|request| request.query.contains_key("uploads")).collect();
    assert_eq!(lists.len(), 2);
    assert_eq!(lists[0].query["prefix"], format!("{operation}%2F"));
    assert_eq!((&*lists[1].query["key-marker"], &*lists[1].query["upload-id-marker"]), ("k", "1"));
    assert!(lists[0].header("authorization").is_some());
}
