//! [`FaultySource`].

use std::fmt::Write;

use async_trait::async_trait;

use crate::content::{Content, CopySource};
use crate::error::Result;
use crate::model::ExportSource;
use crate::model::{Instance, ListRequest, Page, Scope};
use crate::source::InstanceSource;
use crate::testing::faults::plan::{Call, FaultPlan, Outcome};
use crate::testing::faults::stream::damaged;

/// Wraps a source and makes its calls fail according to a [`FaultPlan`].
#[derive(Debug, Clone)]
pub struct FaultySource<S> {
    inner: S,
    plan: FaultPlan,
}

impl<S> FaultySource<S> {
    /// Wraps a source.
    pub fn new(inner: S, plan: FaultPlan) -> Self {
        Self { inner, plan }
    }
}

#[async_trait]
impl<S: InstanceSource> InstanceSource for FaultySource<S> {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let mut name = match request.scope {
            Scope::Everything => "*".to_owned(),
            Scope::Identifier(identifier) => identifier.to_string(),
        };
        _ = write!(name, " {}", request.after.map_or("", |cursor| cursor.as_str()));
        self.plan.call(Call::List, &name, self.inner.list(request)).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let mut call = self.plan.begin(Call::Open, &instance.identifier().to_string()).await;
        call.fail_before()?;
        let content = self.inner.open(instance).await?;
        let content = match call.outcome {
            Outcome::Damaged(fault) => damaged(content, fault, call.rng.fork()),
            _ => content,
        };
        call.finish(content).await
    }

    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        self.plan.call(Call::CopyUrl, &instance.identifier().to_string(), self.inner.copy_url(instance)).await
    }

    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        self.plan.call(Call::Estimate, "", self.inner.estimate(source)).await
    }
}
