//! Copies at the destination, and the fallback to streaming.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::{LogKey, PutResult};
use dicom_export::source::{CopySource, Instance, ListRequest, Page};
use dicom_export::{
    BlobPath, BlobSink, Checksums, Concurrency, Content, Error, ErrorKind, ExportEngine, ExportEngineBuilder,
    ExportSource, InstanceSource, MemorySink, MemorySource, NewOperation, Operation, OperationStatus, Result,
    RetryPolicy, UploadContext,
};

use crate::support::{archive, assert_exported, instance, log_of};

/// The prefix of the URLs to copy from. The identifier of the instance follows.
const URL: &str = "https://source.example/secret/";

/// A source that returns a URL for every instance, and counts the calls.
struct SigningSource {
    inner: Arc<MemorySource>,
    /// The errors of the next calls of `copy_url`, the last one first.
    failures: Mutex<Vec<ErrorKind>>,
    signed: AtomicUsize,
    opened: AtomicUsize,
}

impl SigningSource {
    fn new(inner: &Arc<MemorySource>) -> Arc<Self> {
        let (signed, opened) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { inner: Arc::clone(inner), failures: Mutex::default(), signed, opened })
    }
}

#[async_trait]
impl InstanceSource for SigningSource {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.inner.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.opened.fetch_add(1, SeqCst);
        self.inner.open(instance).await
    }

    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        self.signed.fetch_add(1, SeqCst);
        if let Some(kind) = self.failures.lock().unwrap().pop() {
            return Err(Error::new(kind, "planned failure"));
        }
        let length = instance.size().unwrap();
        Ok(Some(CopySource::new(format!("{URL}{}", instance.identifier()), length)))
    }
}

/// The result of `copy_from`.
#[derive(Clone, Copy)]
enum CopyOutcome {
    Copied,
    /// The copy is one byte shorter than its source.
    Short,
    Refused,
    Failed(ErrorKind),
}

/// A sink that copies from a source, and counts the calls.
#[derive(Clone)]
struct CopyingSink {
    inner: MemorySink,
    source: Arc<MemorySource>,
    outcome: Arc<dyn Fn(usize) -> CopyOutcome + Send + Sync>,
    copies: Arc<AtomicUsize>,
    puts: Arc<AtomicUsize>,
    /// The number of calls of `buffer_size`.
    reservations: Arc<AtomicUsize>,
}

impl CopyingSink {
    fn new(
        source: &Arc<MemorySource>,
        outcome: impl Fn(usize) -> CopyOutcome + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: MemorySink::new(),
            source: Arc::clone(source),
            outcome: Arc::new(outcome),
            copies: Arc::default(),
            puts: Arc::default(),
            reservations: Arc::default(),
        }
    }
}

#[async_trait]
impl BlobSink for CopyingSink {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.inner.prepare(log).await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        self.puts.fetch_add(1, SeqCst);
        self.inner.put(path, content, upload).await
    }

    async fn copy_from(
        &self,
        path: &BlobPath,
        source: &CopySource,
        upload: &UploadContext,
    ) -> Result<Option<PutResult>> {
        assert_eq!(upload.buffer_limit(), 0, "a copy reserves no memory");
        let call = self.copies.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
        let size = match (self.outcome)(call) {
            CopyOutcome::Refused => return Ok(None),
            CopyOutcome::Failed(kind) => return Err(Error::new(kind, "planned failure")),
            CopyOutcome::Short => source.length() - 1,
            CopyOutcome::Copied => source.length(),
        };
        let identifier = source.expose_url().strip_prefix(URL).unwrap().parse().unwrap();
        let Ok(content) = self.source.open(&Instance::new(identifier)).await else { return Ok(None) };
        self.inner.put(path, content, upload).await?;
        Ok(Some(PutResult::new(size)))
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.inner.append(log, key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        self.inner.finish(log).await
    }

    fn url(&self, path: &BlobPath) -> String {
        self.inner.url(path)
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        self.reservations.fetch_add(1, SeqCst);
        length.unwrap()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

/// Exports everything, one instance at a time. The source and the sink are behind several pointers, which forward the calls.
async fn export(source: &Arc<SigningSource>, sink: &CopyingSink, retry: RetryPolicy) -> Operation {
    export_with(source, sink, |engine| engine.retry(retry)).await
}

async fn export_with(
    source: &Arc<SigningSource>,
    sink: &CopyingSink,
    with: impl FnOnce(ExportEngineBuilder) -> ExportEngineBuilder,
) -> Operation {
    let engine = ExportEngine::builder(Box::new(Arc::clone(source))).concurrency(Concurrency::Fixed(1));
    let engine = with(engine).build().unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(Box::new(Arc::new(sink.clone())));
    let operation = NewOperation::new(ExportSource::Everything, sink);
    let id = engine.start(operation).await.unwrap().operation_id;
    engine.wait(id).await.unwrap()
}

fn counts(source: &SigningSource, sink: &CopyingSink) -> (usize, usize, usize, usize) {
    let count = |of: &AtomicUsize| of.load(SeqCst);
    (count(&source.signed), count(&sink.copies), count(&source.opened), count(&sink.puts))
}

#[tokio::test(start_paused = true)]
async fn instances_that_can_be_copied_are_not_opened() {
    let held = Arc::new(archive(100));
    let (source, sink) = (SigningSource::new(&held), CopyingSink::new(&held, |_| CopyOutcome::Copied));
    let ended = export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 100));
    assert_eq!(counts(&source, &sink), (100, 100, 0, 0));
    assert_eq!(sink.reservations.load(SeqCst), 0, "a copy reserves no memory");
    assert_eq!(assert_exported(&*held, &sink.inner, &ended).await, 100);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_refused_is_streamed() {
    let held = Arc::new(archive(100));
    let outcome = |call| if call % 3 == 2 { CopyOutcome::Copied } else { CopyOutcome::Refused };
    let (source, sink) = (SigningSource::new(&held), CopyingSink::new(&held, outcome));
    let ended = export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 100));
    assert_eq!(counts(&source, &sink), (100, 100, 67, 67));
    assert_eq!(assert_exported(&*held, &sink.inner, &ended).await, 100);
}

#[tokio::test(start_paused = true)]
async fn after_three_refusals_in_a_row_the_run_streams() {
    let held = Arc::new(archive(100));
    let (source, sink) = (SigningSource::new(&held), CopyingSink::new(&held, |_| CopyOutcome::Refused));
    let ended = export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 100));
    assert_eq!(counts(&source, &sink), (3, 3, 100, 100));
    // The next run tries again.
    export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!(counts(&source, &sink), (6, 6, 200, 200));
}

/// A study that is deleted during the export causes many refusals in a row. The other instances can still be copied.
#[tokio::test(start_paused = true)]
async fn deleted_instances_are_skipped_and_do_not_disable_copying() {
    let held = Arc::new(archive(100));
    let source = SigningSource::new(&held);
    let deleted = Arc::clone(&held);
    let sink = CopyingSink::new(&held, move |call| {
        if call == 10 {
            (0..20).for_each(|n| assert!(deleted.remove(&instance(1, n / 10, n % 10))));
        }
        CopyOutcome::Copied
    });
    let ended = export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!(ended.status, OperationStatus::Completed);
    assert_eq!((ended.results.exported, ended.results.skipped), (80, 20));
    assert_eq!(counts(&source, &sink), (100, 100, 20, 0));
    let logged: BTreeSet<_> =
        log_of(&sink.inner, &ended).into_iter().map(|line| line.identifier().to_owned()).collect();
    assert_eq!(logged, (0..20).map(|n| instance(1, n / 10, n % 10).to_string()).collect());
    assert_exported(&*held, &sink.inner, &ended).await;
}

#[tokio::test(start_paused = true)]
async fn transient_failures_are_retried() {
    let held = Arc::new(archive(10));
    let outcome = |call| match call {
        1 | 2 => CopyOutcome::Failed(ErrorKind::Unavailable),
        5 => CopyOutcome::Failed(ErrorKind::Throttled),
        _ => CopyOutcome::Copied,
    };
    let (source, sink) = (SigningSource::new(&held), CopyingSink::new(&held, outcome));
    *source.failures.lock().unwrap() = vec![ErrorKind::Throttled, ErrorKind::Unavailable];
    let ended = export(&source, &sink, RetryPolicy::with_budget(Duration::from_secs(60))).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 10));
    // Each attempt requests a new URL.
    assert_eq!(counts(&source, &sink), (15, 13, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_destination_failure_fails_the_operation() {
    for kind in [ErrorKind::Unauthorized, ErrorKind::Unavailable, ErrorKind::Conflict] {
        let held = Arc::new(archive(10));
        let outcome = move |call| if call < 4 { CopyOutcome::Copied } else { CopyOutcome::Failed(kind) };
        let (source, sink) = (SigningSource::new(&held), CopyingSink::new(&held, outcome));
        let ended = export(&source, &sink, RetryPolicy::none()).await;
        assert_eq!(ended.status, OperationStatus::Failed);
        assert_eq!(ended.error.unwrap().code, kind.as_str());
        assert_eq!(counts(&source, &sink), (5, 5, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_sign_is_streamed() {
    let held = Arc::new(archive(10));
    let (source, sink) = (SigningSource::new(&held), CopyingSink::new(&held, |_| CopyOutcome::Copied));
    *source.failures.lock().unwrap() = vec![ErrorKind::Unauthorized; 10];
    let ended = export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 10));
    assert_eq!(counts(&source, &sink), (3, 0, 10, 10));
}

#[tokio::test(start_paused = true)]
async fn a_copy_with_the_wrong_length_fails_the_operation() {
    let held = Arc::new(archive(1));
    let (source, sink) = (SigningSource::new(&held), CopyingSink::new(&held, |_| CopyOutcome::Short));
    let ended = export(&source, &sink, RetryPolicy::none()).await;
    assert_eq!(ended.error.unwrap().code, "internal");
}

#[tokio::test(start_paused = true)]
async fn instances_to_verify_are_streamed() {
    let held = Arc::new(archive(10));
    let (source, sink) = (SigningSource::new(&held), CopyingSink::new(&held, |_| CopyOutcome::Copied));
    for (checksums, manifest, copied, streamed) in [
        (Checksums::Always, false, 0, 10),
        (Checksums::Sent, true, 0, 20),
        (Checksums::Sent, false, 10, 20),
        (Checksums::Off, false, 20, 20),
    ] {
        let ended =
            export_with(&source, &sink, |engine| engine.checksums(checksums).manifest(manifest)).await;
        assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 10));
        assert_eq!(counts(&source, &sink), (copied, copied, streamed, streamed), "{checksums:?}");
    }
}

#[test]
fn a_copy_source_hides_its_url() {
    let source = CopySource::new("https://host/blob?sig=secret", 7).with_etag("tag");
    assert_eq!((source.length(), source.etag()), (7, Some("tag")));
    assert_eq!(source.expose_url(), "https://host/blob?sig=secret");
    assert_eq!(format!("{source:?}"), "CopySource { length: 7, .. }");
}
