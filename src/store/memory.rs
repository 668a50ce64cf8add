//! Stores in memory: what they hold ends with the process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{Checkpoint, OperationKey};
use crate::model::{OperationId, OperationSpec};
use crate::secret::Secret;
use crate::store::{OperationStore, SecretStore};
use crate::sync::lock;

/// Operations in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct MemoryOperationStore {
    operations: Arc<Mutex<Operations>>,
}

#[derive(Debug, Default)]
struct Operations {
    by_id: HashMap<OperationId, (Arc<OperationSpec>, Checkpoint)>,
    by_age: BTreeMap<OperationKey, ()>,
}

impl MemoryOperationStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, Operations> {
        lock(&self.operations)
    }
}

fn unknown() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such operation")
}

#[async_trait]
impl OperationStore for MemoryOperationStore {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        let mut operations = self.lock();
        if operations.by_id.contains_key(&spec.id) {
            return Err(Error::new(ErrorKind::Conflict, "there is an operation of this id"));
        }
        let checkpoint = Checkpoint { version: 1, ..checkpoint.clone() };
        operations.by_age.insert(spec.into(), ());
        operations.by_id.insert(spec.id, (Arc::new(spec.clone()), checkpoint));
        Ok(())
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.lock().by_id.get(&id).map(|(spec, _)| Arc::clone(spec)).ok_or_else(unknown)
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.lock().by_id.get(&id).map(|(_, checkpoint)| checkpoint.clone()).ok_or_else(unknown)
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        let mut operations = self.lock();
        let (_, stored) = operations.by_id.get_mut(&id).ok_or_else(unknown)?;
        if stored.version != checkpoint.version {
            return Err(Error::new(ErrorKind::Conflict, "the operation was changed meanwhile"));
        }
        *stored = Checkpoint { version: stored.version + 1, ..checkpoint.clone() };
        Ok(stored.version)
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        let operations = self.lock();
        let newest_first = match after {
            Some(after) => operations.by_age.range(..after),
            None => operations.by_age.range(..),
        };
        Ok(newest_first.rev().take(limit).map(|(key, ())| *key).collect())
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        let mut operations = self.lock();
        if let Some((spec, _)) = operations.by_id.remove(&id) {
            operations.by_age.remove(&OperationKey::from(&*spec));
        }
        Ok(())
    }
}

/// Secrets in memory only: after a restart, an operation that needs one fails with the code `credentialsNeeded` until
/// it is resumed with a destination.
#[derive(Debug, Clone, Default)]
pub struct MemorySecretStore {
    secrets: Arc<Mutex<HashMap<OperationId, Secret>>>,
}

impl MemorySecretStore {
    /// An empty store.
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
