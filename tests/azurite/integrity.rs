//! Checksums: bodies that are damaged on the way, and responses whose checksum does not match.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use dicom_export::{BlobSink, Content, ErrorKind, RetryPolicy, UploadContext};
use futures::stream;
use md5::Digest;

use crate::azurite::Azurite;
use crate::proxy::Proxy;
use crate::responder::{Reply, Request, Responder};
use crate::{MIB, bytes, faulty, instance, sink, upload};

fn crc64(bytes: &[u8]) -> String {
    let mut crc64 = crc64fast_nvme::Digest::new();
    crc64.write(bytes);
    BASE64_STANDARD.encode(crc64.sum64().to_le_bytes())
}

fn md5(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(md5::Md5::digest(bytes))
}

/// A content of several chunks, which one checksum covers.
fn content(bytes: &Bytes) -> Content {
    let chunks: Vec<_> = bytes.chunks(300_007).map(|chunk| Ok(bytes.slice_ref(chunk))).collect();
    Content::from_stream(Some(bytes.len() as u64), stream::iter(chunks))
}

/// Azurite returns an MD5 for Put Blob and a CRC64 for Put Block. If ours differed, the requests would be repeated.
#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_1_body_damaged_on_the_way_is_sent_again() {
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let sink = sink(&proxy.through(&container.sas_url("w")));
    for (length, damaged, requests) in [(3, 1, 2), (5 * MIB, 2, 3), (20 * MIB, 3, 3 + 1 + 3)] {
        let (path, bytes) = (instance(), bytes(length));
        proxy.corrupt_next(damaged);
        let before = proxy.requests().len();
        let stored = sink.put(&path, content(&bytes), &upload(32 * MIB)).await.unwrap();
        assert_eq!((stored.size, proxy.remaining_corruptions()), (length as u64, 0));
        assert_eq!(proxy.requests().len() - before, requests, "{length} bytes");
        assert!(container.get(path.as_str()).await.unwrap().bytes == bytes);
    }
}

/// The service refuses damaged bodies, so that they are never visible.
#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_1_body_that_always_arrives_damaged_is_never_stored() {
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let sink = sink(&proxy.through(&container.sas_url("w")));
    for length in [1000, 9 * MIB] {
        let path = instance();
        proxy.corrupt_next(usize::MAX);
        let upload_context =
            UploadContext::new(32 << 20, RetryPolicy::with_budget(Duration::from_millis(300)), 4);
        let error = sink.put(&path, content(&bytes(length)), &upload_context).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(
            error.message(),
            "checksum mismatch: the request was damaged on the way (400 Crc64Mismatch)"
        );
        assert!(container.get(path.as_str()).await.is_none());
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn checksums_that_are_off_are_not_verified() {
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let sink = sink(&proxy.through(&container.sas_url("w")));
    let (path, bytes) = (instance(), bytes(1000));
    proxy.corrupt_next(1);
    let upload_context = upload(MIB).with_checksums(false);
    assert!(upload(MIB).checksums() && !upload_context.checksums());
    sink.put(&path, content(&bytes), &upload_context).await.unwrap();
    assert_eq!(proxy.requests().len(), 1);
    assert!(container.get(path.as_str()).await.unwrap().bytes != bytes);
}

/// The blob and the blocks of a server that does not verify checksums.
#[derive(Default)]
struct PutResult {
    blob: Bytes,
    blocks: Vec<(String, Bytes)>,
}

/// Stores the bodies it receives, the first `wrong` ones with a flipped bit. `respond` creates the response.
async fn storing(wrong: usize, respond: fn(&Request, &[u8]) -> Reply) -> (Responder, Arc<Mutex<PutResult>>) {
    let stored = Arc::new(Mutex::new(PutResult::default()));
    let (kept, left) = (Arc::clone(&stored), AtomicUsize::new(wrong));
    let server = Responder::start(move |request| {
        let mut body = request.body.to_vec();
        if !request.has_comp("blocklist") && left.fetch_update(SeqCst, SeqCst, |n| n.checked_sub(1)).is_ok() {
            body[0] ^= 1;
        }
        let response = respond(request, &body);
        let mut kept = kept.lock().unwrap();
        match request.query.get("blockid") {
            Some(id) => {
                kept.blocks.retain(|(known, _)| known != id);
                kept.blocks.push((id.clone(), body.into()));
            }
            None if request.has_comp("blocklist") => {
                let list = String::from_utf8(body).unwrap();
                let ids = list.split("<Latest>").skip(1).map(|id| id.split('<').next().unwrap());
                let block = |id: &str| kept.blocks.iter().find(|(known, _)| known == id).unwrap().1.clone();
                kept.blob = ids.flat_map(block).collect();
            }
            None => kept.blob = body.into(),
        }
        response
    });
    (server.await, stored)
}

fn with_crc64(_: &Request, body: &[u8]) -> Reply {
    // The MD5 is ignored, since it is more expensive.
    Reply::status(201).header("x-ms-content-crc64", crc64(body)).header("content-md5", "wrong")
}

fn with_md5(_: &Request, body: &[u8]) -> Reply {
    Reply::status(201).header("content-md5", md5(body))
}

#[tokio::test]
async fn guarantee_1_body_that_was_stored_incorrectly_is_sent_again() {
    for respond in [with_crc64 as fn(&Request, &[u8]) -> Reply, with_md5] {
        for (length, wrong, requests) in [(10, 2, 3), (30 * MIB, 3, 4 + 1 + 3)] {
            let (server, stored) = storing(wrong, respond).await;
            let bytes = bytes(length);
            faulty(&server.url()).put(&instance(), content(&bytes), &upload(32 * MIB)).await.unwrap();
            assert_eq!(server.requests().len(), requests);
            assert!(stored.lock().unwrap().blob == bytes, "{length} bytes differ");
        }
    }
}

#[tokio::test]
async fn every_request_and_retry_has_the_crc64_of_its_body() {
    let (server, _) = storing(1, with_crc64).await;
    faulty(&server.url()).put(&instance(), content(&bytes(9 * MIB)), &upload(32 * MIB)).await.unwrap();
    let requests = server.requests();
    assert_eq!(requests.len(), 4, "two blocks, one of them twice, and the list");
    for request in requests {
        assert_eq!(request.header("x-ms-content-crc64"), Some(&*crc64(&request.body)));
        assert_eq!(request.header("content-md5"), None);
    }
}

#[tokio::test]
async fn persistent_checksum_mismatch_fails_the_put() {
    let (server, stored) = storing(usize::MAX, with_md5).await;
    let upload_context =
        UploadContext::new(32 << 20, RetryPolicy::with_budget(Duration::from_millis(300)), 4);
    for length in [10, 9 * MIB] {
        let put = faulty(&server.url()).put(&instance(), content(&bytes(length)), &upload_context).await;
        let error = put.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.message(), "checksum mismatch at the destination");
    }
    assert!(
        server.requests().iter().all(|request| !request.has_comp("blocklist")),
        "a damaged block is not committed"
    );
    assert!(!stored.lock().unwrap().blocks.is_empty());
}

#[tokio::test]
async fn response_without_a_checksum_is_not_verified() {
    let (server, _) = storing(usize::MAX, |_, _| Reply::status(201)).await;
    for length in [10, 9 * MIB] {
        faulty(&server.url()).put(&instance(), content(&bytes(length)), &upload(32 * MIB)).await.unwrap();
    }
    assert_eq!(server.requests().len(), 1 + 3);
}

#[tokio::test]
async fn empty_blob_is_not_verified() {
    let (server, _) = storing(0, |_, _| Reply::status(201).header("x-ms-content-crc64", "wrong")).await;
    faulty(&server.url()).put(&instance(), Content::from_bytes(""), &upload(MIB)).await.unwrap();
    assert_eq!(server.requests()[0].header("x-ms-content-crc64"), None);
}
