//! Calls that never return, and runners that continue after they have lost their lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{Instance, ListRequest, Page};
use dicom_export::store::{Checkpoint, MemoryOperationStore, OperationStore};
use dicom_export::{
    Content, ErrorKind, ExportDestination, ExportEngine, ExportSource, InstanceSource, MemorySink,
    NewOperation, Operation, OperationId, OperationStatus, Result, Timestamp,
};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::watch;

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};
use crate::hooked_store::{HookedStore, StoreHook};
use crate::support::{
    FaultySink, FaultySinkProvider, FaultySource, Plan, archive, assert_exported, instance, log_of,
};

/// A step of an export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    List,
    Open,
    Read,
    Commit,
    Append,
}

/// Blocks every call in one step, and signals the first one.
#[derive(Clone)]
struct Hang {
    step: Step,
    reached: watch::Sender<bool>,
}

impl Hang {
    async fn enter(&self, step: Step) {
        if self.step == step {
            self.reached.send_replace(true);
            std::future::pending().await
        }
    }
}

struct HangingSource<S>(S, Hang);

#[async_trait]
impl<S: InstanceSource> InstanceSource for HangingSource<S> {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        if request.after.is_some() {
            self.1.enter(Step::List).await;
        }
        self.0.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.1.enter(Step::Open).await;
        let content = self.0.open(instance).await?;
        let (length, hang) = (content.length(), self.1.clone());
        let chunks = content.into_stream().then(move |chunk| {
            let hang = hang.clone();
            async move {
                hang.enter(Step::Read).await;
                chunk
            }
        });
        Ok(Content::from_stream(length, chunks))
    }
}

/// Blocks before a blob is committed, after its whole content has been read, and before lines are appended.
#[async_trait]
impl SinkHook for Hang {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        match call {
            SinkCall::Put(_, content, _) => {
                let stream = std::mem::replace(content, Content::from_bytes(Bytes::new())).into_stream();
                let chunks: Vec<Bytes> = stream.try_collect().await?;
                self.enter(Step::Commit).await;
                *content = Content::from_bytes(chunks.concat());
            }
            SinkCall::Append => self.enter(Step::Append).await,
            SinkCall::Prepare | SinkCall::Finish => {}
        }
        Ok(())
    }
}

/// Starts an operation whose calls never return from this step, and waits until one has reached it.
async fn start_hanging(step: Step) -> (ExportEngine, Operation, MemorySink) {
    let hang = Hang { step, reached: watch::Sender::new(false) };
    let mut reached = hang.reached.subscribe();
    let sink = HookedSink::with_hook(hang.clone());
    let container = sink.inner.clone();
    let plan = Plan::default();
    plan.fail(&instance(0, 0, 3), &[ErrorKind::Unreadable]);
    let source = FaultySource { inner: HangingSource(archive(300), hang), plan };
    let engine = ExportEngine::builder(source).batch_size(10).build().unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    reached.wait_for(|reached| *reached).await.unwrap();
    (engine, started, container)
}

#[tokio::test(start_paused = true)]
async fn guarantee_8_cancel_does_not_wait_for_calls_and_commits_nothing() {
    for step in [Step::List, Step::Open, Step::Read, Step::Commit, Step::Append] {
        let (engine, started, sink) = start_hanging(step).await;
        let began = tokio::time::Instant::now();
        engine.cancel(started.operation_id).await.unwrap();
        let ended = engine.wait(started.operation_id).await.unwrap();
        assert_eq!((ended.status, ended.error.as_ref()), (OperationStatus::Canceled, None), "{step:?}");
        // The runner waits up to ten seconds for the log.
        assert!(began.elapsed() < Duration::from_secs(11), "{step:?}: {:?}", began.elapsed());
        let blobs = assert_exported(&archive(300), &sink, &ended).await;
        assert!(ended.results.exported as usize <= blobs, "{step:?}: {:?} of {blobs}", ended.results);
        match step {
            Step::List => assert_eq!(blobs, 9),
            Step::Open | Step::Read | Step::Commit => assert_eq!(blobs, 0, "{step:?}"),
            // What could not be logged is not counted.
            Step::Append => assert_eq!((ended.results.exported, ended.results.skipped), (0, 0)),
        }
        if step != Step::Append {
            assert_eq!(log_of(&sink, &ended).len() as u64, ended.results.skipped, "{step:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_8_a_shutdown_does_not_wait_for_calls_and_commits_nothing() {
    for step in [Step::List, Step::Open, Step::Read, Step::Commit] {
        let (engine, started, sink) = start_hanging(step).await;
        engine.shutdown(Duration::from_secs(1)).await;
        let left = engine.status(started.operation_id).await.unwrap();
        assert_eq!(left.status, OperationStatus::Running, "{step:?}: the operation cannot be resumed");
        let blobs = assert_exported(&archive(300), &sink, &left).await;
        assert_eq!(blobs, if step == Step::List { 9 } else { 0 }, "{step:?}");
    }
}

/// Blocks saves while `blocked` is set, as in a process that is paused or has lost its connection.
struct BlockedSaves {
    blocked: watch::Sender<bool>,
    /// Whether a save is blocked.
    waiting: AtomicBool,
}

#[async_trait]
impl StoreHook for BlockedSaves {
    async fn before_save(&self, _: &MemoryOperationStore, _: OperationId, _: &Checkpoint) -> Result<()> {
        let mut blocked = self.blocked.subscribe();
        self.waiting.store(*blocked.borrow(), SeqCst);
        let _ = blocked.wait_for(|blocked| !blocked).await;
        Ok(())
    }
}

/// When the saves of the first runner continue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    DuringTheSecondRun,
    AfterTheSecondRun,
    AfterACancel,
}

/// The first runner used to overwrite the status or the counts of an operation that the second one had ended. Its lease was
/// not checked then, because an operation that has ended has no lease.
#[tokio::test(start_paused = true)]
async fn guarantee_4_a_lapsed_lease_is_taken_over_while_its_runner_is_still_alive() {
    for when in [Release::DuringTheSecondRun, Release::AfterTheSecondRun, Release::AfterACancel] {
        let source = Arc::new(archive(2_000));
        let plan = Plan::default();
        let bad = [instance(1, 2, 3), instance(40, 0, 0)];
        for bad in &bad {
            plan.fail(bad, &[ErrorKind::Unreadable; 10]);
        }
        let sink = FaultySink::with_latency(Duration::from_millis(20));
        let shared = MemoryOperationStore::new();
        let hook = BlockedSaves { blocked: watch::Sender::new(false), waiting: AtomicBool::new(false) };
        let blocked = Arc::new(HookedStore { inner: shared.clone(), hook });
        let build = |store: Arc<dyn OperationStore>| {
            ExportEngine::builder(FaultySource { inner: Arc::clone(&source), plan: plan.clone() })
                .destination("azureblob", FaultySinkProvider(sink.clone()))
                .operation_store(store)
                .batch_size(20)
                .checkpoint_interval(Duration::from_millis(50))
                .lease_duration(Duration::from_millis(100))
                .build()
                .unwrap()
        };
        let (first, second) = (build(blocked.clone()), build(Arc::new(shared.clone())));
        let destination = ExportDestination::azure_blob("https://a.blob.core.windows.net/b");
        let new = NewOperation::new(ExportSource::Everything, destination);
        let id = first.create(new).await.unwrap().operation_id;
        let runner = first.clone();
        let first_run = tokio::spawn(async move { runner.run(id).await });
        while first.status(id).await.unwrap().results.exported == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        blocked.hook.blocked.send_replace(true);
        while !blocked.hook.waiting.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The lease expires by the wall clock, which is not paused.
        while shared.load(id).await.unwrap().lease.is_some_and(|lease| lease.expires > Timestamp::now()) {
            std::thread::yield_now();
        }

        let counted = first.status(id).await.unwrap().results;
        assert!(counted.exported < 2_000, "{counted:?}");
        let release = || blocked.hook.blocked.send_replace(false);
        if when == Release::AfterACancel {
            second.cancel(id).await.unwrap();
            assert_eq!(second.status(id).await.unwrap().status, OperationStatus::Canceled);
            release();
        } else {
            assert_eq!(second.resume_all().await.unwrap(), [id]);
            if when == Release::DuringTheSecondRun {
                second.progress(id).unwrap().wait_for(|now| now.exported > counted.exported).await.unwrap();
                release();
            }
            assert_eq!(second.wait(id).await.unwrap().status, OperationStatus::Completed);
            release();
        }
        let stopped = first_run.await.unwrap().unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Conflict, "{when:?}: {stopped}");

        let ended = first.status(id).await.unwrap();
        assert_eq!(ended.error, None, "{when:?}");
        if when == Release::AfterACancel {
            assert_eq!((ended.status, ended.results), (OperationStatus::Canceled, counted));
            continue;
        }
        assert_eq!(ended.status, OperationStatus::Completed, "{when:?}");
        assert_eq!((ended.results.exported, ended.results.skipped), (1_998, 2), "{when:?}");
        assert_eq!(assert_exported(&source, &sink.inner, &ended).await, 1_998);
        let logged: std::collections::BTreeSet<_> =
            log_of(&sink.inner, &ended).iter().map(|entry| entry.identifier().to_owned()).collect();
        assert_eq!(logged, bad.iter().map(ToString::to_string).collect());
    }
}
