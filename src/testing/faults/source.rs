//! [`FaultySource`].

use std::fmt::Write;

use async_trait::async_trait;

use crate::content::{Content, CopySource};
use crate::error::Result;
use crate::model::ExportSource;
use crate::model::{Instance, ListRequest, Page, Scope};
use crate::source::InstanceSource;
use crate::testing::faults::plan::{Call, Fate, FaultPlan};
use crate::testing::faults::stream::damaged;

/// A source that fails as planned.
#[derive(Debug, Clone)]
pub struct FaultySource<S> {
    inner: S,
    plan: FaultPlan,
}

impl<S> FaultySource<S> {
    /// This source, with these faults.
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
        // Writing to a string does not fail.
        _ = write!(name, " {}", request.after.map_or("", |cursor| cursor.as_str()));
        self.plan.call(Call::List, &name, self.inner.list(request)).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let mut turn = self.plan.turn(Call::Open, &instance.identifier().to_string()).await;
        turn.begin()?;
        let content = self.inner.open(instance).await?;
        let content = match turn.fate {
            Fate::Damaged(fault) => damaged(content, fault, turn.rng.fork()),
            _ => content,
        };
        turn.end(content).await
    }

    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        self.plan.call(Call::CopyUrl, &instance.identifier().to_string(), self.inner.copy_url(instance)).await
    }

    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        self.plan.call(Call::Estimate, "", self.inner.estimate(source)).await
    }
}
