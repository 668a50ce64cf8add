//! The metrics of an operation. Time is virtual.

use std::time::Duration;

use async_trait::async_trait;
use dicom_export::{Error, ErrorKind, ExportEngine, ExportSource, NewOperation, OperationStatus, Result};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::time::sleep;

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};
use crate::support::{FaultySource, Outage, Plan, archive, instance};

/// Fails the put of one instance.
#[derive(Clone)]
struct Refusal(ErrorKind);

#[async_trait]
impl SinkHook for Refusal {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        match call {
            SinkCall::Put(path, ..) if path.as_str().contains(&instance(0, 0, 3).to_string()) => {
                Err(Error::new(self.0, "planned refusal"))
            }
            _ => Ok(()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_too_large_is_counted_with_its_reason() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _recording = metrics::set_default_local_recorder(&recorder);
    let engine = ExportEngine::builder(archive(10)).build().unwrap();
    let sink = HookedSink::with_hook(Refusal(ErrorKind::TooLarge));
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.results.exported, ended.results.skipped), (9, 1));
    let expected = "dicom_export_instances_skipped_total{reason=\"tooLarge\"} 1";
    assert!(handle.render().lines().any(|line| line == expected), "{}", handle.render());
}

#[tokio::test(start_paused = true)]
async fn metrics_follow_an_operation_through_an_outage() {
    let recorder = PrometheusBuilder::new().set_buckets(&[0.5, 1000.0]).unwrap().build_recorder();
    let handle = recorder.handle();
    // Tokio runs all tasks of a test on its thread.
    let _recording = metrics::set_default_local_recorder(&recorder);
    let has = |line: &str| handle.render().lines().any(|rendered| rendered == line);

    let plan = Plan::default();
    plan.fail(&instance(0, 0, 3), &[ErrorKind::Unreadable]);
    let sink = Outage::lasting(50, || Error::new(ErrorKind::Throttled, "planned failure"));
    let engine = ExportEngine::builder(FaultySource { inner: archive(10), plan })
        .memory_budget(32 << 20)
        .build()
        .unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    sleep(Duration::from_secs(40)).await;
    for line in [
        "dicom_export_operations_total{event=\"accepted\"} 1",
        "dicom_export_operations_total{event=\"started\"} 1",
        "dicom_export_operations_running 1",
        "dicom_export_sides_failing{side=\"destination\"} 1",
        "dicom_export_memory_budget_bytes 33554432",
        "dicom_export_instances_exported_total 0",
    ] {
        assert!(has(line), "{line}\n{}", handle.render());
    }
    let value = |name: &str| -> f64 {
        let rendered = handle.render();
        let line = rendered.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name}\n{rendered}")).parse().unwrap()
    };
    assert!(value("dicom_export_seconds_since_progress") >= 30.0);
    assert!(value("dicom_export_retries_total{side=\"destination\",kind=\"throttled\"}") >= 10.0);

    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed);
    for line in [
        "dicom_export_operations_total{event=\"completed\"} 1",
        "dicom_export_operations_running 0",
        "dicom_export_sides_failing{side=\"destination\"} 0",
        "dicom_export_instances_exported_total 9",
        "dicom_export_instances_skipped_total{reason=\"unreadable\"} 1",
        "dicom_export_memory_bytes 0",
        "dicom_export_instance_duration_seconds_bucket{le=\"0.5\"} 1",
        "dicom_export_instance_duration_seconds_count 10",
        "dicom_export_batch_duration_seconds_count 1",
        "dicom_export_seconds_since_progress 0",
        &format!("dicom_export_bytes_exported_total {}", ended.bytes),
    ] {
        assert!(has(line), "{line}\n{}", handle.render());
    }
}
