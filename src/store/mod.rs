//! Stored operations: [`OperationStore`] for their state, [`SecretStore`] for their credentials.
//!
//! [`MemoryOperationStore`] is the default. `RedbOperationStore` (feature `redb`) keeps operations in one durable file,
//! `PostgresOperationStore` (feature `postgres`) in a database that several replicas share. To keep them in another one,
//! implement [`OperationStore`]. The conformance suites in `testing` check implementations.

mod filter;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "postgres", feature = "redb"))]
mod record;
#[cfg(feature = "redb")]
mod redb;
mod time_limit;

use std::sync::Arc;

use async_trait::async_trait;
use futures::future::join_all;

pub use self::filter::OperationFilter;
pub use self::memory::{MemoryOperationStore, MemorySecretStore};
#[cfg(feature = "postgres")]
pub use self::postgres::{PostgresOperationStore, PostgresSecretStore, SecretKey};
#[cfg(feature = "redb")]
pub use self::redb::{RedbOperationStore, StorageBackend};
pub(crate) use self::time_limit::TimeLimited;
use crate::error::{Error, ErrorKind, Result};
pub use crate::model::{
    Checkpoint, Lease, OperationContext, OperationId, OperationIssue, OperationKey, OperationSpec,
    OperationStatus, Position, StoredDestination, Timestamp, Totals,
};
pub use crate::secret::Secret;

/// The number of operations that the default implementation of [`OperationStore::query`] loads at once.
const QUERY_PAGE: usize = 64;

/// Stores operations and their progress.
///
/// # Contract
/// - An operation consists of a spec, which is written once, and a checkpoint, which is saved often. Both become visible
///   together.
/// - [`save`](Self::save) is a compare-and-swap: it succeeds only if the stored version is the one that the checkpoint was
///   loaded with. The loser of a race loads the checkpoint again. Several replicas can therefore share a store.
/// - When a call returns, its change is as durable as the store can make it.
///
/// # Errors
/// [`Unavailable`](crate::ErrorKind::Unavailable) is retried by the engine within its retry budget. A lost race is
/// [`Conflict`](crate::ErrorKind::Conflict), an unknown operation [`NotFound`](crate::ErrorKind::NotFound). A damaged record
/// affects its operation only: loading it fails with [`Unreadable`](crate::ErrorKind::Unreadable), or with
/// [`Unsupported`](crate::ErrorKind::Unsupported) if a later version has written it.
///
/// # Cancellation
/// A call whose future is dropped is either complete or has no effect.
///
/// # Retry and idempotence
/// If the response to a `save` is lost, repeating the call returns `Conflict`, and loading the checkpoint shows whether the
/// first call succeeded.
///
/// # Concurrency
/// Many calls run at once, from several processes if the store is shared.
///
/// # Examples
/// A store that keeps JSON documents in a map. A store over a database makes each call one transaction.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// use async_trait::async_trait;
/// use dicom_export::store::{Checkpoint, OperationId, OperationKey, OperationSpec, OperationStore};
/// use dicom_export::{Error, ErrorKind, ExportEngine, MemorySource, Result};
///
/// #[derive(Default)]
/// struct MapStore(Mutex<BTreeMap<OperationId, (String, Checkpoint)>>);
///
/// fn not_found() -> Error {
///     Error::new(ErrorKind::NotFound, "the operation does not exist")
/// }
///
/// fn spec_of(json: &str) -> Result<OperationSpec> {
///     serde_json::from_str(json).map_err(|_| Error::new(ErrorKind::Unreadable, "a stored spec cannot be read"))
/// }
///
/// #[async_trait]
/// impl OperationStore for MapStore {
///     async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
///         let json = serde_json::to_string(spec).map_err(|_| Error::new(ErrorKind::Internal, "not JSON"))?;
///         let mut operations = self.0.lock().unwrap();
///         if operations.contains_key(&spec.id) {
///             return Err(Error::new(ErrorKind::Conflict, "the operation already exists"));
///         }
///         let mut checkpoint = checkpoint.clone();
///         checkpoint.version = 1;
///         operations.insert(spec.id, (json, checkpoint));
///         Ok(())
///     }
///
///     async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
///         let operations = self.0.lock().unwrap();
///         let (json, _) = operations.get(&id).ok_or_else(not_found)?;
///         Ok(Arc::new(spec_of(json)?))
///     }
///
///     async fn load(&self, id: OperationId) -> Result<Checkpoint> {
///         let operations = self.0.lock().unwrap();
///         operations.get(&id).map(|(_, checkpoint)| checkpoint.clone()).ok_or_else(not_found)
///     }
///
///     async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
///         let mut operations = self.0.lock().unwrap();
///         let (_, stored) = operations.get_mut(&id).ok_or_else(not_found)?;
///         if stored.version != checkpoint.version {
///             return Err(Error::new(ErrorKind::Conflict, "the operation was changed concurrently"));
///         }
///         *stored = checkpoint.clone();
///         stored.version += 1;
///         Ok(stored.version)
///     }
///
///     async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
///         let operations = self.0.lock().unwrap();
///         let specs = operations.values().map(|(json, _)| spec_of(json));
///         let mut keys: Vec<_> = specs.map(|spec| spec.map(|spec| OperationKey::from(&spec))).collect::<Result<_>>()?;
///         keys.retain(|key| after.is_none_or(|after| *key < after));
///         keys.sort_unstable_by(|a, b| b.cmp(a));
///         keys.truncate(limit);
///         Ok(keys)
///     }
///
///     async fn delete(&self, id: OperationId) -> Result<()> {
///         self.0.lock().unwrap().remove(&id);
///         Ok(())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<()> {
/// let engine = ExportEngine::builder(MemorySource::new()).operation_store(MapStore::default()).build()?;
/// # let _ = engine;
/// # Ok(()) }
/// ```
#[async_trait]
pub trait OperationStore: Send + Sync + 'static {
    /// Stores a new operation. Its checkpoint gets version 1.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if an operation with this id exists.
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()>;

    /// Loads the operation's spec.
    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>>;

    /// Loads the operation's checkpoint, including its version.
    async fn load(&self, id: OperationId) -> Result<Checkpoint>;

    /// Saves a checkpoint if the stored version is `checkpoint.version`, and returns the new version.
    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64>;

    /// Lists at most `limit` operations, newest first (by creation time, then by id, both descending), starting after
    /// the key `after`. The operation of that key may have been deleted.
    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>>;

    /// Returns the operations that match a filter, newest first, with their checkpoints. Fewer than the filter's limit are
    /// returned only at the end of the listing.
    ///
    /// A record that is damaged, or that a later version has written, is skipped and logged with its id.
    ///
    /// The default implementation loads every operation that [`list`](Self::list) returns. A store with many operations
    /// should override it, so that a search for unfinished operations does not read those that have ended.
    async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        let (mut found, mut after) = (Vec::new(), filter.after);
        while found.len() < filter.limit {
            let keys = self.list(after, QUERY_PAGE).await?;
            let Some(last) = keys.last() else { break };
            after = Some(*last);
            let loaded = join_all(keys.iter().map(|key| self.load(key.id))).await;
            for (key, loaded) in keys.into_iter().zip(loaded) {
                match loaded {
                    Ok(checkpoint) if filter.matches(&checkpoint) => found.push((key, checkpoint)),
                    Ok(_) => {}
                    // It was deleted meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) if is_record_error(&error) => log_skipped(key.id, &error),
                    Err(error) => return Err(error),
                }
            }
        }
        found.truncate(filter.limit);
        Ok(found)
    }

    /// Returns the number of operations that match a filter, at most the filter's limit.
    ///
    /// The default implementation loads them with [`query`](Self::query). A store over a database should override it.
    async fn count(&self, filter: &OperationFilter) -> Result<usize> {
        Ok(self.query(filter).await?.len())
    }

    /// Returns the time that leases are compared with.
    ///
    /// The default implementation returns the time of this process. A store that several machines share should return its
    /// own time, so that their clocks need not agree.
    async fn now(&self) -> Result<Timestamp> {
        Ok(Timestamp::now())
    }

    /// Deletes an operation, even if its records are damaged. Does nothing if it does not exist.
    async fn delete(&self, id: OperationId) -> Result<()>;
}

/// Whether an error concerns one record, not the store.
fn is_record_error(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unreadable | ErrorKind::Unsupported)
}

fn log_skipped(id: OperationId, error: &Error) {
    tracing::warn!(operation = %id, kind = error.kind().as_str(), error = %error.report(), "skipped an operation");
}

/// Stores the credentials of operations that have not ended, for example in a vault. Credentials are never in the
/// [`OperationStore`].
///
/// # Contract
/// [`get`](Self::get) returns what [`put`](Self::put) stored, until [`delete`](Self::delete) is called, and otherwise
/// `None`. The engine deletes a secret when its operation ends.
///
/// # Errors
/// [`Unavailable`](crate::ErrorKind::Unavailable) is retried by the engine. No message repeats a secret.
///
/// # Retry and idempotence
/// Every call may be repeated.
///
/// # Examples
/// A store that keeps secrets in a map, like [`MemorySecretStore`]:
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Mutex;
///
/// use async_trait::async_trait;
/// use dicom_export::store::{OperationId, Secret, SecretStore};
/// use dicom_export::{ExportEngine, MemorySource, Result};
///
/// #[derive(Default)]
/// struct Vault(Mutex<HashMap<OperationId, Secret>>);
///
/// #[async_trait]
/// impl SecretStore for Vault {
///     async fn put(&self, id: OperationId, secret: &Secret) -> Result<()> {
///         self.0.lock().unwrap().insert(id, secret.clone());
///         Ok(())
///     }
///
///     async fn get(&self, id: OperationId) -> Result<Option<Secret>> {
///         Ok(self.0.lock().unwrap().get(&id).cloned())
///     }
///
///     async fn delete(&self, id: OperationId) -> Result<()> {
///         self.0.lock().unwrap().remove(&id);
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<()> {
/// let engine = ExportEngine::builder(MemorySource::new()).secret_store(Vault::default()).build()?;
/// # let _ = engine;
/// # Ok(()) }
/// ```
#[async_trait]
pub trait SecretStore: Send + Sync + 'static {
    /// Stores an operation's secret, replacing an earlier one.
    async fn put(&self, id: OperationId, secret: &Secret) -> Result<()>;

    /// The operation's secret, or `None` if there is none.
    async fn get(&self, id: OperationId) -> Result<Option<Secret>>;

    /// Deletes the operation's secret. Does nothing if there is none.
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

            async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
                (**self).query(filter).await
            }

            async fn count(&self, filter: &OperationFilter) -> Result<usize> {
                (**self).count(filter).await
            }

            async fn now(&self) -> Result<Timestamp> {
                (**self).now().await
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
