//! A database that is away for longer than a lease.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dicom_export::sink::ValidatedSettings;
use dicom_export::sqlx::postgres::PgPoolOptions;
use dicom_export::store::{OperationStore, PostgresOperationStore};
use dicom_export::testing::fixtures;
use dicom_export::{
    BlobSink, Concurrency, ErrorKind, ExportDestination, ExportEngine, ExportSource, MemorySource,
    NewOperation, OperationSpec, OperationStatus, Result, Secret, SinkProvider,
};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};
use crate::postgres::Postgres;

/// Longer than two leases.
const OUTAGE: Duration = Duration::from_secs(40);

const INSTANCES: u32 = 3000;

/// A hook that lets as many puts pass as it has permits.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) Arc<Semaphore>);

#[async_trait]
impl SinkHook for Gate {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        if let SinkCall::Put(..) = call {
            self.0.acquire().await.expect("the gate is open").forget();
        }
        Ok(())
    }
}

pub(crate) fn gated_sink(puts: usize) -> HookedSink<Gate> {
    HookedSink::with_hook(Gate(Arc::new(Semaphore::new(puts))))
}

/// A destination type whose operations all write to one sink.
pub(crate) struct Shared(pub(crate) HookedSink<Gate>);

#[async_trait]
impl SinkProvider for Shared {
    fn validate(&self, _: &Value) -> Result<ValidatedSettings> {
        Ok(ValidatedSettings::new("here", Value::Null))
    }

    async fn open(&self, _: &OperationSpec, _: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        Ok(Arc::new(self.0.clone()))
    }
}

pub(crate) fn export_everything() -> NewOperation {
    NewOperation::new(ExportSource::Everything, ExportDestination::new("shared", Value::Null))
}

pub(crate) fn archive(instances: u32) -> Arc<MemorySource> {
    let instance = |n| (fixtures::instance(n / 100, 0, n), fixtures::ct_slice(n / 100, 0, n));
    Arc::new((0..instances).map(instance).collect())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL: tests/run.sh"]
async fn guarantee_4_and_9_an_export_survives_a_database_that_is_away_for_40_seconds() {
    let mut server = Postgres::start().await;
    let (archive, sink) = (archive(INSTANCES), gated_sink(1000));
    let mut engines = Vec::new();
    for _ in 0..2 {
        let pool = PgPoolOptions::new().acquire_timeout(Duration::from_secs(1));
        let store = PostgresOperationStore::new(pool.connect_with(server.options()).await.unwrap());
        store.migrate().await.unwrap();
        let engine = ExportEngine::builder(Arc::clone(&archive))
            .destination("shared", Shared(sink.clone()))
            .operation_store(store)
            .concurrency(Concurrency::Fixed(8))
            .batch_size(50)
            .takeover_interval(Some(Duration::from_secs(2)))
            .build()
            .unwrap();
        engine.resume_all().await.unwrap();
        engines.push(engine);
    }
    let id = engines[0].start(export_everything()).await.unwrap().operation_id;
    // In the middle of the export, with checkpoints behind it and batches in progress.
    while engines[1].status(id).await.unwrap().results.exported == 0 || sink.hook.0.available_permits() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
    server.stop();
    sink.hook.0.add_permits(1000);
    let refused = engines[1].status(id).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused:?}");
    sleep(OUTAGE).await;
    server.restart().await;
    sink.hook.0.add_permits(Semaphore::MAX_PERMITS / 2);

    let ended = engines[1].wait(id).await.unwrap();
    assert_eq!((ended.status, &ended.error), (OperationStatus::Completed, &None));
    assert_eq!((ended.results.exported, ended.results.skipped), (u64::from(INSTANCES), 0));
    let results = format!("{id}/results/");
    let exported = sink.inner.names().iter().filter(|name| name.starts_with(&results)).count();
    assert_eq!(exported, INSTANCES as usize);
    let store = PostgresOperationStore::new(server.pool().await);
    assert_eq!(store.load(id).await.unwrap().lease, None);
    for engine in engines {
        engine.shutdown(Duration::ZERO).await;
    }
}
