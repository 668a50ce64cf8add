//! Starts that other replicas see, and starts that fail half way.

use std::sync::Arc;

use async_trait::async_trait;
use dicom_export::sink::{Secret, SinkProvider, ValidatedSettings};
use dicom_export::store::{MemoryOperationStore, MemorySecretStore, SecretStore};
use dicom_export::testing::{Call, FaultPlan, FaultyOperationStore, FaultySecretStore};
use dicom_export::{
    BlobSink, Error, ErrorKind, ExportDestination, ExportEngine, ExportEngineBuilder, ExportSource,
    MemorySink, NewOperation, OperationId, OperationSpec, OperationStatus, Result,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::archive;

/// A destination that needs a secret.
struct SecretProvider(MemorySink);

#[async_trait]
impl SinkProvider for SecretProvider {
    fn validate(&self, _: &Value) -> Result<ValidatedSettings> {
        Ok(ValidatedSettings::new("here", Value::Null).with_secret(Secret::new("a secret")))
    }

    async fn open(&self, _: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        match secret {
            Some(_) => Ok(Arc::new(self.0.clone())),
            None => Err(Error::new(ErrorKind::Unauthorized, "no secret")),
        }
    }
}

fn replica() -> ExportEngineBuilder {
    ExportEngine::builder(archive(5)).destination("test", SecretProvider(MemorySink::new()))
}

fn new_operation(id: OperationId) -> NewOperation {
    NewOperation::new(ExportSource::Everything, ExportDestination::new("test", json!({}))).with_id(id)
}

/// Waits before it stores a secret.
struct GatedSecrets {
    inner: MemorySecretStore,
    waiting: watch::Sender<bool>,
    open: watch::Receiver<bool>,
}

#[async_trait]
impl SecretStore for GatedSecrets {
    async fn put(&self, id: OperationId, secret: &Secret) -> Result<()> {
        self.waiting.send_replace(true);
        self.open.clone().wait_for(|open| *open).await.unwrap();
        self.inner.put(id, secret).await
    }

    async fn get(&self, id: OperationId) -> Result<Option<Secret>> {
        self.inner.get(id).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        self.inner.delete(id).await
    }
}

#[tokio::test]
async fn guarantee_9_an_operation_that_is_being_started_is_not_taken_over_by_another_replica() {
    let (store, secrets) = (MemoryOperationStore::new(), MemorySecretStore::new());
    let (waiting, mut is_waiting) = watch::channel(false);
    let (open, is_open) = watch::channel(false);
    let gated = GatedSecrets { inner: secrets.clone(), waiting, open: is_open };
    let first = replica().operation_store(store.clone()).secret_store(gated).build().unwrap();
    let second = replica().operation_store(store.clone()).secret_store(secrets.clone()).build().unwrap();
    let id = OperationId::random();
    let starting = {
        let first = first.clone();
        tokio::spawn(async move { first.start(new_operation(id)).await })
    };
    is_waiting.wait_for(|waiting| *waiting).await.unwrap();
    assert!(second.resume_all().await.unwrap().is_empty(), "the operation is being started");
    open.send_replace(true);
    starting.await.unwrap().unwrap();
    assert!(second.resume_all().await.unwrap().is_empty(), "the operation has a runner");
    let ended = first.wait(id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 5), "{:?}", ended.error);
    first.shutdown(std::time::Duration::from_secs(60)).await;
    assert!(secrets.get(id).await.unwrap().is_none(), "the secret outlived the operation");
}

#[tokio::test(start_paused = true)]
async fn guarantee_6_a_start_that_fails_leaves_no_secret() {
    let lost_secrets = FaultPlan::new(1).lost_responses([Call::PutSecret], 1.0);
    let failing_secrets = FaultPlan::new(1).fails([Call::PutSecret], 1.0, [ErrorKind::Internal]);
    let failing_operations = FaultPlan::new(1).fails([Call::Create], 1.0, [ErrorKind::Internal]);
    let none = || FaultPlan::new(0);
    for (secret_faults, store_faults) in
        [(lost_secrets, none()), (failing_secrets, none()), (none(), failing_operations)]
    {
        let (store, secrets) = (MemoryOperationStore::new(), MemorySecretStore::new());
        let engine = replica()
            .operation_store(FaultyOperationStore::new(store.clone(), store_faults.clone()))
            .secret_store(FaultySecretStore::new(secrets.clone(), secret_faults.clone()))
            .build()
            .unwrap();
        let id = OperationId::random();
        let started = engine.start(new_operation(id)).await;
        let faults = secret_faults.faults() + store_faults.faults();
        assert!(faults > 0 && started.is_err(), "{started:?}");
        assert!(secrets.get(id).await.unwrap().is_none(), "{store_faults:?} {secret_faults:?}");
    }
}
