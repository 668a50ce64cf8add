//! False lengths. They change neither the memory that is used nor the timeouts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{CopySource, Instance, ListRequest, Page};
use dicom_export::{
    BlobSink, Content, ErrorKind, ExportEngine, ExportSource, InstanceSource, MemorySource, NewOperation,
    OperationStatus, Result, RetryPolicy,
};
use futures::stream;

use crate::responder::{Reply, Responder};
use crate::{MIB, bytes, faulty, instance, upload};

/// Lengths that no instance has. The first one requires blocks of 2 TB.
const CLAIMS: [u64; 4] = [100_000_000_000_000_000, u64::MAX, 50_000 * 4_000 * MIB as u64, 8 << 40];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guarantee_5_claimed_length_does_not_exceed_the_buffer_limit() {
    const CHUNK: usize = 256 << 10;
    for claim in CLAIMS {
        for limit in [1, 8, 32] {
            let received = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&received);
            let server = Responder::start(move |request| {
                count.fetch_add(request.body.len(), SeqCst);
                Reply::status(201)
            });
            let server = server.await;
            let most = Arc::new(AtomicUsize::new(0));
            let held = Arc::clone(&most);
            let chunks = (1..=64 * MIB / CHUNK).map(move |number| {
                held.fetch_max(number * CHUNK - received.load(SeqCst), SeqCst);
                Ok(Bytes::from(vec![0; CHUNK]))
            });
            let content = Content::from_stream(Some(claim), stream::iter(chunks));
            let put = faulty(&server.url()).put(&instance(), content, &upload(limit * MIB)).await;
            assert_eq!(put.unwrap_err().kind(), ErrorKind::Unreadable);
            let most = most.load(SeqCst);
            assert!(most <= limit * MIB + CHUNK, "{most} bytes of {limit} MiB for {claim}");
            assert!(server.requests().iter().all(|request| !request.has_comp("blocklist")));
        }
    }
}

/// The engine reserves the buffer size in the memory budget, which other instances and operations share.
#[test]
fn buffer_size_is_bounded() {
    let sink = faulty("http://127.0.0.1:1");
    for (length, mib) in [(None, 8), (Some(8 * MIB as u64), 8), (Some(1 << 30), 32), (Some(1 << 39), 44)] {
        assert_eq!(sink.buffer_size(length), mib * MIB as u64, "{length:?}");
    }
    for claim in CLAIMS {
        assert_eq!(sink.buffer_size(Some(claim)), 128 * MIB as u64, "{claim}");
    }
}

/// A copy of that length would have a timeout of months, and would require blocks that Azure does not allow.
#[tokio::test]
async fn excessive_length_is_not_copied() {
    let server = Responder::start(|_| Reply::status(201)).await;
    for claim in &CLAIMS[..2] {
        let source = CopySource::new("https://source.example/a.dcm", *claim);
        let copied = faulty(&server.url()).copy_from(&instance(), &source, &upload(0)).await;
        assert!(copied.unwrap().is_none());
    }
    assert!(server.requests().is_empty());
}

/// Lists and opens one instance with a false length.
struct FalseLength(MemorySource);

impl FalseLength {
    fn applies_to(instance: &Instance) -> bool {
        instance.identifier().to_string().ends_with(".0")
    }
}

#[async_trait]
impl InstanceSource for FalseLength {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let mut page = self.0.list(request).await?;
        for instance in page.instances.iter_mut().filter(|instance| Self::applies_to(instance)) {
            *instance = instance.clone().with_size(CLAIMS[0]);
        }
        Ok(page)
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let content = self.0.open(instance).await?;
        if Self::applies_to(instance) {
            return Ok(Content::from_stream(Some(CLAIMS[0]), content.into_stream()));
        }
        Ok(content)
    }
}

#[tokio::test]
async fn instance_with_a_false_length_is_skipped_and_the_others_exported() {
    let server = Responder::start(|_| Reply::status(201)).await;
    let source: MemorySource =
        (0..10).map(|n| (format!("1.2/1.3/1.4.{n}").parse().unwrap(), bytes(1000))).collect();
    let engine = ExportEngine::builder(FalseLength(source))
        .memory_budget(16 << 20)
        .retry(RetryPolicy::with_budget(Duration::from_millis(200)))
        .build()
        .unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(faulty(&server.url()));
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (9, 1));
}
