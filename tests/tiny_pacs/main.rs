//! `DicomWebSource` against tiny-pacs, a server that has nothing in common with Orthanc, with pydicom's files and generated
//! ones.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[path = "../support/daemon.rs"]
mod daemon;
mod server;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dicom_export::source::DicomWebCredentials;
use dicom_export::testing::{fixtures, source_conformance};
use dicom_export::{
    DicomWebSource, ErrorLogEntry, ExportEngine, ExportSource, InstanceIdentifier, MemorySink, NewOperation,
    Operation, OperationStatus, RetryPolicy,
};
use walkdir::WalkDir;

use crate::server::{TOKEN, TinyPacs};

/// The number of instances in pydicom's DICOM files that tiny-pacs accepts.
const PYDICOM_INSTANCES: usize = 130;

async fn fill_with_pydicom_files(server: &TinyPacs) -> usize {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/archive");
    assert!(folder.exists(), "pydicom's files are missing: run tests/run.sh");
    let mut stored = 0;
    for entry in WalkDir::new(folder).into_iter().map(Result::unwrap) {
        if entry.file_type().is_file() {
            stored += usize::from(server.store(&std::fs::read(entry.path()).unwrap()).await);
        }
    }
    stored
}

/// Two series of forty slices.
async fn fill_with_slices(server: &TinyPacs) -> usize {
    let slices = (1..=2).flat_map(|series| (1..=40).map(move |n| fixtures::ct_slice(1, series, n)));
    let mut stored = 0;
    for slice in slices {
        stored += usize::from(server.store(&slice).await);
    }
    stored
}

fn source(server: &TinyPacs) -> DicomWebSource {
    let credentials = DicomWebCredentials::bearer(TOKEN);
    DicomWebSource::builder(server.root()).credentials(credentials).page_size(30).build().unwrap()
}

async fn export(source: DicomWebSource, sink: &MemorySink) -> Operation {
    let retry = RetryPolicy::with_budget(Duration::from_secs(60));
    let engine = ExportEngine::builder(source).retry(retry).build().unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink.clone())).await.unwrap();
    engine.wait(started.operation_id).await.unwrap()
}

/// The exported instances by identifier.
fn exported(sink: &MemorySink, operation: &Operation) -> BTreeMap<InstanceIdentifier, Bytes> {
    let prefix = format!("{}/results/", operation.operation_id);
    let instances = sink.names().into_iter().filter_map(|name| {
        let identifier = name.strip_prefix(&prefix)?.strip_suffix(".dcm")?.parse().unwrap();
        Some((identifier, sink.get(&name).unwrap()))
    });
    instances.collect()
}

#[tokio::test]
#[ignore = "needs tiny-pacs: tests/run.sh"]
async fn an_archive_is_exported_as_stored() {
    let server = TinyPacs::start();
    assert_eq!(fill_with_pydicom_files(&server).await, PYDICOM_INSTANCES);
    assert_eq!(fill_with_slices(&server).await, 80);
    let sink = MemorySink::new();
    let ended = export(source(&server), &sink).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!(ended.results.skipped, 0);
    assert!(ended.warnings.is_empty(), "{:?}", ended.warnings);
    let mut exported: Vec<_> = exported(&sink, &ended).into_values().collect();
    let mut stored: Vec<_> = server.stored().into_iter().map(|(_, bytes)| bytes).collect();
    exported.sort();
    stored.sort();
    assert_eq!(exported.len(), PYDICOM_INSTANCES + 80);
    assert!(exported == stored, "an instance has other bytes than the server stores");
}

#[tokio::test]
#[ignore = "needs tiny-pacs: tests/run.sh"]
async fn tiny_pacs_passes_the_conformance_suite() {
    let server = TinyPacs::start();
    fill_with_pydicom_files(&server).await;
    let sink = MemorySink::new();
    let ended = export(source(&server), &sink).await;
    let archive = exported(&sink, &ended);
    let one = Arc::new(source(&server));
    source_conformance(|| Arc::clone(&one), &archive).await;
}

/// The server starts a successful response and closes the connection when it cannot open the file, each time.
#[tokio::test]
#[ignore = "needs tiny-pacs: tests/run.sh"]
async fn a_missing_file_skips_its_instance_only() {
    let server = TinyPacs::start();
    fill_with_slices(&server).await;
    let missing = fixtures::instance(1, 2, 20);
    let name = format!("{}.dcm", missing.sop_instance_uid());
    let stored = server.stored();
    let (path, _) = stored.iter().find(|(path, _)| path.ends_with(&name)).unwrap();
    std::fs::remove_file(path).unwrap();
    let sink = MemorySink::new();
    let ended = export(source(&server), &sink).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (79, 1));
    let log = sink.get(&format!("{}/errors.log", ended.operation_id)).unwrap();
    let line: ErrorLogEntry = serde_json::from_slice(&log).unwrap();
    assert_eq!(line.identifier(), missing.to_string());
}

#[tokio::test]
#[ignore = "needs tiny-pacs: tests/run.sh"]
async fn a_wrong_token_fails_the_operation() {
    let server = TinyPacs::start();
    fill_with_slices(&server).await;
    for credentials in [DicomWebCredentials::anonymous(), DicomWebCredentials::bearer("another")] {
        let source = DicomWebSource::builder(server.root()).credentials(credentials).build().unwrap();
        let ended = export(source, &MemorySink::new()).await;
        assert_eq!((ended.status, ended.results.exported), (OperationStatus::Failed, 0));
        assert_eq!(ended.error.unwrap().code, "unauthorized");
    }
}
