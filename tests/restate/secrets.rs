//! Credentials are not sent to Restate.

use std::sync::Arc;

use dicom_export::store::OperationFilter;
use dicom_export::store::{MemorySecretStore, SecretStore};
use dicom_export::{
    BlobSink, ErrorKind, ExportDestination, ExportService, ExportSource, MemorySink, NewOperation,
    OperationStatus,
};

use crate::archive::Archive;
use crate::azurite::Azurite;
use crate::cluster::{Cluster, ended};
use crate::proxy::{Mode, Proxy};

/// Everything in the tables of Restate's admin API.
async fn everything(cluster: &Cluster) -> String {
    let mut all = String::new();
    for table in ["sys_journal", "sys_invocation", "state", "sys_inbox", "sys_journal_events"] {
        for row in cluster.restate.query(&format!("select * from {table}")).await {
            all += &row.to_string();
            // Entries are shown as hexadecimal digits.
            for value in row.as_object().unwrap().values() {
                let bytes = value.as_str().and_then(unhex).unwrap_or_default();
                all += &String::from_utf8_lossy(&bytes);
            }
        }
    }
    all
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_6_a_sas_is_passed_through_the_shared_secret_store_and_never_sent_to_restate() {
    let archive = Archive::new(200);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let cluster = Cluster::new(archive.root(), 0, &[]).await;
    let secrets = MemorySecretStore::new();
    let engine = || cluster.engine().batch_size(10).secret_store(Arc::new(secrets.clone()));
    let _worker = cluster.inner_worker(engine()).await;
    let client = cluster.client_of(engine());
    let uri = proxy.through(&container.sas_url("w"));
    proxy.set_mode(Mode::HoldAfter(50));
    let new = NewOperation::new(ExportSource::Everything, ExportDestination::azure_blob(&uri));
    let id = client.start(new).await.unwrap().operation_id;
    proxy.wait_for_requests(51).await;

    let during = everything(&cluster).await;
    assert!(during.contains(container.name()), "the destination is not in Restate");
    assert!(during.contains("\"instances\""), "no batch is in the journal");
    assert!(secrets.get(id).await.unwrap().is_some());
    proxy.set_mode(Mode::Forward);
    let ended = ended(&cluster, &client, id).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    archive.assert_exported(&container, &id.to_string()).await;
    assert!(secrets.get(id).await.unwrap().is_none(), "the secret was not deleted");
    let after = everything(&cluster).await;
    for secret in crate::signatures(&uri) {
        assert!(!during.contains(&secret) && !after.contains(&secret), "the signature is in Restate");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn a_sas_without_a_shared_secret_store_is_rejected_before_anything_is_written() {
    let archive = Archive::new(10);
    let container = Azurite::shared().container().await;
    let cluster = Cluster::new(archive.root(), 1, &[]).await;
    let client = cluster.client();
    let sas = ExportDestination::azure_blob(&container.sas_url("w"));
    let refused = client.start(NewOperation::new(ExportSource::Everything, sas)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.pointer()), (ErrorKind::Invalid, Some("/destination")));
    let why = "the destination has a secret, and there is no secret store that the workers share";
    assert_eq!(refused.message(), why);
    assert!(container.list().await.is_empty());
    let open: Arc<dyn BlobSink> = Arc::new(MemorySink::new());
    let refused = client.start(NewOperation::new(ExportSource::Everything, open)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.pointer()), (ErrorKind::Invalid, Some("/destination")));
    assert!(client.list(&OperationFilter::new(10)).await.unwrap().is_empty());
}
