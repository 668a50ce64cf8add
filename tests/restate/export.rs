//! Exports without failures.

use dicom_export::{ExportService, ExportSource, NewOperation, OperationStatus};

use crate::archive::Archive;
use crate::azurite::Azurite;
use crate::cluster::{Cluster, emulator, ended};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_1_and_2_two_workers_share_an_export_of_3000_instances() {
    let archive = Archive::new(3_000);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let cluster = Cluster::new(archive.root(), 2, &["--batch-size", "50"]).await;
    let client = cluster.client();
    let new = NewOperation::new(ExportSource::Everything, emulator(&container, azurite.port()));
    let started = client.start(new).await.unwrap();
    assert_eq!(started.status, OperationStatus::NotStarted);

    let ended = ended(&cluster, &client, started.operation_id).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len(), 0));
    assert_eq!(ended.created_time, started.created_time);
    archive.assert_exported(&container, &started.operation_id.to_string()).await;
    let (first, second) = (cluster.finished(0), cluster.finished(1));
    assert!(first.is_disjoint(&second));
    assert_eq!(first.len() + second.len(), 60);
    assert!(!first.is_empty() && !second.is_empty(), "{first:?} {second:?}");
}
