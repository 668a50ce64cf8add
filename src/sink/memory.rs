//! [`MemorySink`]: a container in memory, for tests.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use serde_json::Value;

use crate::content::Content;
use crate::error::Result;
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::model::OperationSpec;
use crate::secret::Secret;
use crate::sink::{BlobSink, LogKey, PutResult, SinkProvider, ValidatedSettings};
use crate::sync::lock;

/// A container in memory. Clones share it, so that a test can look at what its server wrote.
#[derive(Clone, Default)]
pub struct MemorySink {
    blobs: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemorySink {
    /// An empty container.
    pub fn new() -> Self {
        Self::default()
    }

    /// The blob of this name.
    pub fn get(&self, name: &str) -> Option<Bytes> {
        self.lock().get(name).cloned()
    }

    /// Every blob's name, sorted.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// A provider that opens this sink for every destination of the type it is registered under, whatever the settings:
    /// so an application's tests run its production requests against memory. The settings count as secret as a whole,
    /// and their container as the same one.
    pub fn provider(&self) -> MemorySinkProvider {
        MemorySinkProvider { sink: self.clone() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Bytes>> {
        lock(&self.blobs)
    }
}

impl fmt::Debug for MemorySink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySink").field("blobs", &self.lock().len()).finish()
    }
}

#[async_trait]
impl BlobSink for MemorySink {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.lock().entry(log.to_string()).or_default();
        Ok(())
    }

    async fn put(&self, path: &BlobPath, content: Content, _: &UploadContext) -> Result<PutResult> {
        let bytes = match content.as_bytes() {
            Some(bytes) => bytes.clone(),
            None => {
                let all = content.into_stream().try_fold(BytesMut::new(), async |mut all, chunk| {
                    all.extend_from_slice(&chunk);
                    Ok(all)
                });
                all.await?.freeze()
            }
        };
        let stored = PutResult::new(bytes.len() as u64);
        self.lock().insert(path.to_string(), bytes);
        Ok(stored)
    }

    async fn append(&self, log: &BlobPath, _: LogKey, lines: Bytes) -> Result<()> {
        let mut blobs = self.lock();
        let log = blobs.entry(log.to_string()).or_default();
        *log = [&log[..], &lines[..]].concat().into();
        Ok(())
    }

    async fn finish(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    fn url(&self, path: &BlobPath) -> String {
        format!("memory:///{path}")
    }

    fn location(&self) -> String {
        format!("memory:{:p}", Arc::as_ptr(&self.blobs))
    }
}

/// See [`MemorySink::provider`].
#[derive(Debug, Clone)]
pub struct MemorySinkProvider {
    sink: MemorySink,
}

#[async_trait]
impl SinkProvider for MemorySinkProvider {
    fn validate(&self, _: &Value) -> Result<ValidatedSettings> {
        Ok(ValidatedSettings::new("memory:///", Value::Null))
    }

    async fn open(&self, _: &OperationSpec, _: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        Ok(Arc::new(self.sink.clone()))
    }
}
