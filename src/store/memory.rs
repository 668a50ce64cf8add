//! Stores in memory. Their contents are lost when the process ends.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Checkpoint, OperationId, OperationKey, OperationSpec};
use crate::secret::Secret;
use crate::store::{OperationFilter, OperationStore, SecretStore};
use crate::sync::lock;

/// Operations in memory. Clones share them. They are lost when the process ends.
///
/// ```
/// use dicom_export::store::MemoryOperationStore;
/// use dicom_export::{ExportEngine, MemorySource};
///
/// # fn main() -> dicom_export::Result<()> {
/// // Both engines know the operations of the other.
/// let store = MemoryOperationStore::new();
/// let one = ExportEngine::builder(MemorySource::new()).operation_store(store.clone()).build()?;
/// let two = ExportEngine::builder(MemorySource::new()).operation_store(store).build()?;
/// # let _ = (one, two);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct MemoryOperationStore {
    operations: Arc<Mutex<Operations>>,
}

#[derive(Debug, Default)]
struct Operations {
    by_id: HashMap<OperationId, (Arc<OperationSpec>, Checkpoint)>,
    by_key: BTreeSet<OperationKey>,
}

impl Operations {
    fn newest_first(&self, after: Option<OperationKey>) -> impl Iterator<Item = &OperationKey> {
        let end = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_key.range((Bound::Unbounded, end)).rev()
    }
}

impl MemoryOperationStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Operations> {
        lock(&self.operations)
    }
}

fn not_found() -> Error {
    Error::new(ErrorKind::NotFound, "the operation does not exist")
}

#[async_trait]
impl OperationStore for MemoryOperationStore {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        let mut operations = self.lock();
        if operations.by_id.contains_key(&spec.id) {
            return Err(Error::new(ErrorKind::Conflict, "the operation already exists"));
        }
        let checkpoint = Checkpoint { version: 1, ..checkpoint.clone() };
        operations.by_key.insert(spec.into());
        operations.by_id.insert(spec.id, (Arc::new(spec.clone()), checkpoint));
        Ok(())
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.lock().by_id.get(&id).map(|(spec, _)| Arc::clone(spec)).ok_or_else(not_found)
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.lock().by_id.get(&id).map(|(_, checkpoint)| checkpoint.clone()).ok_or_else(not_found)
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        let mut operations = self.lock();
        let (_, stored) = operations.by_id.get_mut(&id).ok_or_else(not_found)?;
        if stored.version != checkpoint.version {
            return Err(Error::new(ErrorKind::Conflict, "the operation was changed concurrently"));
        }
        *stored = Checkpoint { version: stored.version + 1, ..checkpoint.clone() };
        Ok(stored.version)
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        Ok(self.lock().newest_first(after).take(limit).copied().collect())
    }

    async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        let operations = self.lock();
        let found = operations.newest_first(filter.after).filter_map(|key| {
            let (_, checkpoint) = operations.by_id.get(&key.id)?;
            filter.matches(checkpoint).then(|| (*key, checkpoint.clone()))
        });
        Ok(found.take(filter.limit).collect())
    }

    async fn count(&self, filter: &OperationFilter) -> Result<usize> {
        let operations = self.lock();
        let matching = operations.newest_first(filter.after).filter(|key| {
            operations.by_id.get(&key.id).is_some_and(|(_, checkpoint)| filter.matches(checkpoint))
        });
        Ok(matching.take(filter.limit).count())
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        let mut operations = self.lock();
        if let Some((spec, _)) = operations.by_id.remove(&id) {
            operations.by_key.remove(&OperationKey::from(&*spec));
        }
        Ok(())
    }
}

/// Secrets in memory. After a restart, an operation that needs a secret fails with the code `credentialsNeeded` until it is
/// resumed with a destination.
#[derive(Debug, Clone, Default)]
pub struct MemorySecretStore {
    secrets: Arc<Mutex<HashMap<OperationId, Secret>>>,
}

impl MemorySecretStore {
    /// Creates an empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OperationId, Secret>> {
        lock(&self.secrets)
    }
}

#[async_trait]
impl SecretStore for MemorySecretStore {
    async fn put(&self, id: OperationId, secret: &Secret) -> Result<()> {
        self.lock().insert(id, secret.clone());
        Ok(())
    }

    async fn get(&self, id: OperationId) -> Result<Option<Secret>> {
        Ok(self.lock().get(&id).cloned())
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        self.lock().remove(&id);
        Ok(())
    }
}
