//! Sources and stores whose calls do not return, and destinations that keep failing at the start.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{Instance, ListRequest, Page};
use dicom_export::store::{
    Checkpoint, MemoryOperationStore, OperationId, OperationKey, OperationSpec, OperationStore,
};
use dicom_export::{
    Content, ErrorKind, ExportEngine, ExportSource, InstanceSource, MemorySink, MemorySource, NewOperation,
    Operation, OperationStatus, Result, RetryPolicy,
};
use futures::StreamExt;
use tokio::time::timeout;

use crate::support::{FaultySink, archive, log_of};

const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Where a source or a store hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    List,
    Open,
    FirstChunk,
    NextChunk,
    Load,
    Save,
}

/// Hangs at one point, in the first `count` calls.
struct Hanging<T> {
    inner: T,
    point: Point,
    count: AtomicUsize,
}

impl<T: Sync> Hanging<T> {
    fn new(inner: T, point: Point, count: usize) -> Self {
        Self { inner, point, count: AtomicUsize::new(count) }
    }

    fn hangs(&self, point: Point) -> bool {
        point == self.point && self.count.fetch_update(SeqCst, SeqCst, |count| count.checked_sub(1)).is_ok()
    }

    async fn pass(&self, point: Point) {
        if self.hangs(point) {
            std::future::pending().await
        }
    }
}

#[async_trait]
impl InstanceSource for Hanging<MemorySource> {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.pass(Point::List).await;
        self.inner.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.pass(Point::Open).await;
        let content = self.inner.open(instance).await?;
        let before = match () {
            () if self.hangs(Point::FirstChunk) => 0,
            () if self.hangs(Point::NextChunk) => 1,
            () => return Ok(content),
        };
        let chunks = (0..before).map(|_| Ok(Bytes::from_static(b"DICM")));
        let stream = futures::stream::iter(chunks).chain(futures::stream::pending());
        Ok(Content::from_stream(content.length(), stream))
    }
}

#[async_trait]
impl OperationStore for Hanging<MemoryOperationStore> {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        self.inner.create(spec, checkpoint).await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.inner.spec(id).await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.pass(Point::Load).await;
        self.inner.load(id).await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        self.pass(Point::Save).await;
        self.inner.save(id, checkpoint).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        self.inner.list(after, limit).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        self.inner.delete(id).await
    }
}

async fn export(engine: &ExportEngine, sink: &MemorySink) -> Operation {
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink.clone())).await.unwrap();
    timeout(HOUR, engine.wait(started.operation_id)).await.expect("the export ends").unwrap()
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_source_call_that_does_not_return_is_retried_after_the_call_timeout() {
    for point in [Point::List, Point::Open, Point::FirstChunk, Point::NextChunk] {
        let source = Hanging::new(archive(5), point, 2);
        let engine = ExportEngine::builder(source).call_timeout(CALL_TIMEOUT).build().unwrap();
        let sink = MemorySink::new();
        let ended = export(&engine, &sink).await;
        assert_eq!(ended.status, OperationStatus::Completed, "{point:?}: {:?}", ended.error);
        assert_eq!((ended.results.exported, ended.results.skipped), (5, 0), "{point:?}");
        assert!(log_of(&sink, &ended).is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_source_that_never_returns_fails_the_operation() {
    for point in [Point::List, Point::Open, Point::NextChunk] {
        let source = Hanging::new(archive(5), point, usize::MAX);
        let engine = ExportEngine::builder(source)
            .call_timeout(CALL_TIMEOUT)
            .retry(RetryPolicy::with_budget(CALL_TIMEOUT))
            .build()
            .unwrap();
        let ended = export(&engine, &MemorySink::new()).await;
        assert_eq!(ended.status, OperationStatus::Failed, "{point:?}");
        let error = ended.error.unwrap();
        assert_eq!(error.code, "unavailable");
        assert!(error.message.contains("the source did not respond within 60 s"), "{}", error.message);
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_store_call_that_does_not_return_fails_after_the_call_timeout() {
    for point in [Point::Load, Point::Save] {
        let engine = ExportEngine::builder(archive(5))
            .operation_store(Hanging::new(MemoryOperationStore::new(), point, 1))
            .call_timeout(CALL_TIMEOUT)
            .build()
            .unwrap();
        let started =
            engine.start(NewOperation::new(ExportSource::Everything, MemorySink::new())).await.unwrap();
        let mut progress = engine.progress(started.operation_id).unwrap();
        // The channel closes when the run ends.
        let ended = async { while progress.changed().await.is_ok() {} };
        timeout(HOUR, ended).await.expect("the export ends");
        let mut ended = engine.status(started.operation_id).await;
        if point == Point::Load {
            // A call that a caller waits for is not retried.
            assert_eq!(ended.unwrap_err().kind(), ErrorKind::Unavailable);
            ended = engine.status(started.operation_id).await;
        }
        let ended = ended.unwrap();
        assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 5), "{point:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn start_that_keeps_failing_returns_the_error_of_the_destination() {
    let sink = FaultySink::new();
    sink.plan().fail_starts(ErrorKind::Unavailable);
    let engine = ExportEngine::builder(archive(5)).build().unwrap();
    let error = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap_err();
    assert_eq!((error.kind(), error.pointer()), (ErrorKind::Invalid, Some("/destination")));
    assert_eq!(error.message(), "the destination cannot be used: planned failure");
}
