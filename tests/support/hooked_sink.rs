//! [`HookedSink`]: a sink in memory that calls a hook before each request.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::{LogKey, PutResult};
use dicom_export::{BlobPath, BlobSink, Content, MemorySink, Result, UploadContext};

/// A call of a [`BlobSink`].
pub(crate) enum SinkCall<'a> {
    Prepare,
    /// The hook can replace the content.
    Put(&'a BlobPath, &'a mut Content, &'a UploadContext),
    Append,
    Finish,
}

#[async_trait]
pub(crate) trait SinkHook: Send + Sync + 'static {
    /// Runs before a call. If it returns an error, the call fails with it and does nothing else.
    async fn before(&self, call: SinkCall<'_>) -> Result<()>;
}

#[derive(Clone)]
pub(crate) struct HookedSink<H> {
    pub(crate) inner: MemorySink,
    pub(crate) hook: H,
}

impl<H> HookedSink<H> {
    pub(crate) fn with_hook(hook: H) -> Self {
        Self { inner: MemorySink::new(), hook }
    }
}

#[async_trait]
impl<H: SinkHook> BlobSink for HookedSink<H> {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.hook.before(SinkCall::Prepare).await?;
        self.inner.prepare(log).await
    }

    async fn put(&self, path: &BlobPath, mut content: Content, upload: &UploadContext) -> Result<PutResult> {
        self.hook.before(SinkCall::Put(path, &mut content, upload)).await?;
        self.inner.put(path, content, upload).await
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.hook.before(SinkCall::Append).await?;
        self.inner.append(log, key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        self.hook.before(SinkCall::Finish).await?;
        self.inner.finish(log).await
    }

    fn url(&self, path: &BlobPath) -> String {
        self.inner.url(path)
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
