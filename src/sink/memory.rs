//! [`MemorySink`]: blobs in memory, for tests.

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
use crate::model::{BlobPath, OperationSpec};
use crate::secret::Secret;
use crate::sink::{BlobSink, LogKey, PutResult, SinkProvider, ValidatedSettings};
use crate::sync::lock;

/// A container in memory, for tests. Clones share the blobs, so a test can inspect what the engine wrote.
///
/// ```
/// use dicom_export::{ExportEngine, ExportSource, MemorySink, MemorySource, NewOperation};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
/// let source = MemorySource::new();
/// source.insert("1.2.3/4.5/6.7".parse()?, &b"the bytes of a DICOM file"[..]);
/// let sink = MemorySink::new();
/// let engine = ExportEngine::builder(source).build()?;
/// let operation = engine.start(NewOperation::new(ExportSource::Everything, sink.clone())).await?;
/// engine.wait(operation.operation_id).await?;
///
/// let id = operation.operation_id;
/// assert_eq!(sink.names(), [format!("{id}/errors.log"), format!("{id}/results/1.2.3/4.5/6.7.dcm")]);
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct MemorySink {
    blobs: Arc<Mutex<BTreeMap<String, Bytes>>>,
}

impl MemorySink {
    /// Creates an empty container.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes of the blob with this name, or `None` if it does not exist.
    pub fn get(&self, name: &str) -> Option<Bytes> {
        self.lock().get(name).cloned()
    }

    /// The names of all blobs, sorted.
    pub fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Creates a provider that opens this sink for all settings, so that tests can send production requests.
    ///
    /// The provider stores none of the settings, and all settings have the same location.
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
        let result = PutResult::new(bytes.len() as u64);
        self.lock().insert(path.to_string(), bytes);
        Ok(result)
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

/// A provider of one [`MemorySink`], created by [`MemorySink::provider`].
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
