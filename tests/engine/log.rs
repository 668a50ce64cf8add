//! The events that are logged for an operation. Time is virtual.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dicom_export::store::MemoryOperationStore;
use dicom_export::{
    BlobSink, Error, ErrorKind, ExportDestination, ExportEngine, ExportSource, NewOperation,
    OperationContext, OperationStatus, RetryPolicy,
};

use crate::captured_log::Log;
use crate::hooked_sink::HookedSink;
use crate::support::{FaultySink, FaultySinkProvider, FaultySource, Outage, Plan, archive};

/// The message of each event, without its fields.
fn messages(events: &[String]) -> Vec<&str> {
    let message = |event: &'static str| move |line: &&String| line.contains(event);
    let known = [
        "INFO the operation was accepted",
        "INFO the operation started",
        "INFO the operation was resumed",
        "INFO the operation was taken over",
        "WARN the destination keeps failing",
        "INFO the destination works again",
        "WARN the source keeps failing",
        "WARN the operation failed",
        "INFO the operation ended",
    ];
    events
        .iter()
        .map(|event| {
            known.into_iter().find(|known| message(known)(&event)).unwrap_or_else(|| panic!("{event}"))
        })
        .collect()
}

/// A sink whose puts fail for this time.
fn outage(seconds: u64) -> HookedSink<Outage> {
    Outage::lasting(seconds, || {
        let cause = io::Error::from(io::ErrorKind::ConnectionRefused);
        Error::new(ErrorKind::Unavailable, "the destination cannot be reached").with_source(cause)
    })
}

fn context() -> OperationContext {
    OperationContext::default().with_partition("north").with_caller("alice")
}

#[tokio::test(start_paused = true)]
async fn an_operation_and_an_outage_are_logged_with_the_context_of_the_operation() {
    let (log, _guard) = Log::start();
    let sink = outage(150);
    let engine = ExportEngine::builder(archive(10)).build().unwrap();
    let location = sink.location();
    let new = NewOperation::new(ExportSource::Everything, sink).with_context(context());
    let started = engine.start(new).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 10));

    let id = ended.operation_id;
    let span = format!(
        "export{{operation={id} partition=north caller=alice destination={location}}}: dicom_export::"
    );
    for line in log.lines() {
        assert!(line.contains(&span), "{line}");
    }
    let events = log.events();
    let expected = [
        "INFO the operation was accepted",
        "INFO the operation started",
        "WARN the destination keeps failing",
        "WARN the destination keeps failing",
        "WARN the destination keeps failing",
        "INFO the destination works again",
        "INFO the operation ended",
    ];
    assert_eq!(messages(&events), expected, "{events:#?}");
    for (event, failing_for, budget_left) in
        [(&events[2], 30, 570), (&events[3], 60, 540), (&events[4], 120, 480)]
    {
        let error = "error=\"the destination cannot be reached: connection refused\"";
        assert!(event.contains(&format!("side=\"destination\" kind=\"unavailable\" {error}")), "{event}");
        assert!(event.contains(&format!("failing_for={failing_for}s failures=")), "{event}");
        assert!(event.contains(&format!("budget_left={budget_left}s")), "{event}");
    }
    assert!(events[6].contains("status=\"completed\" exported=10 skipped=0 bytes="), "{}", events[6]);
}

#[tokio::test(start_paused = true)]
async fn an_error_that_fails_an_operation_is_logged_once_with_its_causes() {
    let (log, _guard) = Log::start();
    let sink = outage(100);
    let engine = ExportEngine::builder(archive(10))
        .retry(RetryPolicy::with_budget(Duration::from_secs(20)))
        .build()
        .unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink.clone())).await.unwrap();
    let failed = engine.wait(started.operation_id).await.unwrap();
    assert_eq!(failed.error.unwrap().message, "the destination cannot be reached");
    let events = log.events();
    let expected = [
        "INFO the operation was accepted",
        "INFO the operation started",
        "WARN the operation failed",
        "INFO the operation ended",
    ];
    assert_eq!(messages(&events), expected, "{events:#?}");
    assert!(
        events[2]
            .contains("kind=\"unavailable\" error=the destination cannot be reached: connection refused"),
        "{}",
        events[2]
    );
    assert!(events[3].contains("status=\"failed\" exported=0"), "{}", events[3]);

    tokio::time::sleep(Duration::from_secs(100)).await;
    engine.resume(started.operation_id, Some(sink.into())).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed);
    let events = log.events();
    assert_eq!(messages(&events[4..]), ["INFO the operation was resumed", "INFO the operation ended"]);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_fails_and_a_takeover_are_logged() {
    let (log, _guard) = Log::start();
    let (store, sink) = (Arc::new(MemoryOperationStore::new()), FaultySink::new());
    let engine = |plan: &Plan| {
        ExportEngine::builder(FaultySource { inner: archive(10), plan: plan.clone() })
            .destination("memory", FaultySinkProvider(sink.clone()))
            .operation_store(Arc::clone(&store))
            .build()
            .unwrap()
    };
    let plan = Plan::default();
    plan.fail_all(ErrorKind::Unavailable, 0);
    let first = engine(&plan);
    let destination = ExportDestination::new("memory", serde_json::Value::Null);
    let new = NewOperation::new(ExportSource::Everything, destination).with_context(context());
    let started = first.start(new).await.unwrap();
    tokio::time::sleep(Duration::from_secs(45)).await;
    // As at the end of the process, the lease lapses.
    first.shutdown(Duration::ZERO).await;
    let events = log.events();
    assert!(events.iter().any(|event| event.starts_with("WARN the source keeps failing")), "{events:#?}");
    let before = events.len();

    plan.heal();
    let second = engine(&plan);
    second.resume_all().await.unwrap();
    let ended = second.wait(started.operation_id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed);
    let events = log.events();
    let expected = ["INFO the operation was taken over", "INFO the operation ended"];
    assert_eq!(messages(&events[before..]), expected, "{events:#?}");
    for line in &log.lines()[before..] {
        assert!(line.contains("partition=north caller=alice destination=here"), "{line}");
    }
}
