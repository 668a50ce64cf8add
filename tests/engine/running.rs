//! The limits of running operations, and the deletion of expired ones, in a store with many operations that have ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use dicom_export::store::{
    Checkpoint, MemoryOperationStore, OperationFilter, OperationId, OperationKey, OperationSpec,
    OperationStatus, OperationStore, Timestamp,
};
use dicom_export::{
    Error, ErrorKind, ExportEngine, ExportEngineBuilder, ExportSource, NewOperation, Operation,
    OperationContext, Result,
};
use serde_json::json;

use crate::support::{FaultySink, archive};

/// The number of operations in the store that have ended.
const ENDED: usize = 1000;

/// Counts the operations that are loaded.
#[derive(Clone, Default)]
struct CountedStore {
    inner: MemoryOperationStore,
    loaded: Arc<AtomicUsize>,
}

impl CountedStore {
    /// A store with operations that ended this long ago.
    async fn with_ended(ages: impl IntoIterator<Item = Duration>) -> Self {
        let store = Self::default();
        for age in ages {
            let time = Timestamp::now().saturating_sub(age);
            let spec: OperationSpec = serde_json::from_value(json!({
                "id": OperationId::random(), "createdTime": time, "source": null, "errorHref": "",
                "destination": { "type": "memory", "location": "", "settings": null, "hasSecret": false },
            }))
            .unwrap();
            let mut checkpoint = Checkpoint::first(time);
            checkpoint.status = OperationStatus::Completed;
            store.create(&spec, &checkpoint).await.unwrap();
        }
        store
    }

    async fn stored(&self) -> usize {
        self.inner.count(&OperationFilter::new(usize::MAX)).await.unwrap()
    }
}

#[async_trait]
impl OperationStore for CountedStore {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        // Other starts run in between.
        tokio::task::yield_now().await;
        self.inner.create(spec, checkpoint).await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.inner.spec(id).await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.loaded.fetch_add(1, SeqCst);
        self.inner.load(id).await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        self.inner.save(id, checkpoint).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        self.inner.list(after, limit).await
    }

    async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        let found = self.inner.query(filter).await?;
        self.loaded.fetch_add(found.len(), SeqCst);
        Ok(found)
    }

    async fn count(&self, filter: &OperationFilter) -> Result<usize> {
        tokio::task::yield_now().await;
        self.inner.count(filter).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        self.inner.delete(id).await
    }
}

fn builder(store: &CountedStore) -> ExportEngineBuilder {
    ExportEngine::builder(archive(10)).operation_store(store.clone())
}

/// A sink whose puts do not end during a test.
fn stalled_sink() -> FaultySink {
    FaultySink::with_latency(Duration::from_secs(3600))
}

/// Starts operations of these partitions concurrently, and returns those that were accepted.
async fn start_all(engine: &ExportEngine, partitions: &[Option<&str>]) -> Vec<Operation> {
    let starts = partitions.iter().map(|partition| async move {
        let mut context = OperationContext::default();
        context.partition = partition.map(str::to_owned);
        let new = NewOperation::new(ExportSource::Everything, stalled_sink()).with_context(context);
        engine.start(new).await
    });
    let refused = |error: Error| {
        assert_eq!(error.kind(), ErrorKind::LimitReached, "{error:?}");
        assert!(error.retry_after().is_some_and(|wait| wait >= Duration::from_secs(1)));
    };
    let started = futures::future::join_all(starts).await;
    started.into_iter().filter_map(|started| started.map_err(refused).ok()).collect()
}

/// Each start used to load every operation of the last five minutes.
#[tokio::test]
async fn a_start_is_refused_above_the_limit_without_loading_operations() {
    let store = CountedStore::with_ended([Duration::from_secs(60); ENDED]).await;
    let engine = builder(&store).max_running(3).build().unwrap();
    let started = start_all(&engine, &[None; 20]).await;
    assert_eq!(started.len(), 3);
    assert_eq!(store.loaded.load(SeqCst), 0, "a start loads operations");

    // Operations of other replicas count. A canceled one does not.
    let other = builder(&store).max_running(3).build().unwrap();
    assert_eq!(start_all(&other, &[None]).await, []);
    engine.cancel(started[0].operation_id).await.unwrap();
    engine.wait(started[0].operation_id).await.unwrap();
    assert_eq!(start_all(&other, &[None; 5]).await.len(), 1);
    engine.shutdown(Duration::ZERO).await;
    other.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn each_partition_has_its_own_limit() {
    let store = CountedStore::with_ended([Duration::from_secs(60); ENDED]).await;
    let engine = builder(&store).max_running(6).max_running_per_partition(2).build().unwrap();
    let (north, south) = (Some("north"), Some("south"));
    assert_eq!(start_all(&engine, &[north; 5]).await.len(), 2);
    assert_eq!(start_all(&engine, &[south, north, south, north, south]).await.len(), 2);
    // Without a partition, the overall limit applies.
    assert_eq!(start_all(&engine, &[None, None, None, None]).await.len(), 2);
    assert_eq!(store.loaded.load(SeqCst), 0, "a start loads operations");
    engine.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_failed_operation_counts_once_it_is_resumed() {
    let store = CountedStore::default();
    let engine = builder(&store).max_running(1).build().unwrap();
    let failing = FaultySink::new();
    failing.plan().fail_all(ErrorKind::Unauthorized, 0);
    let failed = engine.start(NewOperation::new(ExportSource::Everything, failing.clone())).await.unwrap();
    let failed = engine.wait(failed.operation_id).await.unwrap();
    assert_eq!(failed.status, OperationStatus::Failed);
    let running = start_all(&engine, &[None]).await.remove(0);
    let refused = engine.resume(failed.operation_id, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LimitReached);
    engine.cancel(running.operation_id).await.unwrap();
    engine.wait(running.operation_id).await.unwrap();
    let stalled = FaultySink { inner: failing.inner, ..stalled_sink() };
    engine.resume(failed.operation_id, Some(stalled.into())).await.unwrap();
    assert_eq!(start_all(&engine, &[None]).await, []);
    engine.shutdown(Duration::ZERO).await;
}

/// A purge used to load every operation that had ended.
#[tokio::test]
async fn a_purge_loads_only_expired_operations() {
    let day = Duration::from_secs(24 * 3600);
    let ages = (0..ENDED).map(|number| if number < 7 { 3 * day } else { day });
    let store = CountedStore::with_ended(ages).await;
    let engine = builder(&store).retention(2 * day).build().unwrap();
    assert_eq!(engine.purge_expired().await.unwrap(), 7);
    assert_eq!((store.loaded.load(SeqCst), store.stored().await), (7, ENDED - 7));
    assert_eq!(engine.purge_expired().await.unwrap(), 0);
}
