//! `DicomWebSource` against Orthanc with pydicom's files and generated ones.
#![allow(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/daemon.rs"]
mod daemon;
mod damaged;
mod limits;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/proxy.rs"]
mod proxy;
mod server;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::source::{DicomWebCredentials, Instance};
use dicom_export::testing::{fixtures, source_conformance};
use dicom_export::{
    DicomIdentifier, DicomWebSource, ErrorKind, ErrorLogEntry, ExportDestination, ExportEngine, ExportSource,
    InstanceIdentifier, InstanceSource, NewOperation, Operation, OperationStatus, RetryPolicy,
};
use futures::stream::{self, StreamExt};
use serde_json::json;
use walkdir::WalkDir;

use crate::azurite::{Azurite, Container};
use crate::proxy::Proxy;
use crate::server::{Orthanc, PASSWORD, USER};

/// The number of instances in pydicom's 188 DICOM files that Orthanc accepts and can return. Two files have the same UIDs
/// and patients that differ by a space: Orthanc stores and lists both, and returns neither.
const PYDICOM_INSTANCES: usize = 130;

const GENERATED_INSTANCES: usize = 4 * 2 * 40 + 1;

type Archive = BTreeMap<InstanceIdentifier, Bytes>;

async fn fill(orthanc: &Orthanc, files: Vec<Bytes>) -> usize {
    let stored = stream::iter(files).map(|file| orthanc.store(file)).buffer_unordered(8);
    stored.filter(|stored| std::future::ready(*stored)).count().await
}

fn pydicom_files() -> Vec<Bytes> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/archive");
    assert!(folder.exists(), "pydicom's files are missing: run tests/run.sh");
    let files =
        WalkDir::new(folder).into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    files.map(|entry| std::fs::read(entry.path()).unwrap().into()).collect()
}

/// Four studies of two series of forty slices, and an instance that takes many chunks.
fn generated_files() -> Vec<Bytes> {
    let series = (1..=4).flat_map(|study| [(study, 1), (study, 2)]);
    let slices =
        series.flat_map(|(study, series)| (1..=40).map(move |n| fixtures::ct_slice(study, series, n)));
    slices.chain([fixtures::multi_frame(5, 1, 1, 5000)]).collect()
}

fn source(orthanc: &Orthanc) -> DicomWebSource {
    let credentials = DicomWebCredentials::basic(USER, PASSWORD);
    DicomWebSource::builder(orthanc.root()).credentials(credentials).page_size(30).build().unwrap()
}

async fn export(source: DicomWebSource, wanted: ExportSource, container: &Container<'_>) -> Operation {
    let engine = ExportEngine::builder(source)
        .destination(ExportDestination::AZURE_BLOB, AzureBlobProvider::new(AzureBlobPolicy::development()))
        .retry(RetryPolicy::with_budget(Duration::from_secs(20)))
        .build()
        .unwrap();
    let settings = json!({ "blobContainerUri": container.sas_url("w") });
    let destination = ExportDestination::new(ExportDestination::AZURE_BLOB, settings);
    let started = engine.start(NewOperation::new(wanted, destination)).await.unwrap();
    engine.wait(started.operation_id).await.unwrap()
}

/// Compares the exported blobs with what Orthanc stores, byte for byte.
async fn assert_exported(container: &Container<'_>, operation: &Operation, expected: &Archive) {
    for (identifier, bytes) in expected {
        let blob = container.get(&format!("{}/results/{identifier}.dcm", operation.operation_id)).await;
        assert!(blob.is_some_and(|blob| blob.bytes == *bytes), "{identifier} is missing or has other bytes");
    }
    assert_eq!(operation.results.exported, expected.len() as u64);
}

async fn log(container: &Container<'_>, operation: &Operation) -> Vec<ErrorLogEntry> {
    let log = container.get(&format!("{}/errors.log", operation.operation_id)).await.unwrap();
    let lines = std::str::from_utf8(&log.bytes).unwrap().lines();
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
#[ignore = "needs Orthanc and Azurite: tests/run.sh"]
async fn an_archive_is_exported_as_stored() {
    let orthanc = Orthanc::start().await;
    fill(&orthanc, pydicom_files()).await;
    assert_eq!(fill(&orthanc, generated_files()).await, GENERATED_INSTANCES);
    let (stored, ambiguous) = orthanc.everything().await;
    assert_eq!((stored.len(), ambiguous.len()), (PYDICOM_INSTANCES + GENERATED_INSTANCES, 1));

    let container = Azurite::shared().container().await;
    let ended = export(source(&orthanc), ExportSource::Everything, &container).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.skipped, ended.percent_complete), (1, Some(100)));
    // The container's SAS expires soon.
    assert!(ended.warnings.iter().all(|warning| warning.code == "credentialExpires"), "{:?}", ended.warnings);
    assert_exported(&container, &ended, &stored).await;
    let logged = log(&container, &ended).await;
    assert_eq!(logged.len(), 1);
    assert_eq!(logged[0].identifier(), ambiguous[0].to_string());

    // By identifiers, including an unknown one of each kind.
    let covered = |of: &InstanceIdentifier, by: &[DicomIdentifier]| by.iter().any(|scope| scope.covers(of));
    let known = [
        fixtures::study_identifier(1),
        fixtures::series_identifier(2, 1),
        fixtures::instance(3, 1, 7).into(),
    ];
    let unknown = [
        fixtures::study_identifier(9),
        fixtures::series_identifier(2, 9),
        fixtures::instance(3, 1, 99).into(),
        // The study and the series exist, but the series is in another study.
        DicomIdentifier::series(fixtures::study_uid(3), fixtures::series_uid(4, 1)),
    ];
    let wanted = ExportSource::identifiers(known.iter().chain(&unknown).cloned()).unwrap();
    let ended = export(source(&orthanc), wanted, &container).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    let expected: Archive = stored.into_iter().filter(|(of, _)| covered(of, &known)).collect();
    assert_eq!(expected.len(), 80 + 40 + 1);
    assert_exported(&container, &ended, &expected).await;
    let mut logged: Vec<_> =
        log(&container, &ended).await.into_iter().map(|line| line.identifier().to_owned()).collect();
    let mut unknown = unknown.map(|identifier| identifier.to_string());
    logged.sort();
    unknown.sort();
    assert_eq!(logged, unknown);
}

#[tokio::test]
#[ignore = "needs Orthanc: tests/run.sh"]
async fn orthanc_passes_the_conformance_suite() {
    let orthanc = Orthanc::start().await;
    fill(&orthanc, pydicom_files()).await;
    let (stored, ambiguous) = orthanc.everything().await;
    assert_eq!(stored.len(), PYDICOM_INSTANCES);
    orthanc.delete(&ambiguous[0]).await;
    let one = Arc::new(source(&orthanc));
    source_conformance(|| Arc::clone(&one), &stored).await;

    // An instance that is deleted after it was listed is not found.
    let gone = stored.keys().next().unwrap();
    orthanc.delete(gone).await;
    let error = one.open(&Instance::new(gone.clone())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[tokio::test]
#[ignore = "needs Orthanc and Azurite: tests/run.sh"]
async fn a_wrong_password_fails_the_operation() {
    let orthanc = Orthanc::start().await;
    fill(&orthanc, vec![fixtures::ct_slice(1, 1, 1)]).await;
    let container = Azurite::shared().container().await;
    for credentials in [DicomWebCredentials::anonymous(), DicomWebCredentials::basic(USER, "another")] {
        let source = DicomWebSource::builder(orthanc.root()).credentials(credentials).build().unwrap();
        let ended = export(source, ExportSource::Everything, &container).await;
        assert_eq!((ended.status, ended.results.exported), (OperationStatus::Failed, 0));
        assert_eq!(ended.error.unwrap().code, "unauthorized");
    }
}

#[tokio::test]
#[ignore = "needs Orthanc and Azurite: tests/run.sh"]
async fn a_study_of_small_instances_is_read_with_one_request() {
    const INSTANCES: u32 = 200;
    let orthanc = Orthanc::start().await;
    fill(&orthanc, (0..INSTANCES).map(|number| fixtures::ct_slice(1, 1, number)).collect()).await;
    let (stored, _) = orthanc.everything().await;
    let proxy = Proxy::start(orthanc.port()).await;
    let credentials = DicomWebCredentials::basic(USER, PASSWORD);
    let source =
        DicomWebSource::builder(proxy.through(&orthanc.root())).credentials(credentials).build().unwrap();
    let container = Azurite::shared().container().await;
    let ended = export(source, ExportSource::Everything, &container).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_exported(&container, &ended, &stored).await;
    let requests = proxy.requests();
    let study = format!("/studies/{}", fixtures::study_uid(1));
    assert_eq!(requests.iter().filter(|request| request.ends_with(&study)).count(), 1, "{requests:?}");
    let of_instances = requests.iter().filter(|request| request.contains("/instances/")).count();
    assert!(of_instances < INSTANCES as usize / 2, "{of_instances} requests for instances");
}
