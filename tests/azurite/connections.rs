//! Operations of an engine share connections and the tokens of the server's identity.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::testing::GeneratedSource;
use dicom_export::{
    Concurrency, ExportDestination, ExportEngine, ExportSource, NewOperation, Operation, OperationStatus,
};

use crate::SIGNATURE;
use crate::azurite::Azurite;
use crate::identity::{token, token_response};
use crate::responder::{Reply, Responder};

fn engine(policy: AzureBlobPolicy) -> ExportEngine {
    ExportEngine::builder(GeneratedSource::new(3, 100))
        .destination(ExportDestination::AZURE_BLOB, AzureBlobProvider::new(policy))
        .concurrency(Concurrency::Fixed(1))
        .build()
        .unwrap()
}

async fn export(engine: &ExportEngine, destination: ExportDestination) -> Operation {
    let new = NewOperation::new(ExportSource::Everything, destination);
    let started = engine.start(new).await.unwrap();
    engine.wait(started.operation_id).await.unwrap()
}

#[tokio::test]
async fn successive_operations_share_connections() {
    const OPERATIONS: usize = 20;
    let server = Responder::start(|_| Reply::status(201)).await;
    let engine = engine(AzureBlobPolicy::development());
    let uri = format!("{}/devstoreaccount1/container?sv=2022-11-02&sp=w&sig={SIGNATURE}", server.url());
    for _ in 0..OPERATIONS {
        let ended = export(&engine, ExportDestination::azure_blob(&uri)).await;
        assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 3));
    }
    assert_eq!(server.requests().len(), 4 * OPERATIONS, "a log and three instances per operation");
    // A connection that is returned late may not be reused.
    assert!(server.connections() < OPERATIONS / 2, "{} connections", server.connections());
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn operations_share_a_token_until_it_is_refused() {
    let too_old = Arc::new(AtomicBool::new(true));
    let is_too_old = Arc::clone(&too_old);
    let identities =
        Responder::start(move |_| token_response(token(if is_too_old.load(SeqCst) { 7200 } else { 0 })));
    let identities = identities.await;
    let (azurite, root) = Azurite::with_tokens();
    let policy =
        AzureBlobPolicy::development().with_root_certificate(root).with_identity_endpoint(identities.url());
    let engine = engine(policy);
    let container = azurite.container().await;
    let destination = || ExportDestination::azure_blob_with_managed_identity(&container.url());
    let new = NewOperation::new(ExportSource::Everything, destination());
    let refused = engine.start(new).await.unwrap_err();
    assert!(refused.message().contains("refused the credential"), "{refused}");

    too_old.store(false, SeqCst);
    for _ in 0..3 {
        assert_eq!(export(&engine, destination()).await.status, OperationStatus::Completed);
    }
    assert_eq!(identities.requests().len(), 2, "the refused token and another one");
}
