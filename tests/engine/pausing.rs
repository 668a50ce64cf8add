//! Pausing operations, and limits on the bytes per second of one operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use dicom_export::store::{
    Checkpoint, MemoryOperationStore, OperationFilter, OperationId, OperationStatus, OperationStore,
};
use dicom_export::{
    Concurrency, Error, ErrorKind, ExportEngine, ExportEngineBuilder, ExportObserver, ExportService,
    ExportSource, MemorySource, NewOperation, Operation, OperationRecord, Result, Target,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::hooked_store::{HookedStore, StoreHook};
use crate::support::{FaultySink, archive, assert_exported, log_of};

const COUNT: usize = 400;

/// How long a put takes: a run takes 50 seconds.
const LATENCY: Duration = Duration::from_millis(500);

fn builder(source: &Arc<MemorySource>, store: &MemoryOperationStore) -> ExportEngineBuilder {
    let builder = ExportEngine::builder(Arc::clone(source)).concurrency(Concurrency::Fixed(4)).batch_size(10);
    builder.operation_store(store.clone()).checkpoint_interval(Duration::from_secs(1))
}

async fn start(engine: &ExportEngine, sink: &FaultySink) -> OperationId {
    engine.start(NewOperation::new(ExportSource::Everything, sink.clone())).await.unwrap().operation_id
}

/// Waits until an operation has a status, at most ten minutes.
async fn wait_for(engine: &ExportEngine, id: OperationId, status: OperationStatus) -> Operation {
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        let operation = engine.status(id).await.unwrap();
        if operation.status == status {
            return operation;
        }
        assert!(Instant::now() < deadline, "{operation:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

async fn assert_complete(source: &MemorySource, sink: &FaultySink, ended: &Operation) {
    assert_eq!(ended.status, OperationStatus::Completed);
    assert_eq!((ended.results.exported, ended.results.skipped), (COUNT as u64, 0));
    assert_eq!(assert_exported(source, &sink.inner, ended).await, COUNT);
    assert!(log_of(&sink.inner, ended).is_empty());
}

#[tokio::test(start_paused = true)]
async fn paused_operation_stops_until_it_is_resumed() {
    let (source, store, sink) =
        (Arc::new(archive(COUNT)), MemoryOperationStore::new(), FaultySink::with_latency(LATENCY));
    let engine = builder(&source, &store).build().unwrap();
    let id = start(&engine, &sink).await;
    for _ in 0..3 {
        sleep(Duration::from_secs(10)).await;
        let requested = Instant::now();
        engine.pause(id).await.unwrap();
        let paused = wait_for(&engine, id, OperationStatus::Paused).await;
        assert!(requested.elapsed() < Duration::from_secs(5));
        assert!(paused.results.exported > 0);
        // Pausing it again changes nothing, and nothing is written while it is paused.
        engine.pause(id).await.unwrap();
        let written = sink.inner.names().len();
        sleep(Duration::from_secs(3600)).await;
        assert_eq!(sink.inner.names().len(), written);
        assert_eq!(engine.status(id).await.unwrap().status, OperationStatus::Paused);
        assert_eq!(engine.resume(id, None).await.unwrap().status, OperationStatus::Running);
    }
    let ended = engine.wait(id).await.unwrap();
    assert_complete(&source, &sink, &ended).await;
    assert_eq!(engine.pause(id).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn guarantee_4_paused_operation_is_not_taken_over_and_its_counts_are_exact() {
    let (source, store, sink) =
        (Arc::new(archive(COUNT)), MemoryOperationStore::new(), FaultySink::with_latency(LATENCY));
    let engine = builder(&source, &store).build().unwrap();
    let id = start(&engine, &sink).await;
    sleep(Duration::from_secs(10)).await;
    engine.pause(id).await.unwrap();
    let paused = wait_for(&engine, id, OperationStatus::Paused).await;
    engine.shutdown(Duration::ZERO).await;

    let restarted = builder(&source, &store).build().unwrap();
    assert_eq!(restarted.resume_all().await.unwrap(), []);
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(restarted.status(id).await.unwrap(), paused);
    restarted.resume(id, Some(Target::from(sink.clone()))).await.unwrap();
    let ended = restarted.wait(id).await.unwrap();
    assert_complete(&source, &sink, &ended).await;
}

#[tokio::test(start_paused = true)]
async fn operation_of_another_replica_is_paused_and_limited() {
    let (source, store, sink) =
        (Arc::new(archive(COUNT)), MemoryOperationStore::new(), FaultySink::with_latency(LATENCY));
    let [engine, other] = [(); 2].map(|()| builder(&source, &store).build().unwrap());
    let id = start(&engine, &sink).await;
    sleep(Duration::from_secs(5)).await;
    other.pause(id).await.unwrap();
    wait_for(&other, id, OperationStatus::Paused).await;
    engine.resume(id, None).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    other.set_operation_bytes_per_second(id, 1).await.unwrap();
    // The runner finds the limit when it next saves the checkpoint.
    sleep(Duration::from_secs(60)).await;
    let before = engine.progress(id).unwrap().borrow().bytes;
    sleep(Duration::from_secs(3600)).await;
    let limited = engine.progress(id).unwrap().borrow().bytes - before;
    assert!((3400..=3800).contains(&limited), "{limited} bytes in an hour");
    other.set_operation_bytes_per_second(id, 0).await.unwrap();
    let ended = engine.wait(id).await.unwrap();
    assert_complete(&source, &sink, &ended).await;
    let error = other.set_operation_bytes_per_second(id, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn operation_can_be_paused_before_it_runs_and_canceled_while_it_is_paused() {
    let (source, store, sink) =
        (Arc::new(archive(COUNT)), MemoryOperationStore::new(), FaultySink::with_latency(LATENCY));
    let engine = builder(&source, &store).build().unwrap();
    let create = || engine.create(NewOperation::new(ExportSource::Everything, sink.clone()));
    let [resumed, canceled] = [create().await.unwrap(), create().await.unwrap()].map(|new| new.operation_id);
    for id in [resumed, canceled] {
        engine.pause(id).await.unwrap();
        assert_eq!(engine.status(id).await.unwrap().status, OperationStatus::Paused);
    }
    assert_eq!(engine.resume_all().await.unwrap(), []);
    engine.cancel(canceled).await.unwrap();
    assert_eq!(engine.status(canceled).await.unwrap().status, OperationStatus::Canceled);
    let ended = engine.run(resumed).await.unwrap();
    assert_complete(&source, &sink, &ended).await;
}

#[tokio::test(start_paused = true)]
async fn paused_operation_does_not_count_as_running() {
    let (source, store, sink) =
        (Arc::new(archive(COUNT)), MemoryOperationStore::new(), FaultySink::with_latency(LATENCY));
    let engine = builder(&source, &store).max_running(1).build().unwrap();
    let first = start(&engine, &sink).await;
    engine.pause(first).await.unwrap();
    wait_for(&engine, first, OperationStatus::Paused).await;
    let second = start(&engine, &sink).await;
    let refused = engine.resume(first, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitReached);
    let ended = engine.wait(second).await.unwrap();
    assert_complete(&source, &sink, &ended).await;
    engine.resume(first, None).await.unwrap();
    let ended = engine.wait(first).await.unwrap();
    assert_complete(&source, &sink, &ended).await;
}

/// Cancels an operation just before its runner saves that it is paused.
#[derive(Default)]
struct CanceledPause(AtomicBool);

#[async_trait]
impl StoreHook for CanceledPause {
    async fn before_save(
        &self,
        store: &MemoryOperationStore,
        id: OperationId,
        checkpoint: &Checkpoint,
    ) -> Result<()> {
        if checkpoint.status == OperationStatus::Paused && !self.0.swap(true, SeqCst) {
            let mut canceled = store.load(id).await?;
            canceled.cancel_requested = true;
            store.save(id, &canceled).await?;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn cancellation_wins_over_a_pause() {
    let source = archive(COUNT);
    let store = HookedStore { inner: MemoryOperationStore::new(), hook: CanceledPause::default() };
    let engine = ExportEngine::builder(source).operation_store(store).build().unwrap();
    let id = start(&engine, &FaultySink::with_latency(LATENCY)).await;
    engine.pause(id).await.unwrap();
    assert_eq!(engine.wait(id).await.unwrap().status, OperationStatus::Canceled);
}

#[tokio::test(start_paused = true)]
async fn limit_is_set_at_the_start_and_kept_with_the_operation() {
    let (source, store, sink) = (Arc::new(archive(COUNT)), MemoryOperationStore::new(), FaultySink::new());
    let engine = builder(&source, &store).build().unwrap();
    let new = NewOperation::new(ExportSource::Everything, sink.clone()).with_bytes_per_second(100);
    let id = engine.start(new).await.unwrap().operation_id;
    let unlimited = start(&engine, &FaultySink::new()).await;
    // Other operations are not limited.
    assert_eq!(engine.wait(unlimited).await.unwrap().results.exported, COUNT as u64);
    sleep(Duration::from_secs(100)).await;
    engine.pause(id).await.unwrap();
    let paused = wait_for(&engine, id, OperationStatus::Paused).await;
    assert_eq!(paused.bytes_per_second.map(u64::from), Some(100));
    engine.resume(id, None).await.unwrap();
    let before = engine.progress(id).unwrap().borrow().bytes;
    sleep(Duration::from_secs(60)).await;
    let bytes = engine.progress(id).unwrap().borrow().bytes - before;
    assert!((5_500..=6_500).contains(&bytes), "{bytes} bytes in a minute");
    engine.set_operation_bytes_per_second(id, 0).await.unwrap();
    let changed = Instant::now();
    let ended = engine.wait(id).await.unwrap();
    assert!(changed.elapsed() < Duration::from_secs(5));
    assert_eq!(ended.bytes_per_second, None);
    assert_complete(&source, &sink, &ended).await;
}

/// Records the operations that were paused.
struct Pauses(mpsc::UnboundedSender<OperationRecord>);

#[async_trait]
impl ExportObserver for Pauses {
    async fn operation_paused(&self, record: &OperationRecord) {
        self.0.send(record.clone()).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn observer_is_told_of_a_pause() {
    let (sender, mut paused) = mpsc::unbounded_channel();
    let engine = ExportEngine::builder(archive(COUNT)).observer(Pauses(sender)).build().unwrap();
    let sink = FaultySink::with_latency(LATENCY);
    let running = start(&engine, &sink).await;
    engine.pause(running).await.unwrap();
    let new = NewOperation::new(ExportSource::Everything, sink.clone());
    let waiting = engine.create(new).await.unwrap().operation_id;
    assert_eq!(paused.recv().await.unwrap().operation.operation_id, running);
    engine.pause(waiting).await.unwrap();
    let record = paused.recv().await.unwrap();
    assert_eq!((record.operation.operation_id, record.operation.status), (waiting, OperationStatus::Paused));
}

/// A service that implements only what is required.
struct Minimal;

fn not_called<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Internal, "not called"))
}

#[async_trait]
impl ExportService for Minimal {
    async fn start(&self, _: NewOperation) -> Result<Operation> {
        not_called()
    }

    fn location(&self, _: &dicom_export::ExportDestination) -> Result<String> {
        not_called()
    }

    async fn operation(&self, _: OperationId) -> Result<OperationRecord> {
        not_called()
    }

    async fn list(&self, _: &OperationFilter) -> Result<Vec<OperationRecord>> {
        not_called()
    }

    async fn cancel(&self, _: OperationId) -> Result<()> {
        not_called()
    }

    async fn resume(&self, _: OperationId, _: Option<Target>) -> Result<Operation> {
        not_called()
    }
}

#[tokio::test]
async fn service_that_cannot_pause_or_limit_says_so() {
    let service: Box<dyn ExportService> = Box::new(Minimal);
    let id = OperationId::random();
    for refused in [service.pause(id).await, service.set_bytes_per_second(id, 1).await] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
