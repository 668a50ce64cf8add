//! [`TimeLimited`]: a store whose calls fail if they take too long.

#![deny(clippy::missing_trait_methods, reason = "a method that is not forwarded would have no limit")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{Checkpoint, OperationId, OperationKey, OperationSpec, Timestamp};
use crate::secret::Secret;
use crate::store::{OperationFilter, OperationStore, SecretStore};
use crate::sync::within;

/// A store of the host, each call of which fails with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) after
/// `limit`.
pub(crate) struct TimeLimited<S> {
    pub(crate) inner: S,
    pub(crate) limit: Duration,
}

const OPERATION_STORE: &str = "the operation store";
const SECRET_STORE: &str = "the secret store";

#[async_trait]
impl OperationStore for TimeLimited<Arc<dyn OperationStore>> {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        within(self.limit, OPERATION_STORE, self.inner.create(spec, checkpoint)).await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        within(self.limit, OPERATION_STORE, self.inner.spec(id)).await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        within(self.limit, OPERATION_STORE, self.inner.load(id)).await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        within(self.limit, OPERATION_STORE, self.inner.save(id, checkpoint)).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        within(self.limit, OPERATION_STORE, self.inner.list(after, limit)).await
    }

    async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        within(self.limit, OPERATION_STORE, self.inner.query(filter)).await
    }

    async fn count(&self, filter: &OperationFilter) -> Result<usize> {
        within(self.limit, OPERATION_STORE, self.inner.count(filter)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        within(self.limit, OPERATION_STORE, self.inner.now()).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        within(self.limit, OPERATION_STORE, self.inner.delete(id)).await
    }
}

#[async_trait]
impl SecretStore for TimeLimited<Arc<dyn SecretStore>> {
    async fn put(&self, id: OperationId, secret: &Secret) -> Result<()> {
        within(self.limit, SECRET_STORE, self.inner.put(id, secret)).await
    }

    async fn get(&self, id: OperationId) -> Result<Option<Secret>> {
        within(self.limit, SECRET_STORE, self.inner.get(id)).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        within(self.limit, SECRET_STORE, self.inner.delete(id)).await
    }
}
