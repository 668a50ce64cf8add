//! From scopes and pages to batches: the `plan` step.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Retrier;
use crate::model::DicomIdentifier;
use crate::model::ExportSource;
use crate::model::OperationSpec;
use crate::model::Position;
use crate::model::{Cursor, Instance, ListFailure, ListRequest, ListWarning, Page, Scope};
use crate::source::InstanceSource;

/// How many identifiers are looked up at once: a million one-instance identifiers are a million look-ups.
const LOOKAHEAD: usize = 16;

/// What is transferred, checkpointed and repeated together: pages of one scope, or of many small ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Batch {
    /// Counts from 0 within the operation.
    pub(crate) number: u64,
    pub(crate) instances: Vec<Instance>,
    pub(crate) failures: Vec<ListFailure>,
    /// Identifiers that nothing lies under.
    pub(crate) unmatched: Vec<DicomIdentifier>,
    pub(crate) warnings: Vec<ListWarning>,
    /// Where the listing stands once this batch is done.
    pub(crate) end: Position,
}

impl Batch {
    fn starting_at(position: &Position) -> Self {
        Self {
            number: position.batch,
            instances: Vec::new(),
            failures: Vec::new(),
            unmatched: Vec::new(),
            warnings: Vec::new(),
            end: position.clone(),
        }
    }

    fn len(&self) -> usize {
        self.instances.len() + self.failures.len() + self.unmatched.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0 && self.warnings.is_empty()
    }
}

/// Hands out an operation's batches in order, from any position on.
pub(crate) struct Planner {
    source: Arc<dyn InstanceSource>,
    operation: Arc<OperationSpec>,
    retrier: Arc<Retrier>,
    /// Instances a batch and a page hold at most.
    limit: usize,
    position: Position,
    /// The page at `position`, when it did not fit the batch before.
    pending: Option<Page>,
    /// First pages of the scopes from `position` on. Tasks of their own: a call that failed is repeated in time although
    /// nobody may ask for a batch for long, or what was no more than two failures would use up the retry budget.
    ahead: FuturesOrdered<AbortOnDropHandle<Result<Page>>>,
    next_ahead: u64,
}

impl Planner {
    pub(crate) fn new(
        source: Arc<dyn InstanceSource>,
        operation: Arc<OperationSpec>,
        retrier: Arc<Retrier>,
        limit: usize,
        position: Position,
    ) -> Self {
        // The first page of a scope that is half listed is not wanted again.
        let next_ahead = position.scope + u64::from(position.after.is_some());
        Self {
            source,
            operation,
            retrier,
            limit,
            position,
            pending: None,
            ahead: FuturesOrdered::new(),
            next_ahead,
        }
    }

    /// The next batch; `None` once everything has been handed out.
    ///
    /// # Cancellation
    /// A dropped call loses the pages it had read: the planner is not to be used again.
    pub(crate) async fn next(&mut self) -> Result<Option<Batch>> {
        let mut batch = Batch::starting_at(&self.position);
        while !self.position.done && batch.len() < self.limit {
            let page = match self.pending.take() {
                Some(page) => page,
                None => self.page().await?,
            };
            let size = page.instances.len() + page.failures.len();
            if !batch.is_empty() && batch.len() + size > self.limit {
                self.pending = Some(page);
                break;
            }
            self.absorb(page, &mut batch)?;
        }
        if batch.is_empty() {
            return Ok(None);
        }
        self.position.batch += 1;
        batch.end = self.position.clone();
        Ok(Some(batch))
    }

    /// Where the listing stands: after the last batch handed out, or at its end.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Adds a page to a batch and moves on.
    fn absorb(&mut self, page: Page, batch: &mut Batch) -> Result<()> {
        let size = page.instances.len() + page.failures.len();
        self.position.found += size as u64;
        batch.instances.extend(page.instances);
        batch.failures.extend(page.failures);
        batch.warnings.extend(page.warnings);
        match page.next {
            Some(next) if size == 0 && self.position.after.as_ref() == Some(&next) => {
                Err(Error::new(ErrorKind::Internal, "the source's listing does not move on"))
            }
            Some(next) => {
                self.position.after = Some(next);
                Ok(())
            }
            None => {
                if self.position.found == 0 {
                    batch.unmatched.extend(self.identifier(self.position.scope).cloned());
                }
                let scope = self.position.scope + 1;
                let done = self.identifier(scope).is_none();
                self.position = Position { scope, after: None, found: 0, batch: self.position.batch, done };
                Ok(())
            }
        }
    }

    /// The page at the current position.
    async fn page(&mut self) -> Result<Page> {
        if let Some(after) = &self.position.after {
            return self.list(self.position.scope, Some(after.clone())).await;
        }
        while self.ahead.len() < LOOKAHEAD && self.is_scope(self.next_ahead) {
            let page = self.list(self.next_ahead, None).in_current_span();
            self.ahead.push_back(AbortOnDropHandle::new(tokio::spawn(page)));
            self.next_ahead += 1;
        }
        match self.ahead.next().await {
            Some(Ok(page)) => page,
            Some(Err(cause)) => {
                Err(Error::new(ErrorKind::Internal, "a listing stopped unexpectedly").with_source(cause))
            }
            None => Err(Error::new(ErrorKind::Internal, "the listing ran past its scopes")),
        }
    }

    fn list(&self, scope: u64, after: Option<Cursor>) -> BoxFuture<'static, Result<Page>> {
        let (source, operation) = (Arc::clone(&self.source), Arc::clone(&self.operation));
        let (retrier, limit) = (Arc::clone(&self.retrier), self.limit);
        async move {
            let scope = identifier(&operation, scope).map_or(Scope::Everything, Scope::Identifier);
            retrier.run(|| source.list(ListRequest::new(scope, after.as_ref(), limit))).await
        }
        .boxed()
    }

    fn identifier(&self, scope: u64) -> Option<&DicomIdentifier> {
        identifier(&self.operation, scope)
    }

    fn is_scope(&self, scope: u64) -> bool {
        match self.operation.source {
            ExportSource::Everything => scope == 0,
            ExportSource::Identifiers(_) => self.identifier(scope).is_some(),
        }
    }
}

fn identifier(operation: &OperationSpec, scope: u64) -> Option<&DicomIdentifier> {
    match &operation.source {
        ExportSource::Everything => None,
        ExportSource::Identifiers(identifiers) => identifiers.as_slice().get(usize::try_from(scope).ok()?),
    }
}

/// The longest finished prefix of batches that finish in any order.
#[derive(Debug)]
pub(crate) struct Prefix<T> {
    next: u64,
    /// Slot `i` is batch `next + i`.
    finished: VecDeque<Option<T>>,
}

impl<T> Prefix<T> {
    pub(crate) fn starting_at(batch: u64) -> Self {
        Self { next: batch, finished: VecDeque::new() }
    }

    /// Notes that a batch is done; one that was passed already is ignored.
    pub(crate) fn finish(&mut self, batch: u64, outcome: T) {
        let Some(at) = batch.checked_sub(self.next) else { return };
        let at = at as usize;
        if self.finished.len() <= at {
            self.finished.resize_with(at + 1, || None);
        }
        self.finished[at] = Some(outcome);
    }

    /// Takes the next batch of the prefix out, if it is done.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let outcome = self.finished.front_mut()?.take()?;
        self.finished.pop_front();
        self.next += 1;
        Some(outcome)
    }
}
