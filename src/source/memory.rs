//! [`MemorySource`]: instances in memory, for tests and small servers.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;

use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::model::ExportSource;
use crate::model::InstanceIdentifier;
use crate::model::{Cursor, Instance, ListRequest, Page, Scope};
use crate::source::InstanceSource;
use crate::sync::lock;

/// Instances in memory, listed in the order of their identifiers. Instances can be added and removed while an export
/// runs.
///
/// ```
/// use std::sync::Arc;
/// use dicom_export::{BlobSink, ExportEngine, ExportSource, MemorySink, MemorySource, NewOperation};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
///
/// let source = MemorySource::new();
/// source.insert("1.2.3/1.2.3.1/1.2.3.1.1".parse()?, "bytes of a file");
/// let engine = ExportEngine::builder(source).build()?;
/// let sink: Arc<dyn BlobSink> = Arc::new(MemorySink::new());
/// let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await?;
/// let ended = engine.wait(started.operation_id).await?;
/// assert_eq!(ended.results.exported, 1);
/// # Ok::<_, dicom_export::Error>(()) }).unwrap();
/// ```
#[derive(Default)]
pub struct MemorySource {
    instances: Mutex<BTreeMap<InstanceIdentifier, Bytes>>,
}

impl MemorySource {
    /// Creates an empty source.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an instance, or replaces the one with the same identifier.
    pub fn insert(&self, identifier: InstanceIdentifier, bytes: impl Into<Bytes>) {
        self.lock().insert(identifier, bytes.into());
    }

    /// Removes an instance. Returns whether it existed.
    pub fn remove(&self, identifier: &InstanceIdentifier) -> bool {
        self.lock().remove(identifier).is_some()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceIdentifier, Bytes>> {
        lock(&self.instances)
    }
}

impl std::fmt::Debug for MemorySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemorySource").field("instances", &self.lock().len()).finish()
    }
}

impl FromIterator<(InstanceIdentifier, Bytes)> for MemorySource {
    fn from_iter<T: IntoIterator<Item = (InstanceIdentifier, Bytes)>>(instances: T) -> Self {
        Self { instances: Mutex::new(instances.into_iter().collect()) }
    }
}

#[async_trait]
impl InstanceSource for MemorySource {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let after: Option<InstanceIdentifier> = match request.after {
            Some(cursor) => Some(cursor.decode()?),
            None => None,
        };
        let from = match (after, request.scope) {
            (Some(after), _) => Bound::Excluded(after),
            (None, Scope::Everything) => Bound::Unbounded,
            (None, Scope::Identifier(scope)) => Bound::Included(scope.first_possible()),
        };
        let instances = self.lock();
        let mut found = instances
            .range((from, Bound::Unbounded))
            .take_while(|(identifier, _)| match request.scope {
                Scope::Everything => true,
                Scope::Identifier(scope) => scope.covers(identifier),
            })
            .map(|(identifier, bytes)| Instance::new(identifier.clone()).with_size(bytes.len() as u64));
        let page: Vec<_> = found.by_ref().take(request.limit).collect();
        match page.last() {
            Some(last) if found.next().is_some() => {
                let next = Cursor::encode(last.identifier())?;
                Ok(Page::more(page, next))
            }
            _ => Ok(Page::last(page)),
        }
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        match self.lock().get(instance.identifier()) {
            Some(bytes) => Ok(Content::from_bytes(bytes.clone())),
            None => Err(Error::new(ErrorKind::NotFound, "the instance does not exist any more")),
        }
    }

    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        Ok(source.is_everything().then(|| self.lock().len() as u64))
    }
}
