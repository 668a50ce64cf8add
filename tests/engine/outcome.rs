//! What an operation exports and skips, and what makes it fail.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use dicom_export::source::{Cursor, Instance, ListFailure, ListRequest, ListWarning, Page};
use dicom_export::{
    BlobSink, Content, Error, ErrorKind, ExportDestination, ExportEngine, ExportRequest, ExportSource,
    InstanceSource, MemorySink, MemorySource, NewOperation, OperationStatus, Result, RetryPolicy,
};

use crate::support::{FaultySink, FaultySource, Plan, archive, assert_exported, instance, log_of};

fn to(sink: &(impl BlobSink + Clone)) -> Arc<dyn BlobSink> {
    Arc::new(sink.clone())
}

#[tokio::test]
async fn guarantee_1_and_2_everything_is_exported_byte_for_byte() {
    let source = Arc::new(archive(1_000));
    let sink = MemorySink::new();
    let engine = ExportEngine::builder(Arc::clone(&source)).batch_size(64).build().unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, to(&sink))).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();

    assert_eq!(ended.status, OperationStatus::Completed);
    assert_eq!((ended.results.exported, ended.results.skipped), (1_000, 0));
    assert_eq!(ended.percent_complete, Some(100));
    assert_eq!(assert_exported(&source, &sink, &ended).await, 1_000);
    assert_eq!(log_of(&sink, &ended), []);
    assert_eq!(ended.created_time, started.created_time);
    assert_eq!(ended.results.error_href, format!("memory:///{}/errors.log", ended.operation_id));
}

#[tokio::test]
async fn identifiers_are_exported_once_and_unknown_ones_are_skipped() {
    let source = Arc::new(archive(400));
    let sink = MemorySink::new();
    let engine = ExportEngine::builder(Arc::clone(&source))
        .destination("azureblob", sink.provider())
        .batch_size(7)
        .build()
        .unwrap();
    let request = ExportRequest::from_json(
        br#"{ "source": { "type": "identifiers", "settings": { "values": [
              "1.2.3", "1.2.3/1.2.3.1", "1.2.4/1.2.4.2", "1.2.5/1.2.5.0/1.2.5.0.3", "1.2.3",
              "9.9", "1.2.4/9.9", "1.2.5/1.2.5.0/9.9" ] } },
              "destination": { "type": "AzureBlob", "settings": { "blobContainerUri": "https://a.blob.core.windows.net/b" } } }"#,
    )
    .unwrap();
    let started = engine.start(request.into()).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();

    assert_eq!(ended.status, OperationStatus::Completed);
    assert_eq!((ended.results.exported, ended.results.skipped), (40 + 10 + 1, 3));
    assert_eq!(assert_exported(&source, &sink, &ended).await, 51);
    let mut logged: Vec<_> =
        log_of(&sink, &ended).iter().map(|entry| entry.identifier().to_owned()).collect();
    logged.sort();
    assert_eq!(logged, ["1.2.4/9.9", "1.2.5/1.2.5.0/9.9", "9.9"]);
}

#[tokio::test]
async fn ten_thousand_instance_identifiers_are_exported() {
    let source = archive(10_000);
    let sink = MemorySink::new();
    let engine = ExportEngine::builder(source).build().unwrap();
    let every = (0..10_000).map(|n| instance(n / 40, n / 10 % 4, n % 10).into());
    let source = ExportSource::identifiers(every).unwrap();
    let started = engine.start(NewOperation::new(source, to(&sink))).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.results.exported, ended.results.skipped), (10_000, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permanent_failure_of_an_instance_skips_it_with_its_message() {
    let faults = [
        (instance(0, 0, 0), vec![ErrorKind::NotFound]),
        (instance(0, 0, 1), vec![ErrorKind::Unreadable]),
        (instance(0, 0, 2), vec![ErrorKind::Unsupported]),
        // Three attempts are made.
        (instance(0, 0, 3), vec![ErrorKind::Internal; 3]),
        (instance(0, 0, 4), vec![ErrorKind::Conflict; 2]),
        (instance(0, 0, 5), vec![ErrorKind::Unavailable, ErrorKind::Throttled]),
    ];
    let plan = Plan::default();
    for (id, kinds) in &faults {
        plan.fail(id, kinds);
    }
    let source = Arc::new(archive(100));
    let sink = MemorySink::new();
    let faulty = FaultySource { inner: Arc::clone(&source), plan };
    let engine = ExportEngine::builder(faulty).build().unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, to(&sink))).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();

    assert_eq!(ended.status, OperationStatus::Completed);
    assert_eq!((ended.results.exported, ended.results.skipped), (96, 4));
    assert_eq!(assert_exported(&source, &sink, &ended).await, 96);
    let mut logged = log_of(&sink, &ended);
    logged.sort_by(|a, b| a.identifier().cmp(b.identifier()));
    let expected: Vec<_> = faults[..4].iter().map(|(id, _)| (id.to_string(), "planned failure")).collect();
    let found: Vec<_> = logged.iter().map(|entry| (entry.identifier().to_owned(), entry.error())).collect();
    assert_eq!(found, expected);
}

#[tokio::test(start_paused = true)]
async fn guarantee_3_transient_destination_failures_are_retried() {
    let source = Arc::new(archive(200));
    let sink = FaultySink::new();
    for n in 0..200 {
        let kinds = [ErrorKind::Throttled, ErrorKind::Unavailable, ErrorKind::Throttled];
        sink.plan().fail(&instance(n / 40, n / 10 % 4, n % 10), &kinds[..n % 4]);
    }
    let engine = ExportEngine::builder(Arc::clone(&source)).build().unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, to(&sink))).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!(
        (ended.status, ended.results.exported, ended.results.skipped),
        (OperationStatus::Completed, 200, 0)
    );
    assert_eq!(assert_exported(&source, &sink.inner, &ended).await, 200);
}

#[tokio::test(start_paused = true)]
async fn guarantee_3_a_lasting_destination_failure_fails_the_operation_which_can_be_resumed() {
    for kind in [ErrorKind::Unavailable, ErrorKind::Unauthorized, ErrorKind::Conflict, ErrorKind::NotFound] {
        let source = Arc::new(archive(500));
        let sink = FaultySink::new();
        sink.plan().fail_all(kind, 120);
        let engine = ExportEngine::builder(Arc::clone(&source))
            .retry(RetryPolicy::with_budget(Duration::from_secs(20)))
            .batch_size(16)
            .build()
            .unwrap();
        let id =
            engine.start(NewOperation::new(ExportSource::Everything, to(&sink))).await.unwrap().operation_id;
        let failed = engine.wait(id).await.unwrap();

        assert_eq!(failed.status, OperationStatus::Failed, "{kind:?}");
        assert_eq!(failed.error.as_ref().unwrap().code, kind.as_str());
        assert_eq!(failed.results.skipped, 0);
        assert!(failed.results.exported <= 120);

        sink.plan().heal();
        // The engine drops the sink of a failed operation, as it deletes a credential.
        engine.resume(id, Some(to(&sink).into())).await.unwrap();
        let ended = engine.wait(id).await.unwrap();
        assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
        assert_eq!((ended.results.exported, ended.results.skipped), (500, 0));
        assert_eq!((ended.operation_id, ended.created_time), (id, failed.created_time));
        assert_eq!(ended.results.error_href, failed.results.error_href);
        assert_eq!(assert_exported(&source, &sink.inner, &ended).await, 500);
        assert_eq!(log_of(&sink.inner, &ended), []);
    }
}

#[tokio::test(start_paused = true)]
async fn the_budget_runs_from_the_last_success() {
    // The puts of each instance fail for about twelve seconds. The export takes longer than the budget.
    let sink = FaultySink::new();
    for n in 0..40 {
        sink.plan().fail(&instance(n / 40, n / 10 % 4, n % 10), &[ErrorKind::Unavailable; 5]);
    }
    let engine = ExportEngine::builder(archive(40))
        .retry(RetryPolicy::with_budget(Duration::from_secs(20)))
        .concurrency(dicom_export::Concurrency::Fixed(1))
        .build()
        .unwrap();
    let begin = tokio::time::Instant::now();
    let id = engine.start(NewOperation::new(ExportSource::Everything, to(&sink))).await.unwrap().operation_id;
    let ended = engine.wait(id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 40));
    assert!(begin.elapsed() > Duration::from_secs(60), "{:?}", begin.elapsed());
}

/// A source whose contents do not have the stated length.
struct WrongLengths {
    inner: MemorySource,
}

#[async_trait::async_trait]
impl InstanceSource for WrongLengths {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let page = self.inner.list(request).await?;
        let failure = ListFailure::new("1.2.3", "a row without a SOP Instance UID");
        let warnings = vec![ListWarning::new("duplicateInstance", "files that repeat an instance", 2)];
        Ok(page.with_failures(vec![failure]).with_warnings(warnings))
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let bytes = self.inner.open(instance).await?.as_bytes().unwrap().clone();
        let length = bytes.len() as u64;
        let stated = match instance.identifier().sop_instance_uid().as_str().bytes().last() {
            Some(b'1') => Some(length + 1),
            Some(b'2') => Some(length - 1),
            // The listed size applies.
            Some(b'3') => None,
            _ => Some(length),
        };
        let broken = instance.identifier().sop_instance_uid().as_str().ends_with('4');
        let fault = broken.then(|| Err(Error::new(ErrorKind::Unreadable, "a bad sector")));
        let cut = bytes.len() / 2;
        let chunks = [Ok(bytes.slice(..cut)), Ok(bytes.slice(cut..))].into_iter().chain(fault);
        Ok(Content::from_stream(stated, futures::stream::iter(chunks.collect::<Vec<_>>())))
    }
}

#[tokio::test(start_paused = true)]
async fn guarantee_1_and_2_a_content_with_the_wrong_length_is_skipped_and_leaves_no_blob() {
    let sink = MemorySink::new();
    let engine = ExportEngine::builder(WrongLengths { inner: archive(10) }).build().unwrap();
    let id = engine.start(NewOperation::new(ExportSource::Everything, to(&sink))).await.unwrap().operation_id;
    let ended = engine.wait(id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed);
    // A truncated, an overlong and a broken content, and a failure of the listing.
    assert_eq!((ended.results.exported, ended.results.skipped), (7, 4));
    assert_eq!(assert_exported(&archive(10), &sink, &ended).await, 7);
    let log = log_of(&sink, &ended);
    assert_eq!(log.len(), 4);
    assert!(log.iter().any(|entry| entry.error() == "a bad sector"));
    assert_eq!(ended.warnings[0].code, "duplicateInstance");
    assert_eq!(ended.warnings[0].message, "files that repeat an instance: 2");
}

/// A source whose listing returns the same cursor again.
struct RepeatedCursor;

#[async_trait::async_trait]
impl InstanceSource for RepeatedCursor {
    async fn list(&self, _: ListRequest<'_>) -> Result<Page> {
        Ok(Page::more(Vec::new(), Cursor::new("here")))
    }

    async fn open(&self, _: &Instance) -> Result<Content> {
        unreachable!("nothing is listed")
    }
}

#[tokio::test]
async fn a_listing_whose_cursor_does_not_advance_fails_the_operation() {
    let engine = ExportEngine::builder(RepeatedCursor).build().unwrap();
    let id = engine
        .start(NewOperation::new(ExportSource::Everything, to(&MemorySink::new())))
        .await
        .unwrap()
        .operation_id;
    let failed = engine.wait(id).await.unwrap();
    assert_eq!(failed.status, OperationStatus::Failed);
    assert_eq!(failed.error.unwrap().code, "internal");
}

#[tokio::test]
async fn a_destination_that_cannot_be_used_is_an_error_in_the_request() {
    struct Closed;
    #[async_trait::async_trait]
    impl dicom_export::SinkProvider for Closed {
        fn validate(&self, settings: &serde_json::Value) -> Result<dicom_export::sink::ValidatedSettings> {
            match settings["key"].as_str() {
                Some(_) => Ok(dicom_export::sink::ValidatedSettings::new("closed", serde_json::Value::Null)),
                None => Err(Error::invalid("/key", "'/key' is missing")),
            }
        }

        async fn open(
            &self,
            _: &dicom_export::OperationSpec,
            _: Option<&dicom_export::sink::Secret>,
        ) -> Result<Arc<dyn BlobSink>> {
            Err(Error::new(ErrorKind::Unauthorized, "the key is refused"))
        }
    }
    let engine = ExportEngine::builder(archive(1)).destination("Vault", Closed).build().unwrap();
    let start = |kind: &str, settings| {
        engine.start(NewOperation::new(ExportSource::Everything, ExportDestination::new(kind, settings)))
    };
    let unknown = start("other", serde_json::json!({})).await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.pointer()), (ErrorKind::Invalid, Some("/destination/type")));
    let missing = start("vault", serde_json::json!({})).await.unwrap_err();
    assert_eq!(missing.pointer(), Some("/destination/settings/key"));
    let refused = start("VAULT", serde_json::json!({ "key": "k" })).await.unwrap_err();
    assert_eq!((refused.kind(), refused.pointer()), (ErrorKind::Invalid, Some("/destination")));
    assert_eq!(refused.message(), "the destination cannot be used: the key is refused");
}

/// Fails at the first call for each batch.
#[derive(Default)]
struct Auditor {
    seen: std::sync::Mutex<std::collections::HashMap<u64, (usize, usize)>>,
    calls: std::sync::atomic::AtomicUsize,
}

#[async_trait::async_trait]
impl dicom_export::ExportObserver for Auditor {
    async fn batch_done(&self, batch: dicom_export::BatchDone<'_>) -> Result<()> {
        if self.calls.fetch_add(1, SeqCst).is_multiple_of(2) {
            return Err(Error::new(ErrorKind::Unavailable, "the audit log is busy"));
        }
        self.seen.lock().unwrap().insert(batch.number, (batch.exported.len(), batch.skipped.len()));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn the_observer_receives_every_batch() {
    let auditor = Arc::new(Auditor::default());
    let plan = Plan::default();
    plan.fail(&instance(0, 1, 1), &[ErrorKind::NotFound]);
    let source = FaultySource { inner: archive(100), plan };
    let engine = ExportEngine::builder(source).observer(Arc::clone(&auditor)).batch_size(30).build().unwrap();
    let id = engine
        .start(NewOperation::new(ExportSource::Everything, to(&MemorySink::new())))
        .await
        .unwrap()
        .operation_id;
    assert_eq!(engine.wait(id).await.unwrap().results.exported, 99);
    let seen = auditor.seen.lock().unwrap();
    let (exported, skipped) = seen.values().fold((0, 0), |sum, batch| (sum.0 + batch.0, sum.1 + batch.1));
    assert_eq!((seen.len(), exported, skipped), (4, 99, 1));
}

/// A provider whose credential expires, and whose location is the container in the settings.
struct ExpiringCredential {
    sink: MemorySink,
    expires: dicom_export::Timestamp,
}

#[async_trait::async_trait]
impl dicom_export::SinkProvider for ExpiringCredential {
    fn validate(&self, settings: &serde_json::Value) -> Result<dicom_export::sink::ValidatedSettings> {
        let location = settings["container"].as_str().unwrap_or("here");
        let checked = dicom_export::sink::ValidatedSettings::new(location, serde_json::Value::Null);
        Ok(checked.with_secret(dicom_export::sink::Secret::new("sig")).with_expiry(self.expires))
    }

    async fn open(
        &self,
        _: &dicom_export::OperationSpec,
        secret: Option<&dicom_export::sink::Secret>,
    ) -> Result<Arc<dyn BlobSink>> {
        assert_eq!(secret.unwrap().expose(), "sig");
        Ok(Arc::new(self.sink.clone()))
    }
}

#[tokio::test]
async fn a_credential_that_expires_within_an_hour_causes_a_warning() {
    for (minutes, warned) in [(50, true), (70, false)] {
        let expires = dicom_export::Timestamp::now().saturating_add(Duration::from_secs(minutes * 60));
        let provider = ExpiringCredential { sink: MemorySink::new(), expires };
        let engine = ExportEngine::builder(archive(3)).destination("azureblob", provider).build().unwrap();
        let destination = ExportDestination::new("azureblob", serde_json::json!({}));
        let started = engine.start(NewOperation::new(ExportSource::Everything, destination)).await.unwrap();
        let codes: Vec<_> = started.warnings.iter().map(|warning| warning.code.as_str()).collect();
        assert_eq!(codes, ["credentialExpires"].repeat(usize::from(warned)));
        assert_eq!(engine.wait(started.operation_id).await.unwrap().warnings, started.warnings);
    }
}

#[tokio::test]
async fn an_operation_whose_credential_was_lost_in_a_restart_is_resumed_with_a_new_one() {
    let sink = MemorySink::new();
    let store = Arc::new(dicom_export::store::MemoryOperationStore::new());
    let build = || {
        let expires = "2999-01-01T00:00:00Z".parse().unwrap();
        ExportEngine::builder(archive(30))
            .destination("azureblob", ExpiringCredential { sink: sink.clone(), expires })
            .operation_store(store.clone())
            .build()
            .unwrap()
    };
    let destination =
        |container| ExportDestination::new("azureblob", serde_json::json!({ "container": container }));
    let new = NewOperation::new(ExportSource::Everything, destination("here"));
    let id = build().create(new).await.unwrap().operation_id;

    let restarted = build();
    assert_eq!(restarted.resume_all().await.unwrap(), [id]);
    let failed = restarted.wait(id).await.unwrap();
    assert_eq!(failed.status, OperationStatus::Failed);
    assert_eq!(failed.error.unwrap().code, "credentialsNeeded");
    let refused = restarted.resume(id, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::CredentialsNeeded);
    let elsewhere = restarted.resume(id, Some(destination("elsewhere").into())).await.unwrap_err();
    assert_eq!((elsewhere.kind(), elsewhere.pointer()), (ErrorKind::Invalid, Some("/destination")));
    restarted.resume(id, Some(destination("here").into())).await.unwrap();
    let ended = restarted.wait(id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 30));
    // An operation that has ended cannot be resumed.
    assert_eq!(restarted.resume(id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn ended_operations_are_purged_after_the_retention_period() {
    let store = Arc::new(dicom_export::store::MemoryOperationStore::new());
    let build = |retention| {
        ExportEngine::builder(archive(3)).operation_store(store.clone()).retention(retention).build().unwrap()
    };
    let engine = build(Duration::from_secs(60));
    let sink = MemorySink::new();
    let ended =
        engine.start(NewOperation::new(ExportSource::Everything, to(&sink))).await.unwrap().operation_id;
    engine.wait(ended).await.unwrap();
    let not_started =
        engine.create(NewOperation::new(ExportSource::Everything, to(&sink))).await.unwrap().operation_id;
    assert_eq!(engine.purge_expired().await.unwrap(), 0);
    assert_eq!(build(Duration::ZERO).purge_expired().await.unwrap(), 1);
    assert_eq!(engine.status(ended).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(engine.status(not_started).await.unwrap().status, OperationStatus::NotStarted);
    assert!(sink.names().iter().any(|name| name.starts_with(&format!("{ended}/results/"))));
}

#[tokio::test]
async fn a_resumption_in_another_container_is_refused_and_writes_nothing() {
    let engine = ExportEngine::builder(archive(3)).build().unwrap();
    let (first, other) = (MemorySink::new(), MemorySink::new());
    let new = NewOperation::new(ExportSource::Everything, to(&first));
    let id = engine.create(new).await.unwrap().operation_id;
    let refused = engine.resume(id, Some(to(&other).into())).await.unwrap_err();
    assert_eq!((refused.kind(), refused.pointer()), (ErrorKind::Invalid, Some("/destination")));
    assert_eq!(other.names(), Vec::<String>::new());
}
