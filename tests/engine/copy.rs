//! Copies at the destination: used where both sides can, given up where they do not work, and never the end of an
//! instance that can be streamed.

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

/// Stands in for a signed URL: its last part is what a destination finds the instance by.
const URL: &str = "https://source.example/secret/";

/// Gives every instance a URL, and counts what is asked of it.
struct Signing {
    inner: Arc<MemorySource>,
    /// What `copy_url` fails with, one call after the other.
    trouble: Mutex<Vec<ErrorKind>>,
    signed: AtomicUsize,
    opened: AtomicUsize,
}

impl Signing {
    fn over(inner: &Arc<MemorySource>) -> Arc<Self> {
        let (signed, opened) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { inner: Arc::clone(inner), trouble: Mutex::default(), signed, opened })
    }
}

#[async_trait]
impl InstanceSource for Signing {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.inner.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.opened.fetch_add(1, SeqCst);
        self.inner.open(instance).await
    }

    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        self.signed.fetch_add(1, SeqCst);
        if let Some(kind) = self.trouble.lock().unwrap().pop() {
            return Err(Error::new(kind, "planned trouble"));
        }
        let length = instance.size().unwrap();
        Ok(Some(CopySource::new(format!("{URL}{}", instance.identifier()), length)))
    }
}

/// What `copy_from` answers.
#[derive(Clone, Copy)]
enum Answer {
    Copied,
    /// So many bytes too few.
    Short,
    Refused,
    Failed(ErrorKind),
}

/// Fetches from the source behind it.
#[derive(Clone)]
struct Copying {
    inner: MemorySink,
    source: Arc<MemorySource>,
    answer: Arc<dyn Fn(usize) -> Answer + Send + Sync>,
    asked: Arc<AtomicUsize>,
    put: Arc<AtomicUsize>,
    /// How often bytes were booked.
    booked: Arc<AtomicUsize>,
}

impl Copying {
    fn from(source: &Arc<MemorySource>, answer: impl Fn(usize) -> Answer + Send + Sync + 'static) -> Self {
        Self {
            inner: MemorySink::new(),
            source: Arc::clone(source),
            answer: Arc::new(answer),
            asked: Arc::default(),
            put: Arc::default(),
            booked: Arc::default(),
        }
    }
}

#[async_trait]
impl BlobSink for Copying {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.inner.prepare(log).await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        self.put.fetch_add(1, SeqCst);
        self.inner.put(path, content, upload).await
    }

    async fn copy_from(
        &self,
        path: &BlobPath,
        source: &CopySource,
        upload: &UploadContext,
    ) -> Result<Option<PutResult>> {
        assert_eq!(upload.buffer_limit(), 0, "a copy holds nothing");
        let call = self.asked.fetch_add(1, SeqCst);
        tokio::task::yield_now().await;
        let size = match (self.answer)(call) {
            Answer::Refused => return Ok(None),
            Answer::Failed(kind) => return Err(Error::new(kind, "planned trouble")),
            Answer::Short => source.length() - 1,
            Answer::Copied => source.length(),
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
        self.booked.fetch_add(1, SeqCst);
        length.unwrap()
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}

/// Exports everything, one instance after the other, through pointers to both sides.
async fn export(source: &Arc<Signing>, sink: &Copying, retry: RetryPolicy) -> Operation {
    export_with(source, sink, |engine| engine.retry(retry)).await
}

async fn export_with(
    source: &Arc<Signing>,
    sink: &Copying,
    with: impl FnOnce(ExportEngineBuilder) -> ExportEngineBuilder,
) -> Operation {
    let engine = ExportEngine::builder(Box::new(Arc::clone(source))).concurrency(Concurrency::Fixed(1));
    let engine = with(engine).build().unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(Box::new(Arc::new(sink.clone())));
    let operation = NewOperation::new(ExportSource::Everything, sink);
    let id = engine.start(operation).await.unwrap().operation_id;
    engine.wait(id).await.unwrap()
}

fn counts(source: &Signing, sink: &Copying) -> (usize, usize, usize, usize) {
    let count = |of: &AtomicUsize| of.load(SeqCst);
    (count(&source.signed), count(&sink.asked), count(&source.opened), count(&sink.put))
}

#[tokio::test(start_paused = true)]
async fn instances_that_can_be_copied_are_not_opened() {
    let held = Arc::new(archive(100));
    let (source, sink) = (Signing::over(&held), Copying::from(&held, |_| Answer::Copied));
    let ended = export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 100));
    assert_eq!(counts(&source, &sink), (100, 100, 0, 0));
    assert_eq!(sink.booked.load(SeqCst), 0, "a copy takes none of the byte budget");
    assert_eq!(assert_exported(&*held, &sink.inner, &ended).await, 100);
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_refused_is_streamed() {
    let held = Arc::new(archive(100));
    let answer = |call| if call % 3 == 2 { Answer::Copied } else { Answer::Refused };
    let (source, sink) = (Signing::over(&held), Copying::from(&held, answer));
    let ended = export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 100));
    assert_eq!(counts(&source, &sink), (100, 100, 67, 67));
    assert_eq!(assert_exported(&*held, &sink.inner, &ended).await, 100);
}

#[tokio::test(start_paused = true)]
async fn after_three_refusals_in_a_row_the_run_streams() {
    let held = Arc::new(archive(100));
    let (source, sink) = (Signing::over(&held), Copying::from(&held, |_| Answer::Refused));
    let ended = export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 100));
    assert_eq!(counts(&source, &sink), (3, 3, 100, 100));
    // The next run tries again.
    export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!(counts(&source, &sink), (6, 6, 200, 200));
}

/// A study that is deleted meanwhile makes many refusals in a row, and says nothing about the rest.
#[tokio::test(start_paused = true)]
async fn instances_that_are_gone_are_skipped_and_do_not_end_copying() {
    let held = Arc::new(archive(100));
    let source = Signing::over(&held);
    let deleted = Arc::clone(&held);
    let sink = Copying::from(&held, move |call| {
        if call == 10 {
            (0..20).for_each(|n| assert!(deleted.remove(&instance(1, n / 10, n % 10))));
        }
        Answer::Copied
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
    let answer = |call| match call {
        1 | 2 => Answer::Failed(ErrorKind::Unavailable),
        5 => Answer::Failed(ErrorKind::Throttled),
        _ => Answer::Copied,
    };
    let (source, sink) = (Signing::over(&held), Copying::from(&held, answer));
    *source.trouble.lock().unwrap() = vec![ErrorKind::Throttled, ErrorKind::Unavailable];
    let ended = export(&source, &sink, RetryPolicy::with_budget(Duration::from_secs(60))).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 10));
    // Each try has a URL of its own.
    assert_eq!(counts(&source, &sink), (15, 13, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_destination_failure_fails_the_operation() {
    for kind in [ErrorKind::Unauthorized, ErrorKind::Unavailable, ErrorKind::Conflict] {
        let held = Arc::new(archive(10));
        let answer = move |call| if call < 4 { Answer::Copied } else { Answer::Failed(kind) };
        let (source, sink) = (Signing::over(&held), Copying::from(&held, answer));
        let ended = export(&source, &sink, RetryPolicy::none()).await;
        assert_eq!(ended.status, OperationStatus::Failed);
        assert_eq!(ended.error.unwrap().code, kind.as_str());
        assert_eq!(counts(&source, &sink), (5, 5, 0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_cannot_sign_is_streamed() {
    let held = Arc::new(archive(10));
    let (source, sink) = (Signing::over(&held), Copying::from(&held, |_| Answer::Copied));
    *source.trouble.lock().unwrap() = vec![ErrorKind::Unauthorized; 10];
    let ended = export(&source, &sink, RetryPolicy::default()).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 10));
    assert_eq!(counts(&source, &sink), (3, 0, 10, 10));
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_another_length_fails() {
    let held = Arc::new(archive(1));
    let (source, sink) = (Signing::over(&held), Copying::from(&held, |_| Answer::Short));
    let ended = export(&source, &sink, RetryPolicy::none()).await;
    assert_eq!(ended.error.unwrap().code, "internal");
}

#[tokio::test(start_paused = true)]
async fn instances_to_verify_are_streamed() {
    let held = Arc::new(archive(10));
    let (source, sink) = (Signing::over(&held), Copying::from(&held, |_| Answer::Copied));
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
