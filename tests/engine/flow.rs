//! The memory budget, the concurrency limit, canceling, shutting down, and operations that run at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::{LogKey, PutResult};
use dicom_export::source::{Instance, ListRequest, Page};
use dicom_export::store::MemoryOperationStore;
use dicom_export::{
    BlobPath, BlobSink, Concurrency, Content, ErrorKind, ExportEngine, ExportSource, InstanceSource,
    MemorySink, MemorySource, NewOperation, OperationStatus, Result, UploadContext,
};
use futures::StreamExt;

use crate::support::{FaultySink, Generated, archive, assert_exported};

/// Reads a content until its buffer is full, discards the buffer after a pause, and continues.
#[derive(Clone, Default)]
struct SlowSink {
    active: Arc<AtomicUsize>,
    max_active: Arc<AtomicUsize>,
}

#[async_trait]
impl BlobSink for SlowSink {
    async fn prepare(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    async fn put(&self, _: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        self.max_active.fetch_max(self.active.fetch_add(1, SeqCst) + 1, SeqCst);
        let (mut buffer, mut size, mut chunks) = (Vec::new(), 0, content.into_stream());
        while let Some(chunk) = chunks.next().await {
            let chunk: Bytes = chunk?;
            size += chunk.len() as u64;
            buffer.push(chunk);
            if buffer.iter().map(|chunk| chunk.len() as u64).sum::<u64>() + 1024 > upload.buffer_limit() {
                tokio::time::sleep(Duration::from_millis(10)).await;
                buffer.clear();
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        self.active.fetch_sub(1, SeqCst);
        Ok(PutResult::new(size))
    }

    async fn append(&self, _: &BlobPath, _: LogKey, _: Bytes) -> Result<()> {
        Ok(())
    }

    async fn finish(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    fn url(&self, path: &BlobPath) -> String {
        path.to_string()
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        length.unwrap_or(64 << 10).min(64 << 10)
    }

    fn location(&self) -> String {
        "slow".to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_5_the_memory_budget_bounds_the_buffers() {
    for (size, states_size) in [(100 << 10, true), (100 << 10, false), (5 << 10, true), (1 << 20, true)] {
        let source = Generated { count: 200, size, chunk: 1 << 10, states_size, memory: Arc::default() };
        let memory = Arc::clone(&source.memory);
        let sink: Arc<dyn BlobSink> = Arc::new(SlowSink::default());
        let engine = ExportEngine::builder(source).memory_budget(256 << 10).build().unwrap();
        let id = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap().operation_id;
        let ended = engine.wait(id).await.unwrap();
        assert_eq!(ended.results.exported, 200);
        let peak = memory.peak.load(SeqCst);
        assert!(peak <= 256 << 10, "{peak} bytes at once, with instances of {size} bytes");
        assert!(peak >= 64 << 10, "{peak} bytes: the budget is not used");
    }
}

/// Lists instances without a size. Each content states its length, once sixteen of them are being opened.
struct Remote {
    inner: MemorySource,
    opening: tokio::sync::Barrier,
}

#[async_trait]
impl InstanceSource for Remote {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let mut page = self.inner.list(request).await?;
        let listed = page.instances.iter();
        page.instances = listed.map(|one| Instance::new(one.identifier().clone())).collect();
        Ok(page)
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.opening.wait().await;
        self.inner.open(instance).await
    }
}

/// The default budget has room for sixteen buffers for contents of unknown length, and this one for two.
#[tokio::test(start_paused = true)]
async fn small_instances_of_unknown_size_are_opened_concurrently() {
    let source = Remote { inner: archive(160), opening: tokio::sync::Barrier::new(16) };
    let engine = ExportEngine::builder(source).memory_budget(8 << 20).concurrency(Concurrency::Fixed(16));
    let engine = engine.build().unwrap();
    let request = NewOperation::new(ExportSource::Everything, MemorySink::new());
    let id = engine.start(request).await.unwrap().operation_id;
    let ended =
        tokio::time::timeout(Duration::from_secs(60), engine.wait(id)).await.expect("it ends").unwrap();
    assert_eq!(ended.results.exported, 160);
}

#[tokio::test(start_paused = true)]
async fn a_fixed_concurrency_is_reached_and_not_exceeded() {
    let sink = SlowSink::default();
    let source = Generated { count: 500, size: 10, chunk: 10, states_size: true, memory: Arc::default() };
    let engine =
        ExportEngine::builder(source).batch_size(10).concurrency(Concurrency::Fixed(24)).build().unwrap();
    let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
    let id = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap().operation_id;
    engine.wait(id).await.unwrap();
    // More than the size of a batch: the next batch starts before a batch has ended.
    assert_eq!(sink.max_active.load(SeqCst), 24);
}

#[tokio::test(start_paused = true)]
async fn a_canceled_operation_stops_and_stays_canceled() {
    let source = Arc::new(archive(5_000));
    let sink = FaultySink::with_latency(Duration::from_millis(100));
    let engine = ExportEngine::builder(Arc::clone(&source)).batch_size(20).build().unwrap();
    let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
    let id = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap().operation_id;
    let mut progress = engine.progress(id).unwrap();
    progress.wait_for(|progress| progress.exported > 200).await.unwrap();
    engine.cancel(id).await.unwrap();
    let ended = engine.wait(id).await.unwrap();

    assert_eq!(ended.status, OperationStatus::Canceled);
    assert_eq!(ended.error, None);
    let blobs = assert_exported(&source, &sink.inner, &ended).await;
    assert!(ended.results.exported as usize <= blobs && blobs < 5_000);
    assert_eq!(engine.cancel(id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(engine.resume(id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn cancel_does_not_wait_for_a_destination_that_is_down() {
    let sink = FaultySink::new();
    sink.plan().fail_all(ErrorKind::Unavailable, 0);
    let engine = ExportEngine::builder(archive(50)).build().unwrap();
    let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
    let id = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap().operation_id;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(engine.status(id).await.unwrap().status, OperationStatus::Running);
    let begin = tokio::time::Instant::now();
    engine.cancel(id).await.unwrap();
    assert_eq!(engine.wait(id).await.unwrap().status, OperationStatus::Canceled);
    assert!(begin.elapsed() < Duration::from_secs(15));
}

#[tokio::test(start_paused = true)]
async fn guarantee_8_a_shutdown_leaves_whole_batches_and_another_engine_resumes() {
    let source = Arc::new(archive(2_000));
    let sink = FaultySink::with_latency(Duration::from_millis(50));
    let store = Arc::new(MemoryOperationStore::new());
    let provider = sink.inner.provider();
    let first = ExportEngine::builder(Arc::clone(&source))
        .destination("azureblob", provider.clone())
        .operation_store(store.clone())
        .batch_size(32)
        .build()
        .unwrap();
    let destination = dicom_export::ExportDestination::azure_blob("https://a.blob.core.windows.net/b");
    let id =
        first.create(NewOperation::new(ExportSource::Everything, destination)).await.unwrap().operation_id;
    // The engine shuts down as soon as the operation has a runner.
    let runner = first.clone();
    let run = tokio::spawn(async move { runner.run(id).await });
    let mut ran = false;
    while !ran {
        tokio::task::yield_now().await;
        ran = first.progress(id).is_some();
    }
    first.shutdown(Duration::ZERO).await;
    let left = run.await.unwrap().unwrap();
    assert_eq!(left.status, OperationStatus::Running);
    let refused = first.run(id).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);

    let second = ExportEngine::builder(Arc::clone(&source))
        .destination("azureblob", provider)
        .operation_store(store)
        .build()
        .unwrap();
    assert_eq!(second.resume_all().await.unwrap(), [id]);
    let ended = second.wait(id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 2_000));
    assert_eq!(assert_exported(&source, &sink.inner, &ended).await, 2_000);
    assert_eq!(second.resume_all().await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn one_engine_runs_an_operation_and_any_engine_can_cancel_it() {
    let sink = FaultySink::with_latency(Duration::from_millis(200));
    let store = Arc::new(MemoryOperationStore::new());
    let build = || {
        ExportEngine::builder(archive(3_000))
            .destination("azureblob", MemorySink::new().provider())
            .operation_store(store.clone())
            .build()
            .unwrap()
    };
    let (first, second) = (build(), build());
    let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
    let id = first.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap().operation_id;
    first.progress(id).unwrap().wait_for(|progress| progress.exported > 0).await.unwrap();
    assert_eq!(second.run(id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(second.resume_all().await.unwrap(), []);
    assert_eq!(second.status(id).await.unwrap().status, OperationStatus::Running);
    second.cancel(id).await.unwrap();
    assert_eq!(second.wait(id).await.unwrap().status, OperationStatus::Canceled);
}

/// Reservations of more than a quarter of the memory budget used to wait for the slow operation, and all others waited
/// behind them.
#[tokio::test(start_paused = true)]
async fn a_slow_operation_does_not_hold_up_others() {
    // Each put of the slow operation takes ten minutes, and its instances fill the whole memory budget.
    for size in [64 << 10, 256 << 10, 1 << 20] {
        let source =
            Generated { count: 100, size, chunk: 1 << 10, states_size: true, memory: Arc::default() };
        let engine = ExportEngine::builder(source).memory_budget(512 << 10).build().unwrap();
        let stuck = FaultySink::with_latency(Duration::from_secs(600));
        let start = async |sink: &FaultySink| {
            let sink: Arc<dyn BlobSink> = Arc::new(sink.clone());
            engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap().operation_id
        };
        let slow = start(&stuck).await;
        // The slow operation has reserved as much memory as it can.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let quick = FaultySink::with_latency(Duration::from_millis(10));
        let others = [start(&quick).await, start(&quick).await, start(&quick).await];
        let begin = tokio::time::Instant::now();
        for other in others {
            assert_eq!(engine.wait(other).await.unwrap().results.exported, 100);
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{size}: {:?}", begin.elapsed());
        assert_eq!(engine.status(slow).await.unwrap().results.exported, 0);
        engine.cancel(slow).await.unwrap();
        engine.wait(slow).await.unwrap();
    }
}
