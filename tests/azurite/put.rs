//! Puts with a write-only SAS: a blob is stored byte for byte, or not at all.

use bytes::Bytes;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::testing::{
    SinkProviderTestOptions, SinkTestOptions, sink_conformance, sink_provider_conformance,
};
use dicom_export::{BlobSink, Content, Error, ErrorKind, UploadContext};
use futures::stream;
use serde_json::json;

use crate::azurite::{Azurite, Container};
use crate::{MIB, bytes, instance, sink, upload};

/// A content of chunks of various sizes, some of them empty.
fn stream_of(bytes: &Bytes, length: Option<usize>) -> Content {
    let mut rest = bytes.clone();
    let mut chunks = vec![Ok(Bytes::new())];
    for size in [1, 70_001, 0, 1_000_003].into_iter().cycle() {
        chunks.push(Ok(rest.split_to(size.min(rest.len()))));
        if rest.is_empty() {
            break;
        }
    }
    Content::from_stream(length.map(|length| length as u64), stream::iter(chunks))
}

async fn assert_put(container: &Container<'_>, content: Content, expected: &Bytes, upload: &UploadContext) {
    let (sink, path) = (sink(&container.sas_url("w")), instance());
    let stored = sink.put(&path, content, upload).await.unwrap();
    assert_eq!(stored.size, expected.len() as u64);
    assert!(stored.etag.is_some());
    let blob = container.get(path.as_str()).await.unwrap();
    assert!(blob.bytes == *expected, "{} bytes were stored as {}", expected.len(), blob.bytes.len());
    assert_eq!((&*blob.content_type, &*blob.kind), ("application/dicom", "BlockBlob"));
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn contents_of_every_size_are_stored_byte_for_byte() {
    let container = Azurite::shared().container().await;
    for length in [0, 1, 8 * MIB, 8 * MIB + 1, 20 * MIB + 3] {
        let bytes = bytes(length);
        let upload = upload(32 * MIB);
        assert_put(&container, Content::from_bytes(bytes.clone()), &bytes, &upload).await;
        assert_put(&container, stream_of(&bytes, Some(length)), &bytes, &upload).await;
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn contents_of_unknown_length_are_stored_byte_for_byte() {
    let container = Azurite::shared().container().await;
    for length in [0, 1, 4 * MIB, 13 * MIB + 5] {
        let bytes = bytes(length);
        assert_put(&container, stream_of(&bytes, None), &bytes, &upload(8 * MIB)).await;
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn small_buffer_limit_makes_small_blocks() {
    let container = Azurite::shared().container().await;
    let bytes = bytes(5 * MIB + 7);
    for buffer_limit in [0, MIB] {
        assert_put(&container, stream_of(&bytes, Some(bytes.len())), &bytes, &upload(buffer_limit)).await;
        assert_put(&container, stream_of(&bytes, None), &bytes, &upload(buffer_limit)).await;
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn repeated_put_replaces_the_blob() {
    let container = Azurite::shared().container().await;
    let (sink, path) = (sink(&container.sas_url("w")), instance());
    for length in [9 * MIB, 3, 10 * MIB] {
        let content = Content::from_bytes(bytes(length));
        sink.put(&path, content, &upload(32 * MIB)).await.unwrap();
        assert!(container.get(path.as_str()).await.unwrap().bytes == bytes(length));
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn concurrent_puts_leave_one_whole_blob() {
    let container = Azurite::shared().container().await;
    let (sink, path) = (sink(&container.sas_url("w")), instance());
    let contents = [bytes(20 * MIB), bytes(20 * MIB).slice(1..)];
    let upload_context = upload(32 * MIB);
    let puts = contents.clone().map(|content| sink.put(&path, Content::from_bytes(content), &upload_context));
    let outcomes = futures::future::join_all(puts).await;
    // The first commit discards the blocks of the other put, which the engine then repeats.
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(outcomes.iter().any(Result::is_ok));
    let blob = container.get(path.as_str()).await.unwrap();
    assert!(contents.contains(&blob.bytes));
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn failed_stream_leaves_no_blob() {
    let container = Azurite::shared().container().await;
    let sink = sink(&container.sas_url("w"));
    for (chunks, length) in [(1, Some(2 * MIB)), (1, None), (20, Some(30 * MIB)), (20, None)] {
        let broken = Err(Error::new(ErrorKind::Unreadable, "the disk has failed"));
        let chunks = std::iter::repeat_n(bytes(MIB), chunks).map(Ok).chain([broken]);
        let content = Content::from_stream(
            length.map(|length| length as u64),
            stream::iter(chunks.collect::<Vec<_>>()),
        );
        let path = instance();
        let error = sink.put(&path, content, &upload(32 * MIB)).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unreadable, "the disk has failed"));
        assert!(container.get(path.as_str()).await.is_none());
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn stream_of_another_length_leaves_no_blob() {
    let container = Azurite::shared().container().await;
    let sink = sink(&container.sas_url("w"));
    for (length, stated) in
        [(5, 6), (6, 5), (10 * MIB, 11 * MIB), (11 * MIB, 10 * MIB), (3, 20 * MIB), (9 * MIB, 1)]
    {
        let path = instance();
        let content = stream_of(&bytes(length), Some(stated));
        let error = sink.put(&path, content, &upload(32 * MIB)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreadable);
        assert!(container.get(path.as_str()).await.is_none());
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn dropped_put_leaves_no_blob() {
    let container = Azurite::shared().container().await;
    let (sink, path, upload) = (sink(&container.sas_url("w")), instance(), upload(32 * MIB));
    let (reached, stalled) = tokio::sync::oneshot::channel();
    let head = stream::iter(std::iter::repeat_n(bytes(MIB), 20).map(Ok));
    // Everything before the stall has been read, and most of it sent.
    let stall = stream::once(async move {
        let _ = reached.send(());
        std::future::pending().await
    });
    let content = Content::from_stream(Some(30 * MIB as u64), futures::StreamExt::chain(head, stall));
    tokio::select! {
        _ = sink.put(&path, content, &upload) => panic!("the put ended before its stream"),
        outcome = stalled => outcome.unwrap(),
    }
    assert!(container.get(path.as_str()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn sink_conforms_to_its_contract() {
    let container = Azurite::shared().container().await;
    let read = async |name: &str| container.get(name).await.map(|blob| blob.bytes);
    let options = SinkTestOptions::default().lengths([4 * MIB, 8 * MIB + 2, 24 * MIB]);
    sink_conformance(&sink(&container.sas_url("w")), read, &options).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn provider_conforms_to_its_contract() {
    let container = Azurite::shared().container().await;
    let uri = container.sas_url("w");
    let (_, signature) = uri.split_once("sig=").unwrap();
    let options = SinkProviderTestOptions::default().secret(signature.split('&').next().unwrap()).invalid([
        json!(null),
        json!({}),
        json!({ "blobContainerUri": 7 }),
        json!({ "blobContainerUri": format!("{uri}&comp=block") }),
        json!({ "blobContainerUri": uri, "unknown": true }),
    ]);
    let provider = AzureBlobProvider::new(AzureBlobPolicy::development());
    sink_provider_conformance(&provider, &json!({ "blobContainerUri": uri }), &options).await;
}
