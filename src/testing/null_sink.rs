//! [`NullSink`]: a destination that discards everything.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::content::Content;
use crate::error::Result;
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::{BlobSink, LogKey, PutResult};

/// A sink that reads contents and discards them, for measuring a source or the engine.
#[derive(Debug, Clone)]
pub struct NullSink {
    location: String,
}

impl NullSink {
    /// Creates a sink with the location `null`.
    pub fn new() -> Self {
        Self::with_location("null")
    }

    /// Creates a sink with this location. Operations whose sinks have the same location share the engine's concurrency
    /// limit.
    pub fn with_location(location: impl Into<String>) -> Self {
        Self { location: location.into() }
    }
}

impl Default for NullSink {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl BlobSink for NullSink {
    async fn prepare(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    async fn put(&self, _: &BlobPath, content: Content, _: &UploadContext) -> Result<PutResult> {
        if let Some(bytes) = content.as_bytes() {
            return Ok(PutResult::new(bytes.len() as u64));
        }
        let (mut size, mut chunks) = (0, content.into_stream());
        while let Some(chunk) = chunks.next().await {
            size += chunk?.len() as u64;
        }
        Ok(PutResult::new(size))
    }

    async fn append(&self, _: &BlobPath, _: LogKey, _: Bytes) -> Result<()> {
        Ok(())
    }

    async fn finish(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    fn url(&self, path: &BlobPath) -> String {
        format!("null:///{path}")
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}
