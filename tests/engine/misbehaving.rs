//! Sources, destinations and stores that break their contract, panic, or stop responding.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use dicom_export::source::{Cursor, Instance, ListRequest, Page};
use dicom_export::store::{MemoryOperationStore, OperationStore};
use dicom_export::{
    BlobSink, Concurrency, Content, Error, ErrorKind, ExportEngine, ExportSource, InstanceSource, MemorySink,
    MemorySource, NewOperation, Operation, OperationStatus, Result, RetryPolicy,
};
use futures::TryStreamExt;
use futures::future::join_all;
use tokio::time::timeout;

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};
use crate::support::{archive, instance, log_of};

const HOUR: Duration = Duration::from_secs(3600);

async fn export(engine: &ExportEngine, sink: impl BlobSink) -> Operation {
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    timeout(HOUR, engine.wait(started.operation_id)).await.expect("the export does not end").unwrap()
}

/// A source whose pages are created by a function of the number of the call and the page limit.
struct Pages<F>(F, AtomicUsize);

#[async_trait]
impl<F: Fn(usize, usize) -> Page + Send + Sync + 'static> InstanceSource for Pages<F> {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        Ok((self.0)(self.1.fetch_add(1, SeqCst), request.limit))
    }

    async fn open(&self, _: &Instance) -> Result<Content> {
        Ok(Content::from_bytes(&b"DICM"[..]))
    }
}

async fn failure_of(pages: impl Fn(usize, usize) -> Page + Send + Sync + 'static) -> String {
    let engine = ExportEngine::builder(Pages(pages, AtomicUsize::new(0))).batch_size(4).build().unwrap();
    let ended = export(&engine, MemorySink::new()).await;
    assert_eq!(ended.status, OperationStatus::Failed);
    let error = ended.error.unwrap();
    assert_eq!(error.code, "internal");
    error.message
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_listing_that_does_not_end_fails_the_operation_and_names_the_violation() {
    let one = |n: usize| vec![Instance::new(instance(1, 1, n))];
    let repeated = failure_of(move |n, _| Page::more(one(n), Cursor::new("a"))).await;
    assert!(repeated.contains("does not advance"), "{repeated}");
    let alternating = failure_of(move |n, _| Page::more(one(n), Cursor::new(["a", "b"][n % 2]))).await;
    assert!(alternating.contains("the same cursor twice"), "{alternating}");
    let long_cycle = failure_of(move |n, _| Page::more(Vec::new(), Cursor::new((n % 37).to_string()))).await;
    assert!(long_cycle.contains("the same cursor twice"), "{long_cycle}");
    let empty = failure_of(|n, _| Page::more(Vec::new(), Cursor::new(n.to_string()))).await;
    assert!(empty.contains("too many empty pages"), "{empty}");
    let too_long = failure_of(move |_, limit| {
        Page::last((0..=limit).map(|n| Instance::new(instance(1, 1, n))).collect())
    })
    .await;
    assert!(too_long.contains("above the limit of 4"), "{too_long}");
}

/// One content of unknown length does not end.
struct Endless(MemorySource);

#[async_trait]
impl InstanceSource for Endless {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let mut page = self.0.list(request).await?;
        page.instances = page.instances.iter().map(|one| Instance::new(one.identifier().clone())).collect();
        Ok(page)
    }

    async fn open(&self, listed: &Instance) -> Result<Content> {
        if *listed.identifier() == instance(0, 0, 2) {
            return Ok(Content::from_stream(
                None,
                futures::stream::repeat_with(|| Ok(vec![0; 1 << 16].into())),
            ));
        }
        self.0.open(listed).await
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_2_an_instance_that_is_too_large_for_the_destination_is_skipped() {
    let sink = HookedSink::with_hook(Misbehaves::HasLimit(10 << 20));
    let engine = ExportEngine::builder(Endless(archive(5))).build().unwrap();
    let ended = export(&engine, sink.clone()).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    assert_eq!((ended.results.exported, ended.results.skipped), (4, 1));
    let log = log_of(&sink.inner, &ended);
    assert_eq!(log[0].identifier(), instance(0, 0, 2).to_string());
    assert_eq!(log[0].error(), "the instance is too large");
}

/// The message of the source's error has 4 MiB, and characters of several bytes.
#[tokio::test(start_paused = true)]
async fn guarantee_2_a_long_message_of_the_source_is_shortened() {
    let source = Misworded(archive(5));
    let sink = MemorySink::new();
    let ended = export(&ExportEngine::builder(source).build().unwrap(), sink.clone()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 4));
    let log = log_of(&sink, &ended);
    assert_eq!(log[0].identifier(), instance(0, 0, 2).to_string());
    assert!(log[0].error().len() <= 4096 && log[0].error().ends_with("é…"), "{}", log[0].error().len());
}

struct Misworded(MemorySource);

#[async_trait]
impl InstanceSource for Misworded {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.0.list(request).await
    }

    async fn open(&self, listed: &Instance) -> Result<Content> {
        if *listed.identifier() == instance(0, 0, 2) {
            return Err(Error::new(ErrorKind::Unreadable, "é".repeat(2 << 20)));
        }
        self.0.open(listed).await
    }
}

/// Panics in the selected methods.
struct Panicking {
    inner: MemorySource,
    open: bool,
    read: bool,
    estimate: bool,
    list: bool,
}

impl Panicking {
    fn new() -> Self {
        Self { inner: archive(5), open: false, read: false, estimate: false, list: false }
    }
}

#[async_trait]
impl InstanceSource for Panicking {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        assert!(!self.list, "the host's list");
        self.inner.list(request).await
    }

    async fn open(&self, listed: &Instance) -> Result<Content> {
        let is_bad = *listed.identifier() == instance(0, 0, 2);
        assert!(!(self.open && is_bad), "the host's open");
        let content = self.inner.open(listed).await?;
        if self.read && is_bad {
            let chunks = futures::stream::poll_fn(|_| panic!("the host's stream"));
            return Ok(Content::from_stream(content.length(), chunks));
        }
        Ok(content)
    }

    async fn estimate(&self, _: &ExportSource) -> Result<Option<u64>> {
        assert!(!self.estimate, "the host's estimate");
        Ok(None)
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_2_a_panic_while_one_instance_is_read_skips_that_instance() {
    for source in [Panicking { open: true, ..Panicking::new() }, Panicking { read: true, ..Panicking::new() }]
    {
        let sink = MemorySink::new();
        let ended = export(&ExportEngine::builder(source).build().unwrap(), sink.clone()).await;
        assert_eq!(ended.status, OperationStatus::Completed);
        assert_eq!((ended.results.exported, ended.results.skipped), (4, 1));
        let log = log_of(&sink, &ended);
        assert_eq!(log[0].identifier(), instance(0, 0, 2).to_string());
        assert_eq!(log[0].error(), "the source panicked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_estimate_is_ignored() {
    let source = Panicking { estimate: true, ..Panicking::new() };
    let ended = export(&ExportEngine::builder(source).build().unwrap(), MemorySink::new()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 5));
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_panic_of_the_listing_or_of_the_sink_fails_the_operation() {
    let source = Panicking { list: true, ..Panicking::new() };
    let ended = export(&ExportEngine::builder(source).build().unwrap(), MemorySink::new()).await;
    assert_eq!(ended.status, OperationStatus::Failed);
    assert_eq!(ended.error.unwrap().code, "internal");
    for hook in [Misbehaves::PanicsInAppend, Misbehaves::PanicsInFinish] {
        // An instance is skipped, so that there is a line to append.
        let source = Panicking { open: true, ..Panicking::new() };
        let engine = ExportEngine::builder(source).build().unwrap();
        let ended = export(&engine, HookedSink::with_hook(hook)).await;
        assert_eq!(ended.status, OperationStatus::Failed, "{hook:?}");
        assert_eq!(ended.error.unwrap().code, "internal");
    }
}

/// The call in which a sink misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Misbehaves {
    PanicsInAppend,
    PanicsInFinish,
    /// `put` never returns. It holds the memory that is reserved for it.
    HangsInPut,
    HangsInPrepare,
    /// `put` accepts at most this number of bytes.
    HasLimit(usize),
}

#[async_trait]
impl SinkHook for Misbehaves {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        match (call, self) {
            (SinkCall::Put(_, content, _), Self::HasLimit(limit)) => {
                let mut read = BytesMut::new();
                let mut chunks = std::mem::replace(content, Content::from_bytes(Bytes::new())).into_stream();
                while let Some(chunk) = chunks.try_next().await? {
                    read.extend_from_slice(&chunk);
                    if read.len() > *limit {
                        return Err(Error::new(ErrorKind::TooLarge, "the instance is too large"));
                    }
                }
                *content = Content::from_bytes(read.freeze());
                return Ok(());
            }
            (SinkCall::Append, Self::PanicsInAppend) => panic!("the host's append"),
            (SinkCall::Finish, Self::PanicsInFinish) => panic!("the host's finish"),
            (SinkCall::Put(..), Self::HangsInPut) | (SinkCall::Prepare, Self::HangsInPrepare) => {
                std::future::pending().await
            }
            _ => Ok(()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_destinations_that_do_not_respond_leave_memory_for_others() {
    for dead in 1..=8 {
        let source: MemorySource = (0..40).map(|n| (instance(1, 1, n), vec![7; 8 << 10].into())).collect();
        let engine = ExportEngine::builder(Arc::new(source))
            .memory_budget(128 << 10)
            .concurrency(Concurrency::Fixed(64))
            .build()
            .unwrap();
        for _ in 0..dead {
            let sink = HookedSink::with_hook(Misbehaves::HangsInPut);
            engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
            // The operation reserves as much memory as it can before the next one starts.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let ended = export(&engine, MemorySink::new()).await;
        assert_eq!(
            (ended.status, ended.results.exported),
            (OperationStatus::Completed, 40),
            "with {dead} destinations that do not respond"
        );
        engine.shutdown(Duration::ZERO).await;
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_start_at_a_destination_that_does_not_respond_is_rejected_and_delays_no_shutdown() {
    let engine = ExportEngine::builder(archive(1)).build().unwrap();
    let sink = HookedSink::with_hook(Misbehaves::HangsInPrepare);
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink.clone()));
    let error =
        timeout(Duration::from_secs(31), started).await.expect("the start has no deadline").unwrap_err();
    assert_eq!((error.kind(), error.pointer()), (ErrorKind::Invalid, Some("/destination")));

    let starting = engine.clone();
    let start =
        tokio::spawn(async move { starting.start(NewOperation::new(ExportSource::Everything, sink)).await });
    tokio::task::yield_now().await;
    timeout(Duration::from_secs(7), engine.shutdown(Duration::from_secs(1)))
        .await
        .expect("the shutdown takes too long");
    assert_eq!(start.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
}

/// A source in which one instance cannot be opened.
struct OneUnavailable(MemorySource);

#[async_trait]
impl InstanceSource for OneUnavailable {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.0.list(request).await
    }

    async fn open(&self, listed: &Instance) -> Result<Content> {
        if *listed.identifier() == instance(0, 0, 2) {
            return Err(Error::new(ErrorKind::Unavailable, "the archive responded with status 500"));
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.0.open(listed).await
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_2_an_instance_that_cannot_be_opened_while_others_can_is_skipped() {
    let sink = MemorySink::new();
    let engine = ExportEngine::builder(OneUnavailable(archive(200)))
        .concurrency(Concurrency::Fixed(2))
        .build()
        .unwrap();
    let ended = export(&engine, sink.clone()).await;
    assert_eq!(ended.status, OperationStatus::Completed);
    assert_eq!((ended.results.exported, ended.results.skipped), (199, 1));
    let log = log_of(&sink, &ended);
    assert_eq!(log[0].identifier(), instance(0, 0, 2).to_string());
    assert_eq!(log[0].error(), "the archive responded with status 500");
}

/// The first request is throttled, with this `Retry-After`.
struct ThrottlesOnce(AtomicUsize, Duration);

#[async_trait]
impl SinkHook for ThrottlesOnce {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        let SinkCall::Put(_, _, upload) = call else { return Ok(()) };
        upload
            .send_with_retry(async || match self.0.fetch_add(1, SeqCst) {
                0 => Err(Error::new(ErrorKind::Throttled, "busy").with_retry_after(self.1)),
                _ => Ok(()),
            })
            .await
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_9_a_very_long_retry_after_delays_an_export_by_at_most_half_a_minute() {
    for retry_after in [Duration::from_secs(3600), Duration::from_secs(u64::MAX)] {
        for concurrency in [Concurrency::Auto, Concurrency::Fixed(4)] {
            let engine = ExportEngine::builder(archive(50)).concurrency(concurrency).build().unwrap();
            let sink = HookedSink::with_hook(ThrottlesOnce(AtomicUsize::new(0), retry_after));
            let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
            let ended = timeout(Duration::from_secs(60), engine.wait(started.operation_id)).await;
            let ended = ended.expect("the pause is too long").unwrap();
            assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 50));
        }
    }
}

#[tokio::test]
async fn guarantee_9_one_of_several_concurrent_resumptions_succeeds_and_the_operation_completes() {
    for round in 0..50 {
        let store = MemoryOperationStore::new();
        let sink = MemorySink::new();
        let engine = || {
            ExportEngine::builder(archive(20))
                .operation_store(store.clone())
                .retry(RetryPolicy::none())
                .takeover_interval(None)
                .build()
                .unwrap()
        };
        let bad = HookedSink { inner: sink.clone(), hook: Misbehaves::PanicsInAppend };
        let first = engine();
        let unknown = ExportSource::identifiers(["1.2.0".parse().unwrap(), "9.9".parse().unwrap()]).unwrap();
        let started = first.start(NewOperation::new(unknown, bad)).await.unwrap();
        let id = started.operation_id;
        assert_eq!(first.wait(id).await.unwrap().status, OperationStatus::Failed);

        // Two in one process, one in another.
        let second = engine();
        let resumes = [&first, &first, &second].map(|engine| engine.resume(id, Some(sink.clone().into())));
        let outcomes = join_all(resumes).await;
        let won = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(won, 1, "round {round}: {outcomes:?}");
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::Conflict);
        }
        let ended = timeout(HOUR, second.wait(id)).await.expect("the operation does not end").unwrap();
        assert_eq!(ended.status, OperationStatus::Completed);
        assert_eq!((ended.results.exported, ended.results.skipped), (20, 1));
    }
}

#[tokio::test]
async fn guarantee_9_an_operation_without_a_runner_is_taken_over() {
    let store = MemoryOperationStore::new();
    let sink = MemorySink::new();
    let engine = || {
        let sink = sink.clone();
        ExportEngine::builder(archive(20))
            .destination("azureblob", sink.provider())
            .operation_store(store.clone())
            .lease_duration(Duration::from_millis(60))
            .takeover_interval(Some(Duration::from_millis(10)))
            .build()
            .unwrap()
    };
    let destination = dicom_export::ExportDestination::azure_blob("https://a.blob.core.windows.net/c");
    let id = {
        // This engine creates the operation and never runs it.
        let first = engine();
        first.create(NewOperation::new(ExportSource::Everything, destination)).await.unwrap().operation_id
    };
    let mut checkpoint = store.load(id).await.unwrap();
    checkpoint.status = OperationStatus::Running;
    let now = dicom_export::Timestamp::now();
    checkpoint.lease = Some(dicom_export::store::Lease::new("killed", now, Duration::from_millis(60)));
    store.save(id, &checkpoint).await.unwrap();

    // `resume_all` is called once, before the lease expires, as by a process that is restarted immediately.
    let next = engine();
    assert_eq!(next.resume_all().await.unwrap(), []);
    let ended = timeout(HOUR, next.wait(id)).await.expect("the operation is not taken over").unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 20));
    next.shutdown(Duration::ZERO).await;
}
