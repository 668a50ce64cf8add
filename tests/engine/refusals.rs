//! Sources that refuse instances: one of them, some of them, or all of them alike.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{Instance, ListRequest, Page};
use dicom_export::{
    Content, Error, ErrorKind, ExportEngine, ExportSource, InstanceSource, MemorySink, MemorySource,
    NewOperation, Operation, OperationStatus, Result, RetryPolicy,
};

use crate::support::{FaultySource, Plan, archive, assert_exported, instance, log_of};

const REFUSALS: [ErrorKind; 5] = [
    ErrorKind::NotFound,
    ErrorKind::Unreadable,
    ErrorKind::Unsupported,
    ErrorKind::Invalid,
    ErrorKind::Internal,
];

fn engine(source: impl InstanceSource) -> ExportEngine {
    let retry = RetryPolicy::with_budget(Duration::from_secs(60));
    ExportEngine::builder(source).retry(retry).batch_size(20).build().unwrap()
}

async fn export(engine: &ExportEngine, sink: &MemorySink) -> Operation {
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink.clone())).await.unwrap();
    engine.wait(started.operation_id).await.unwrap()
}

async fn resume(engine: &ExportEngine, ended: &Operation, sink: &MemorySink) -> Operation {
    let resumed = engine.resume(ended.operation_id, Some(sink.clone().into())).await.unwrap();
    engine.wait(resumed.operation_id).await.unwrap()
}

fn counts(operation: &Operation) -> (OperationStatus, u64, u64) {
    (operation.status, operation.results.exported, operation.results.skipped)
}

/// The source refuses every instance, from the first one or after a while, until it is repaired.
#[tokio::test(start_paused = true)]
async fn guarantee_2_a_source_that_refuses_every_instance_skips_none() {
    for kind in REFUSALS {
        // A few instances that are not found may have been deleted, like the one that is read again.
        let working: &[usize] = if kind == ErrorKind::NotFound { &[0, 1, 20] } else { &[0, 1, 20, 33, 50] };
        for &working in working {
            let (plan, sink) = (Plan::default(), MemorySink::new());
            plan.fail_all(kind, working);
            let engine = engine(FaultySource { inner: archive(100), plan: plan.clone() });
            let ended = export(&engine, &sink).await;
            assert_eq!(ended.status, OperationStatus::Failed, "{kind:?} after {working}: {ended:?}");
            assert_eq!(ended.results.skipped, 0, "{kind:?} after {working}");
            let error = ended.error.as_ref().unwrap();
            assert!(error.message.starts_with("the source refuses every instance: "), "{}", error.message);

            plan.heal();
            let ended = resume(&engine, &ended, &sink).await;
            assert_eq!(counts(&ended), (OperationStatus::Completed, 100, 0), "{kind:?} after {working}");
            assert_eq!(assert_exported(&archive(100), &sink, &ended).await, 100);
        }
    }
}

/// Refuses the instances of one study, as an archive does that lost a volume.
struct WithoutStudy {
    inner: MemorySource,
    study: String,
}

#[async_trait]
impl InstanceSource for WithoutStudy {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.inner.list(request).await
    }

    async fn open(&self, listed: &Instance) -> Result<Content> {
        if listed.identifier().study_instance_uid().as_str() == self.study {
            return Err(Error::new(ErrorKind::NotFound, "the file is missing"));
        }
        self.inner.open(listed).await
    }
}

#[tokio::test(start_paused = true)]
async fn many_refused_instances_are_skipped_while_the_source_returns_others() {
    let study = instance(1, 0, 0).study_instance_uid().to_string();
    let sink = MemorySink::new();
    let ended = export(&engine(WithoutStudy { inner: archive(130), study: study.clone() }), &sink).await;
    assert_eq!(counts(&ended), (OperationStatus::Completed, 90, 40));
    let log = log_of(&sink, &ended);
    assert!(log.len() == 40 && log.iter().all(|line| line.identifier().starts_with(&study)));
}

#[tokio::test(start_paused = true)]
async fn a_few_refused_instances_are_skipped_although_nothing_else_is_listed() {
    let (plan, sink) = (Plan::default(), MemorySink::new());
    plan.fail_all(ErrorKind::NotFound, 0);
    let ended = export(&engine(FaultySource { inner: archive(11), plan }), &sink).await;
    assert_eq!(counts(&ended), (OperationStatus::Completed, 0, 11));
}

/// Opens every instance and fails while it is read.
struct Interrupted(MemorySource);

#[async_trait]
impl InstanceSource for Interrupted {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.0.list(request).await
    }

    async fn open(&self, listed: &Instance) -> Result<Content> {
        self.0.open(listed).await?;
        let start = Ok(Bytes::from_static(b"DICM"));
        let interrupted = Err(Error::new(ErrorKind::Unavailable, "the response was interrupted"));
        Ok(Content::from_stream(None, futures::stream::iter([start, interrupted])))
    }
}

/// That it starts a response for others does not show that it works for others.
#[tokio::test(start_paused = true)]
async fn guarantee_2_a_source_that_interrupts_every_instance_skips_none() {
    let sink = MemorySink::new();
    let ended = export(&engine(Interrupted(archive(100))), &sink).await;
    assert_eq!(counts(&ended), (OperationStatus::Failed, 0, 0));
    assert_eq!(ended.error.unwrap().code, "unavailable");
}

/// Nothing else is left whose export would show that the source works.
#[tokio::test(start_paused = true)]
async fn an_instance_that_keeps_failing_is_skipped_after_all_others_were_exported() {
    for count in [2, 30] {
        let (plan, sink) = (Plan::default(), MemorySink::new());
        let last = instance(0, (count - 1) / 10, (count - 1) % 10);
        plan.fail(&last, &[ErrorKind::Unavailable; 1000]);
        let ended = export(&engine(FaultySource { inner: archive(count), plan }), &sink).await;
        assert_eq!(counts(&ended), (OperationStatus::Completed, count as u64 - 1, 1));
        assert_eq!(log_of(&sink, &ended)[0].identifier(), last.to_string());
    }
}

/// It may be the source that fails.
#[tokio::test(start_paused = true)]
async fn the_only_instance_of_an_export_is_not_skipped_because_it_keeps_failing() {
    let (plan, sink) = (Plan::default(), MemorySink::new());
    plan.fail_all(ErrorKind::Unavailable, 0);
    let ended = export(&engine(FaultySource { inner: archive(1), plan }), &sink).await;
    assert_eq!(counts(&ended), (OperationStatus::Failed, 0, 0));
}
