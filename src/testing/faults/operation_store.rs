//! [`FaultyOperationStore`].

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{Checkpoint, OperationKey};
use crate::model::{OperationId, OperationSpec, Timestamp};
use crate::store::{OperationFilter, OperationStore};
use crate::testing::faults::plan::{Call, FaultPlan};

/// Wraps an operation store and makes its calls fail according to a [`FaultPlan`].
#[derive(Debug, Clone)]
pub struct FaultyOperationStore<S> {
    inner: S,
    plan: FaultPlan,
}

impl<S> FaultyOperationStore<S> {
    /// Wraps a store.
    pub fn new(inner: S, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

#[async_trait]
impl<S: OperationStore> OperationStore for FaultyOperationStore<S> {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        self.plan.call(Call::Create, &spec.id.to_string(), self.inner.create(spec, checkpoint)).await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.plan.call(Call::Spec, &id.to_string(), self.inner.spec(id)).await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.plan.call(Call::Load, &id.to_string(), self.inner.load(id)).await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        self.plan.call(Call::Save, &id.to_string(), self.inner.save(id, checkpoint)).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        let name = after.map(|after| after.id.to_string()).unwrap_or_default();
        self.plan.call(Call::ListOperations, &name, self.inner.list(after, limit)).await
    }

    async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        let name = filter.after.map(|after| after.id.to_string()).unwrap_or_default();
        self.plan.call(Call::QueryOperations, &name, self.inner.query(filter)).await
    }

    async fn count(&self, filter: &OperationFilter) -> Result<usize> {
        self.plan.call(Call::QueryOperations, "count", self.inner.count(filter)).await
    }

    /// Never fails.
    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        self.plan.call(Call::Delete, &id.to_string(), self.inner.delete(id)).await
    }
}
