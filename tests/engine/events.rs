//! What an observer is told about operations. Time is virtual.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use dicom_export::store::{Lease, MemoryOperationStore, OperationFilter, OperationStore};
use dicom_export::{
    Error, ErrorKind, ExportEngine, ExportEngineBuilder, ExportObserver, ExportSource, MemorySink,
    NewOperation, OperationContext, OperationId, OperationRecord, OperationStatus, Result, Resumption,
    RetryPolicy, SideFailing, SideRecovered, Timestamp,
};
use tokio::time::sleep;

use crate::hooked_sink::HookedSink;
use crate::support::{Outage, archive};

/// Records what it is told.
#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<String>>,
    /// Ends are refused.
    refuses: AtomicBool,
    /// Calls for ends do not return.
    hangs: AtomicBool,
    panics: AtomicBool,
    attempts: AtomicUsize,
}

impl Recorder {
    fn add(&self, event: impl Into<String>) {
        self.events.lock().unwrap().push(event.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.events.lock().unwrap())
    }
}

#[async_trait]
impl ExportObserver for Recorder {
    async fn operation_started(&self, record: &OperationRecord) {
        assert!(!self.panics.load(SeqCst), "the host's observer");
        self.add(format!("started {} {:?}", record.operation.status, record.context.partition));
    }

    async fn operation_resumed(&self, record: &OperationRecord, resumption: Resumption) {
        assert!(!self.panics.load(SeqCst), "the host's observer");
        self.add(format!("resumed {} {resumption:?}", record.operation.status));
    }

    async fn operation_ended(&self, record: &OperationRecord) -> Result<()> {
        self.attempts.fetch_add(1, SeqCst);
        assert!(!self.panics.load(SeqCst), "the host's observer");
        if self.hangs.load(SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.refuses.load(SeqCst) {
            return Err(Error::new(ErrorKind::Invalid, "planned refusal"));
        }
        self.add(format!("ended {} {}", record.operation.status, record.operation.results.exported));
        Ok(())
    }

    async fn side_failing(&self, failing: SideFailing<'_>) {
        let SideFailing { side, kind, failing_for, .. } = failing;
        self.add(format!("{side} {kind} {failing_for:?} {:?}", failing.context.partition));
    }

    async fn side_recovered(&self, recovered: SideRecovered<'_>) {
        self.add(format!("{} recovered", recovered.side));
    }
}

fn outage(seconds: u64) -> HookedSink<Outage> {
    Outage::lasting(seconds, || Error::new(ErrorKind::Unavailable, "planned failure"))
}

struct World {
    recorder: Arc<Recorder>,
    store: Arc<MemoryOperationStore>,
}

impl World {
    fn new() -> Self {
        Self { recorder: Arc::default(), store: Arc::new(MemoryOperationStore::new()) }
    }

    fn builder(&self) -> ExportEngineBuilder {
        ExportEngine::builder(archive(10))
            .operation_store(Arc::clone(&self.store))
            .observer(Arc::clone(&self.recorder))
    }

    fn engine(&self) -> ExportEngine {
        self.builder().build().unwrap()
    }

    async fn is_pending(&self, id: OperationId) -> bool {
        let pending = self.store.query(&OperationFilter::new(10).end_pending_only()).await.unwrap();
        pending.iter().any(|(key, _)| key.id == id)
    }

    /// Waits until the observer has been called this many times at the end of an operation.
    async fn attempts(&self, count: usize) {
        while self.recorder.attempts.load(SeqCst) < count {
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn delivered(&self, id: OperationId) {
        while self.is_pending(id).await {
            sleep(Duration::from_millis(100)).await;
        }
    }
}

fn export(sink: impl dicom_export::BlobSink) -> NewOperation {
    let context = OperationContext::default().with_partition("north");
    NewOperation::new(ExportSource::Everything, sink).with_context(context)
}

#[tokio::test(start_paused = true)]
async fn an_observer_follows_an_operation_through_an_outage() {
    let world = World::new();
    let engine = world.engine();
    let id = engine.start(export(outage(70))).await.unwrap().operation_id;
    engine.wait(id).await.unwrap();
    world.delivered(id).await;
    assert_eq!(
        world.recorder.take(),
        [
            "started running Some(\"north\")",
            "destination unavailable 30s Some(\"north\")",
            "destination unavailable 60s Some(\"north\")",
            "destination recovered",
            "ended completed 10",
        ]
    );
    // It is delivered once if nothing fails, also after a restart.
    engine.shutdown(Duration::ZERO).await;
    let restarted = world.engine();
    restarted.resume_all().await.unwrap();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(world.recorder.take(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn every_end_is_delivered() {
    let world = World::new();
    let engine = world.builder().retry(RetryPolicy::with_budget(Duration::from_secs(5))).build().unwrap();
    let sink = outage(60);
    let id = engine.start(export(sink.clone())).await.unwrap().operation_id;
    engine.wait(id).await.unwrap();
    world.delivered(id).await;
    assert_eq!(world.recorder.take(), ["started running Some(\"north\")", "ended failed 0"]);
    sleep(Duration::from_secs(60)).await;
    engine.resume(id, Some(sink.into())).await.unwrap();
    engine.wait(id).await.unwrap();
    world.delivered(id).await;
    assert_eq!(world.recorder.take(), ["resumed running Requested", "ended completed 10"]);

    // Canceled while it runs, and while no runner holds it.
    let id = engine.start(export(outage(600))).await.unwrap().operation_id;
    engine.cancel(id).await.unwrap();
    engine.wait(id).await.unwrap();
    world.delivered(id).await;
    assert_eq!(world.recorder.take().last().unwrap(), "ended canceled 0");
    let id = engine.create(export(MemorySink::new())).await.unwrap().operation_id;
    engine.cancel(id).await.unwrap();
    world.delivered(id).await;
    assert_eq!(world.recorder.take(), ["ended canceled 0"]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_not_delivered_is_delivered_by_the_next_process() {
    let world = World::new();
    world.recorder.refuses.store(true, SeqCst);
    let first = world.engine();
    let id = first.start(export(MemorySink::new())).await.unwrap().operation_id;
    let ended = first.wait(id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed);
    // It is repeated here too.
    world.attempts(3).await;
    assert_eq!(world.recorder.take(), ["started running Some(\"north\")"]);
    first.shutdown(Duration::ZERO).await;
    assert!(world.is_pending(id).await);

    world.recorder.refuses.store(false, SeqCst);
    let second = world.engine();
    second.resume_all().await.unwrap();
    world.delivered(id).await;
    assert_eq!(world.recorder.take(), ["ended completed 10"]);
    let delivered = second.status(id).await.unwrap();
    assert_eq!(delivered, ended, "the delivery changes nothing that is visible");
}

#[tokio::test(start_paused = true)]
async fn an_end_whose_process_is_killed_is_delivered_by_another_one() {
    let world = World::new();
    world.recorder.hangs.store(true, SeqCst);
    let killed = world.engine();
    let run = tokio::spawn({
        let engine = killed.clone();
        let new = export(MemorySink::new());
        async move {
            let id = engine.create(new).await.unwrap().operation_id;
            engine.run(id).await
        }
    });
    world.attempts(1).await;
    run.abort();
    _ = run.await;
    let [record] = &killed_operations(&world).await[..] else { panic!("one operation") };
    let id = record.0;
    assert_eq!(record.1, OperationStatus::Completed);
    world.recorder.take();
    // The lease of the delivery lapses.
    let mut checkpoint = world.store.load(id).await.unwrap();
    checkpoint.lease =
        checkpoint.lease.map(|lease| Lease::new(lease.holder, Timestamp::now(), Duration::ZERO));
    world.store.save(id, &checkpoint).await.unwrap();

    world.recorder.hangs.store(false, SeqCst);
    let other = world.engine();
    other.resume_all().await.unwrap();
    world.delivered(id).await;
    assert_eq!(world.recorder.take(), ["ended completed 10"]);
}

async fn killed_operations(world: &World) -> Vec<(OperationId, OperationStatus)> {
    let found = world.store.query(&OperationFilter::new(10)).await.unwrap();
    found.into_iter().map(|(key, checkpoint)| (key.id, checkpoint.status)).collect()
}

#[tokio::test(start_paused = true)]
async fn two_replicas_deliver_an_end_once() {
    let world = World::new();
    world.recorder.refuses.store(true, SeqCst);
    let (one, two) = (world.engine(), world.engine());
    let id = one.start(export(MemorySink::new())).await.unwrap().operation_id;
    one.wait(id).await.unwrap();
    two.resume_all().await.unwrap();
    world.attempts(4).await;
    world.recorder.take();
    world.recorder.refuses.store(false, SeqCst);
    world.delivered(id).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(world.recorder.take(), ["ended completed 10"]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_operation_is_resumed_while_its_end_is_not_delivered() {
    let world = World::new();
    world.recorder.hangs.store(true, SeqCst);
    let engine = world.builder().retry(RetryPolicy::none()).build().unwrap();
    let sink = outage(10);
    let id = engine.start(export(sink.clone())).await.unwrap().operation_id;
    let failed = engine.wait(id).await.unwrap();
    assert_eq!(failed.status, OperationStatus::Failed);
    world.attempts(1).await;
    sleep(Duration::from_secs(10)).await;
    world.recorder.hangs.store(false, SeqCst);
    engine.resume(id, Some(sink.into())).await.unwrap();
    assert_eq!(engine.wait(id).await.unwrap().status, OperationStatus::Completed);
    world.delivered(id).await;
    sleep(Duration::from_secs(600)).await;
    let expected = ["started running Some(\"north\")", "resumed running Requested", "ended completed 10"];
    assert_eq!(world.recorder.take(), expected);
}

#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_does_not_affect_the_export() {
    let world = World::new();
    world.recorder.panics.store(true, SeqCst);
    let engine = world.engine();
    let id = engine.start(export(MemorySink::new())).await.unwrap().operation_id;
    let ended = engine.wait(id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 10));
    world.attempts(2).await;
    world.recorder.panics.store(false, SeqCst);
    world.delivered(id).await;
    assert_eq!(world.recorder.take(), ["ended completed 10"]);
}
