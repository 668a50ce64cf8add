//! [`LimitedSource`]: a source whose calls fail if they take too long.

use std::sync::Arc;
use std::time::Duration;

use crate::content::{Content, CopySource};
use crate::error::Result;
use crate::model::{ExportSource, Instance, ListRequest, Page};
use crate::source::InstanceSource;
use crate::sync::within;

/// A source of the host, each call of which fails with [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) after a
/// time.
#[derive(Clone)]
pub(crate) struct LimitedSource {
    inner: Arc<dyn InstanceSource>,
    limit: Duration,
}

pub(crate) const SOURCE: &str = "the source";

impl LimitedSource {
    pub(crate) fn new(inner: Arc<dyn InstanceSource>, limit: Duration) -> Self {
        Self { inner, limit }
    }

    /// How long a call may take, and how long a content may pause between two chunks.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    pub(crate) async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        within(self.limit, SOURCE, self.inner.list(request)).await
    }

    pub(crate) async fn open(&self, instance: &Instance) -> Result<Content> {
        within(self.limit, SOURCE, self.inner.open(instance)).await
    }

    pub(crate) async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        within(self.limit, SOURCE, self.inner.copy_url(instance)).await
    }

    pub(crate) async fn estimate(&self, exported: &ExportSource) -> Result<Option<u64>> {
        within(self.limit, SOURCE, self.inner.estimate(exported)).await
    }
}
