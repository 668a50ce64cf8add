//! Calls that do not come back: what they must not hold up, and a runner that comes back too late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{Instance, ListRequest, Page};
use dicom_export::store::{Checkpoint, MemoryOperationStore, OperationKey, OperationStore};
use dicom_export::{
    Content, ErrorKind, ExportDestination, ExportEngine, ExportSource, InstanceSource, MemorySink,
    NewOperation, Operation, OperationId, OperationSpec, OperationStatus, Result, Timestamp,
};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::watch;

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};
use crate::support::{FaultySink, FaultySource, Plan, Shared, archive, assert_exported, instance, log_of};

/// Where calls can be held up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    List,
    Open,
    Read,
    Commit,
    Append,
}

/// Holds up every call at one place, and tells that one has come there.
#[derive(Clone)]
struct Hold {
    at: At,
    come: watch::Sender<bool>,
}

impl Hold {
    async fn pass(&self, here: At) {
        if self.at == here {
            self.come.send_replace(true);
            std::future::pending().await
        }
    }
}

struct HeldSource<S>(S, Hold);

#[async_trait]
impl<S: InstanceSource> InstanceSource for HeldSource<S> {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        if request.after.is_some() {
            self.1.pass(At::List).await;
        }
        self.0.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.1.pass(At::Open).await;
        let content = self.0.open(instance).await?;
        let (length, hold) = (content.length(), self.1.clone());
        let chunks = content.into_stream().then(move |chunk| {
            let hold = hold.clone();
            async move {
                hold.pass(At::Read).await;
                chunk
            }
        });
        Ok(Content::from_stream(length, chunks))
    }
}

/// Blocks before a blob is committed, after its whole content has been read, and before lines are appended.
#[async_trait]
impl SinkHook for Hold {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        match call {
            SinkCall::Put(_, content, _) => {
                let stream = std::mem::replace(content, Content::from_bytes(Bytes::new())).into_stream();
                let chunks: Vec<Bytes> = stream.try_collect().await?;
                self.pass(At::Commit).await;
                *content = Content::from_bytes(chunks.concat());
            }
            SinkCall::Append => self.pass(At::Append).await,
            SinkCall::Prepare | SinkCall::Finish => {}
        }
        Ok(())
    }
}

/// An operation that is held up there; it has come there.
async fn held(at: At) -> (ExportEngine, Operation, MemorySink) {
    let hold = Hold { at, come: watch::Sender::new(false) };
    let mut come = hold.come.subscribe();
    let sink = HookedSink::with_hook(hold.clone());
    let container = sink.inner.clone();
    let plan = Plan::default();
    plan.fail(&instance(0, 0, 3), &[ErrorKind::Unreadable]);
    let source = FaultySource { inner: HeldSource(archive(300), hold), plan };
    let engine = ExportEngine::builder(source).batch_size(10).build().unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    come.wait_for(|come| *come).await.unwrap();
    (engine, started, container)
}

#[tokio::test(start_paused = true)]
async fn guarantee_8_cancel_waits_for_no_call_and_commits_nothing() {
    for at in [At::List, At::Open, At::Read, At::Commit, At::Append] {
        let (engine, started, sink) = held(at).await;
        let began = tokio::time::Instant::now();
        engine.cancel(started.operation_id).await.unwrap();
        let ended = engine.wait(started.operation_id).await.unwrap();
        assert_eq!((ended.status, ended.error.as_ref()), (OperationStatus::Canceled, None), "{at:?}");
        // A log that takes no lines is given ten seconds to come round.
        assert!(began.elapsed() < Duration::from_secs(11), "{at:?}: {:?}", began.elapsed());
        let there = assert_exported(&archive(300), &sink, &ended).await;
        assert!(ended.results.exported as usize <= there, "{at:?}: {:?} of {there}", ended.results);
        match at {
            At::List => assert_eq!(there, 9),
            At::Open | At::Read | At::Commit => assert_eq!(there, 0, "{at:?}"),
            // What could not be logged is not counted either.
            At::Append => assert_eq!((ended.results.exported, ended.results.skipped), (0, 0)),
        }
        if at != At::Append {
            assert_eq!(log_of(&sink, &ended).len() as u64, ended.results.skipped, "{at:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_8_a_shutdown_waits_for_no_call_and_commits_nothing() {
    for at in [At::List, At::Open, At::Read, At::Commit] {
        let (engine, started, sink) = held(at).await;
        engine.shutdown(Duration::from_secs(1)).await;
        let left = engine.status(started.operation_id).await.unwrap();
        assert_eq!(left.status, OperationStatus::Running, "{at:?}: it can be resumed");
        let there = assert_exported(&archive(300), &sink, &left).await;
        assert_eq!(there, if at == At::List { 9 } else { 0 }, "{at:?}");
    }
}

/// Lets no save through while it is stuck: a process that was paused, or cut off from a store that others reach.
struct StuckStore {
    inner: Arc<MemoryOperationStore>,
    stuck: watch::Sender<bool>,
    waiting: AtomicBool,
}

#[async_trait]
impl OperationStore for StuckStore {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        self.inner.create(spec, checkpoint).await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.inner.spec(id).await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.inner.load(id).await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        let mut stuck = self.stuck.subscribe();
        self.waiting.store(*stuck.borrow(), SeqCst);
        let _ = stuck.wait_for(|stuck| !stuck).await;
        self.inner.save(id, checkpoint).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        self.inner.list(after, limit).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        self.inner.delete(id).await
    }
}

/// When the runner that was stuck comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    WhileTheOtherRuns,
    AfterItsEnd,
    AfterItWasCanceled,
}

/// The first runner once wrote `failed`, or its own counts, over an operation that the second had ended: an operation
/// that has ended has no lease, and neither has the checkpoint that ends one.
#[tokio::test(start_paused = true)]
async fn guarantee_4_a_lapsed_lease_is_taken_over_while_its_runner_still_lives() {
    for back in [Back::WhileTheOtherRuns, Back::AfterItsEnd, Back::AfterItWasCanceled] {
        let source = Arc::new(archive(2_000));
        let plan = Plan::default();
        let bad = [instance(1, 2, 3), instance(40, 0, 0)];
        for bad in &bad {
            plan.fail(bad, &[ErrorKind::Unreadable; 10]);
        }
        let sink = FaultySink::with_latency(Duration::from_millis(20));
        let shared = Arc::new(MemoryOperationStore::new());
        let stuck = Arc::new(StuckStore {
            inner: Arc::clone(&shared),
            stuck: watch::Sender::new(false),
            waiting: AtomicBool::new(false),
        });
        let build = |store: Arc<dyn OperationStore>| {
            ExportEngine::builder(FaultySource { inner: Arc::clone(&source), plan: plan.clone() })
                .destination("azureblob", Shared(sink.clone()))
                .operation_store(store)
                .batch_size(20)
                .checkpoint_interval(Duration::from_millis(50))
                .lease_duration(Duration::from_millis(100))
                .build()
                .unwrap()
        };
        let (first, second) = (build(stuck.clone()), build(shared.clone()));
        let destination = ExportDestination::azure_blob("https://a.blob.core.windows.net/b");
        let new = NewOperation::new(ExportSource::Everything, destination);
        let id = first.create(new).await.unwrap().operation_id;
        let runner = first.clone();
        let first_run = tokio::spawn(async move { runner.run(id).await });
        while first.status(id).await.unwrap().results.exported == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stuck.stuck.send_replace(true);
        while !stuck.waiting.load(SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // Leases lapse by the wall clock.
        while shared.load(id).await.unwrap().lease.is_some_and(|lease| lease.expires > Timestamp::now()) {
            std::thread::yield_now();
        }

        let counted = first.status(id).await.unwrap().results;
        assert!(counted.exported < 2_000, "{counted:?}");
        let release = || stuck.stuck.send_replace(false);
        if back == Back::AfterItWasCanceled {
            second.cancel(id).await.unwrap();
            assert_eq!(second.status(id).await.unwrap().status, OperationStatus::Canceled);
            release();
        } else {
            assert_eq!(second.resume_all().await.unwrap(), [id]);
            if back == Back::WhileTheOtherRuns {
                second.progress(id).unwrap().wait_for(|now| now.exported > counted.exported).await.unwrap();
                release();
            }
            assert_eq!(second.wait(id).await.unwrap().status, OperationStatus::Completed);
            release();
        }
        let stopped = first_run.await.unwrap().unwrap_err();
        assert_eq!(stopped.kind(), ErrorKind::Conflict, "{back:?}: {stopped}");

        let ended = first.status(id).await.unwrap();
        assert_eq!(ended.error, None, "{back:?}");
        if back == Back::AfterItWasCanceled {
            assert_eq!((ended.status, ended.results), (OperationStatus::Canceled, counted));
            continue;
        }
        assert_eq!(ended.status, OperationStatus::Completed, "{back:?}");
        assert_eq!((ended.results.exported, ended.results.skipped), (1_998, 2), "{back:?}");
        assert_eq!(assert_exported(&source, &sink.inner, &ended).await, 1_998);
        let logged: std::collections::BTreeSet<_> =
            log_of(&sink.inner, &ended).iter().map(|entry| entry.identifier().to_owned()).collect();
        assert_eq!(logged, bad.iter().map(ToString::to_string).collect());
    }
}
