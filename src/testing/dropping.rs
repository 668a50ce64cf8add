//! [`NullSink`]: a destination that keeps nothing.

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::content::Content;
use crate::error::Result;
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::{BlobSink, LogKey, PutResult};

/// A sink that reads what it is given and keeps none of it: for measuring a source or the engine. It notices what a
/// content says of itself, and nothing else.
#[derive(Debug, Clone)]
pub struct NullSink {
    account: String,
}

impl NullSink {
    /// As an account of its own kind, `dropped`.
    pub fn new() -> Self {
        Self::of_account("dropped")
    }

    /// As this account: operations towards one account share the engine's concurrency.
    pub fn of_account(name: impl Into<String>) -> Self {
        Self { account: name.into() }
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
        format!("dropped:///{path}")
    }

    fn location(&self) -> String {
        self.account.clone()
    }
}
