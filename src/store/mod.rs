//! What is kept of operations: [`OperationStore`] for their state, [`SecretStore`] for their credentials.

mod memory;
#[cfg(feature = "redb")]
mod redb;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::memory::{MemoryOperationStore, MemorySecretStore};
#[cfg(feature = "redb")]
pub use self::redb::{RedbOperationStore, StorageBackend};
use crate::error::Result;
pub use crate::model::{Checkpoint, Lease, OperationId, OperationKey, OperationSpec, Position, Totals};
pub use crate::secret::Secret;

/// Operations and how far they have come.
///
/// # Contract
/// - An operation is a spec, written once, and a checkpoint, saved often. The two appear together.
/// - [`save`](Self::save) is a compare-and-swap: it succeeds only over the version that the checkpoint was loaded
///   with. The loser of a race reloads, and obeys what it finds or stops. So several replicas over one store work.
/// - What a call has returned from is durable, as durable as the store is.
///
/// # Errors
/// [`Unavailable`](crate::ErrorKind::Unavailable) is repeated by the engine within its retry budget. A lost race is
/// [`Conflict`](crate::ErrorKind::Conflict), an unknown operation [`NotFound`](crate::ErrorKind::NotFound).
///
/// # Cancellation
/// Dropping a future leaves the call done or not done, never half done.
///
/// # Retry and idempotence
/// A `save` whose answer was lost is found out by its repetition's conflict and a reload.
///
/// # Concurrency
/// Many calls run at once, from many processes where the store has many.
#[async_trait]
pub trait OperationStore: Send + Sync + 'static {
    /// Stores a new operation; its checkpoint gets version 1.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when there is one of this id.
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()>;

    /// The operation's spec.
    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>>;

    /// The operation's checkpoint, with its version.
    async fn load(&self, id: OperationId) -> Result<Checkpoint>;

    /// Saves a checkpoint over the version it was loaded with, and gives the version it has now.
    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64>;

    /// Operations, newest first (by creation time, then by id, both falling), those after this one.
    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>>;

    /// Forgets an operation; nothing happens when there is none.
    async fn delete(&self, id: OperationId) -> Result<()>;
}

/// Credentials of operations that have not ended: a vault, say. They are never in the [`OperationStore`].
///
/// # Contract
/// What [`put`](Self::put) stored is what [`get`](Self::get) gives, until [`delete`](Self::delete); `None` when it is
/// gone. The engine deletes a secret when its operation ends in any way.
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// Stores an operation's secret, or replaces it.
    async fn put(&self, id: OperationId, secret: &Secret) -> Result<()>;

    /// The operation's secret, if it is there.
    async fn get(&self, id: OperationId) -> Result<Option<Secret>>;

    /// Forgets the operation's secret; nothing happens when there is none.
    async fn delete(&self, id: OperationId) -> Result<()>;
}

macro_rules! delegate {
    ($pointer:ident) => {
        #[async_trait]
        impl<S: OperationStore + ?Sized> OperationStore for $pointer<S> {
            async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
                (**self).create(spec, checkpoint).await
            }

            async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
                (**self).spec(id).await
            }

            async fn load(&self, id: OperationId) -> Result<Checkpoint> {
                (**self).load(id).await
            }

            async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
                (**self).save(id, checkpoint).await
            }

            async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
                (**self).list(after, limit).await
            }

            async fn delete(&self, id: OperationId) -> Result<()> {
                (**self).delete(id).await
            }
        }

        #[async_trait]
        impl<S: SecretStore + ?Sized> SecretStore for $pointer<S> {
            async fn put(&self, id: OperationId, secret: &Secret) -> Result<()> {
                (**self).put(id, secret).await
            }

            async fn get(&self, id: OperationId) -> Result<Option<Secret>> {
                (**self).get(id).await
            }

            async fn delete(&self, id: OperationId) -> Result<()> {
                (**self).delete(id).await
            }
        }
    };
}

delegate!(Arc);
delegate!(Box);
