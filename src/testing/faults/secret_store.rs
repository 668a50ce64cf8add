//! [`FaultySecretStore`].

use async_trait::async_trait;

use crate::error::Result;
use crate::model::OperationId;
use crate::secret::Secret;
use crate::store::SecretStore;
use crate::testing::faults::plan::{Call, FaultPlan};

/// Wraps a secret store and makes its calls fail according to a [`FaultPlan`].
#[derive(Debug, Clone)]
pub struct FaultySecretStore<S> {
    inner: S,
    plan: FaultPlan,
}

impl<S> FaultySecretStore<S> {
    /// Wraps a store.
    pub fn new(inner: S, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

#[async_trait]
impl<S: SecretStore> SecretStore for FaultySecretStore<S> {
    async fn put(&self, id: OperationId, secret: &Secret) -> Result<()> {
        self.plan.call(Call::PutSecret, &id.to_string(), self.inner.put(id, secret)).await
    }

    async fn get(&self, id: OperationId) -> Result<Option<Secret>> {
        self.plan.call(Call::GetSecret, &id.to_string(), self.inner.get(id)).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        self.plan.call(Call::DeleteSecret, &id.to_string(), self.inner.delete(id)).await
    }
}
