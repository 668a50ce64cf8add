//! Memory, stopping, and stores that do not respond.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dicom_export::sink::s3::{S3Policy, S3Provider};
use dicom_export::{
    BlobSink, Concurrency, Content, ExportDestination, ExportEngine, ExportService, ExportSource,
    MemorySource, NewOperation, OperationStatus,
};
use futures::{StreamExt, stream};

use crate::proxy::{Mode, Proxy};
use crate::responder::{Reply, Responder};
use crate::s3::{Bucket, Kind, S3Server};
use crate::{MIB, bytes, instance, sink_at, upload};

/// The sink buffers what it has read and the server has not received, including the buffers of the network. The smallest part is
/// 5 MiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarantee_5_put_buffers_at_most_the_buffer_limit() {
    const CHUNK: usize = 256 << 10;
    for (limit, length) in [(20, Some(64)), (10, Some(24)), (5, Some(24)), (15, None)] {
        let arrived = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&arrived);
        let server = Responder::start(move |request| {
            if request.query.contains_key("uploads") {
                let id =
                    "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>";
                return Reply::status(200).body(id);
            }
            if !request.query.contains_key("partNumber") {
                let done =
                    "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>";
                return Reply::status(200).body(done);
            }
            counted.fetch_add(request.body.len(), Ordering::SeqCst);
            Reply::status(200).header("etag", "\"part\"")
        })
        .await;
        let most = Arc::new(AtomicUsize::new(0));
        let (held, total) = (Arc::clone(&most), length.unwrap_or(24) * MIB);
        let chunks = stream::iter(1..=total / CHUNK).map(move |number| {
            let here = number * CHUNK - arrived.load(Ordering::SeqCst);
            held.fetch_max(here, Ordering::SeqCst);
            Ok(bytes(CHUNK))
        });
        let content = Content::from_stream(length.map(|length| (length * MIB) as u64), chunks);
        let stored = sink_at(&server).put(&instance(), content, &upload(limit * MIB)).await.unwrap();
        assert_eq!(stored.size, total as u64);
        let most = most.load(Ordering::SeqCst);
        assert!(most <= limit * MIB + CHUNK, "{most} of {limit} MiB");
    }
}

fn engine(source: MemorySource) -> ExportEngine {
    ExportEngine::builder(Arc::new(source))
        .destination("s3", S3Provider::new(S3Policy::development()))
        .memory_budget(24 << 20)
        .concurrency(Concurrency::Fixed(64))
        .build()
        .unwrap()
}

fn through(bucket: &Bucket<'_>, proxy: &Proxy) -> ExportDestination {
    ExportDestination::new("s3", bucket.settings_at(&format!("http://127.0.0.1:{}", proxy.port())))
}

/// Polls until no upload is left: aborts run in the background.
async fn wait_until_no_upload_is_left(bucket: &Bucket<'_>) {
    let wait = async {
        while bucket.pending_uploads().await > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("an upload is left");
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn guarantee_8_canceled_export_leaves_no_upload_and_no_partial_object() {
    let bucket = S3Server::shared(Kind::Moto).bucket().await;
    let proxy = Proxy::start(bucket.server.port()).await;
    proxy.forward_first("?uploads", 1);
    proxy.set_mode(Mode::HoldAfter(0));
    let source: MemorySource = [("1.2/3.4/5.6".parse().unwrap(), bytes(12 * MIB))].into_iter().collect();
    let engine = engine(source);
    let operation =
        engine.start(NewOperation::new(ExportSource::Everything, through(&bucket, &proxy))).await.unwrap();
    let id = operation.operation_id;
    while bucket.pending_uploads().await == 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    engine.cancel(id).await.unwrap();
    proxy.set_mode(Mode::Forward);
    assert_eq!(engine.wait(id).await.unwrap().status, OperationStatus::Canceled);
    wait_until_no_upload_is_left(&bucket).await;
    let objects = bucket.list().await;
    assert!(objects.keys().all(|name| !name.contains("/results/")), "{objects:?}");
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn guarantee_9_store_that_does_not_respond_does_not_hold_up_other_exports() {
    let server = S3Server::shared(Kind::Moto);
    let (silent, healthy) = (server.bucket().await, server.bucket().await);
    let proxy = Proxy::start(server.port()).await;
    proxy.set_mode(Mode::HoldAfter(0));
    let source: MemorySource =
        (0..20).map(|n| (format!("1.2/3.4/5.{n}").parse().unwrap(), bytes(2 * MIB))).collect();
    let engine = engine(source);
    let stuck = NewOperation::new(ExportSource::Everything, through(&silent, &proxy));
    let stuck = engine.start(stuck).await.unwrap().operation_id;
    proxy.wait_for_requests(10).await;
    let other = ExportDestination::new("s3", healthy.settings());
    let other = engine.start(NewOperation::new(ExportSource::Everything, other)).await.unwrap().operation_id;
    let ended = engine.wait(other).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 20), "{ended:?}");
    assert_eq!(engine.operation(stuck).await.unwrap().operation.status, OperationStatus::Running);
    engine.shutdown(Duration::ZERO).await;
}
