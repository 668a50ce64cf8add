//! [`HookedStore`]: a store in memory that calls a hook before each save.

use std::sync::Arc;

use async_trait::async_trait;
use dicom_export::Result;
use dicom_export::store::{
    Checkpoint, MemoryOperationStore, OperationFilter, OperationId, OperationKey, OperationSpec,
    OperationStore,
};

#[async_trait]
pub(crate) trait StoreHook: Send + Sync + 'static {
    /// Runs before a checkpoint is saved. It may change what is stored, after which the save conflicts.
    async fn before_save(
        &self,
        store: &MemoryOperationStore,
        id: OperationId,
        checkpoint: &Checkpoint,
    ) -> Result<()>;
}

pub(crate) struct HookedStore<H> {
    pub(crate) inner: MemoryOperationStore,
    pub(crate) hook: H,
}

#[async_trait]
impl<H: StoreHook> OperationStore for HookedStore<H> {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        self.inner.create(spec, checkpoint).await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.inner.spec(id).await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.inner.load(id).await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        self.hook.before_save(&self.inner, id, checkpoint).await?;
        self.inner.save(id, checkpoint).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        self.inner.list(after, limit).await
    }

    async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        self.inner.query(filter).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        self.inner.delete(id).await
    }
}
