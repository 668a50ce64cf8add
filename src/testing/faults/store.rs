//! [`FaultyOperationStore`].

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::operation::{OperationId, OperationSpec};
use crate::store::{Checkpoint, OperationKey, OperationStore};
use crate::testing::faults::plan::{Call, FaultPlan};

/// An operation store that fails as planned.
#[derive(Debug, Clone)]
pub struct FaultyOperationStore<S> {
    inner: S,
    plan: FaultPlan,
}

impl<S> FaultyOperationStore<S> {
    /// This store, with these faults.
    pub fn new(inner: S, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

#[async_trait]
impl<S: OperationStore> OperationStore for FaultyOperationStore<S> {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        let mut turn = self.plan.turn(Call::Create, &spec.id.to_string()).await;
        turn.begin()?;
        self.inner.create(spec, checkpoint).await?;
        turn.end(()).await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        let mut turn = self.plan.turn(Call::Spec, &id.to_string()).await;
        turn.begin()?;
        let spec = self.inner.spec(id).await?;
        turn.end(spec).await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        let mut turn = self.plan.turn(Call::Load, &id.to_string()).await;
        turn.begin()?;
        let checkpoint = self.inner.load(id).await?;
        turn.end(checkpoint).await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        let mut turn = self.plan.turn(Call::Save, &id.to_string()).await;
        turn.begin()?;
        let version = self.inner.save(id, checkpoint).await?;
        turn.end(version).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        let name = after.map(|after| after.id.to_string()).unwrap_or_default();
        let mut turn = self.plan.turn(Call::ListOperations, &name).await;
        turn.begin()?;
        let found = self.inner.list(after, limit).await?;
        turn.end(found).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        let mut turn = self.plan.turn(Call::Delete, &id.to_string()).await;
        turn.begin()?;
        self.inner.delete(id).await?;
        turn.end(()).await
    }
}
