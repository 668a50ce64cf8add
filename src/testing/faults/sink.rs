//! [`FaultySink`].

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::content::{Content, CopySource};
use crate::error::Result;
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::{AppendLimits, BlobSink, LogKey, PutResult};
use crate::testing::faults::plan::{Call, FaultPlan};

/// Wraps a sink and makes its calls fail according to a [`FaultPlan`].
#[derive(Debug, Clone)]
pub struct FaultySink<S> {
    inner: S,
    plan: FaultPlan,
}

impl<S> FaultySink<S> {
    /// Wraps a sink.
    pub fn new(inner: S, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

#[async_trait]
impl<S: BlobSink> BlobSink for FaultySink<S> {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.plan.call(Call::Prepare, log.as_str(), self.inner.prepare(log)).await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        let mut call = self.plan.begin(Call::Put, path.as_str()).await;
        if let Err(error) = call.fail_before() {
            // A real sink may have read part of the content before its request fails.
            if call.rng.bool() {
                content.into_stream().next().await.transpose()?;
            }
            return Err(error);
        }
        let result = self.inner.put(path, content, upload).await?;
        call.finish(result).await
    }

    async fn copy_from(
        &self,
        path: &BlobPath,
        source: &CopySource,
        upload: &UploadContext,
    ) -> Result<Option<PutResult>> {
        self.plan.call(Call::CopyFrom, path.as_str(), self.inner.copy_from(path, source, upload)).await
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.plan.call(Call::Append, &format!("{log} {key}"), self.inner.append(log, key, lines)).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        self.plan.call(Call::Finish, log.as_str(), self.inner.finish(log)).await
    }

    fn url(&self, path: &BlobPath) -> String {
        self.inner.url(path)
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        self.inner.buffer_size(length)
    }

    fn location(&self) -> String {
        self.inner.location()
    }

    fn throttle_key(&self) -> String {
        self.inner.throttle_key()
    }

    fn append_limits(&self) -> AppendLimits {
        self.inner.append_limits()
    }
}
