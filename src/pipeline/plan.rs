//! The step `plan`: lists the source page by page and forms batches.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesOrdered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::Retrier;
use crate::model::{
    Cursor, DicomIdentifier, ExportSource, Instance, ListFailure, ListRequest, ListWarning, OperationSpec,
    Page, Position, Scope,
};
use crate::pipeline::limited_source::LimitedSource;

/// The maximum number of consecutive pages without an entry. A source that filters its rows may return some.
const MAX_EMPTY_PAGES: u32 = 10_000;

/// How many scopes are listed ahead concurrently: a million identifiers of single instances need a million calls.
const MAX_SCOPES_AHEAD: usize = 16;

/// Instances that are transferred, committed and repeated together: pages of one scope, or of many small ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Batch {
    /// Counts from 0 within the operation.
    pub(crate) number: u64,
    pub(crate) instances: Vec<Instance>,
    pub(crate) failures: Vec<ListFailure>,
    /// Identifiers that matched nothing.
    pub(crate) unmatched: Vec<DicomIdentifier>,
    pub(crate) warnings: Vec<ListWarning>,
    /// The position after this batch.
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

/// Returns an operation's batches in order, from any position.
pub(crate) struct Planner {
    source: LimitedSource,
    operation: Arc<OperationSpec>,
    retrier: Arc<Retrier>,
    /// The maximum number of instances of a batch and of a page.
    limit: usize,
    position: Position,
    cursors: CursorCheck,
    /// The page at `position`, if it did not fit into the previous batch.
    pending: Option<Page>,
    /// The first pages of the scopes from `position` on. They are tasks, so that a call that failed is retried on time
    /// even if the next batch is requested much later; otherwise two failures could use up the retry budget.
    ahead: FuturesOrdered<AbortOnDropHandle<Result<Page>>>,
    next_ahead: u64,
}

impl Planner {
    pub(crate) fn new(
        source: LimitedSource,
        operation: Arc<OperationSpec>,
        retrier: Arc<Retrier>,
        limit: usize,
        position: Position,
    ) -> Self {
        // The first page of a scope that is partly listed is not needed again.
        let next_ahead = position.scope + u64::from(position.after.is_some());
        Self {
            source,
            operation,
            retrier,
            limit,
            position,
            cursors: CursorCheck::default(),
            pending: None,
            ahead: FuturesOrdered::new(),
            next_ahead,
        }
    }

    /// Returns the next batch, or `None` after the last one.
    ///
    /// # Errors
    /// Errors that fail the operation.
    ///
    /// # Cancellation
    /// Dropping the future loses the pages that it has read: the planner must not be used again.
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
            self.add_page(page, &mut batch)?;
        }
        if batch.is_empty() {
            return Ok(None);
        }
        self.position.batch += 1;
        batch.end = self.position.clone();
        Ok(Some(batch))
    }

    /// The position after the last batch that was returned, or at the end of the listing.
    pub(crate) fn position(&self) -> &Position {
        &self.position
    }

    /// Adds a page to a batch and advances the position.
    fn add_page(&mut self, page: Page, batch: &mut Batch) -> Result<()> {
        let size = page.instances.len() + page.failures.len();
        if size > self.limit {
            let message = format!("returned a page of {size} entries, above the limit of {}", self.limit);
            return Err(contract_violation(&message));
        }
        self.cursors.check(&page, self.position.after.as_ref())?;
        self.position.found += size as u64;
        batch.instances.extend(page.instances);
        batch.failures.extend(page.failures);
        batch.warnings.extend(page.warnings);
        match page.next {
            Some(next) => {
                self.position.after = Some(next);
                Ok(())
            }
            None => {
                if self.position.found == 0 {
                    batch.unmatched.extend(self.identifier(self.position.scope));
                }
                let scope = self.position.scope + 1;
                let done = self.identifier(scope).is_none();
                self.position = Position { scope, after: None, found: 0, batch: self.position.batch, done };
                Ok(())
            }
        }
    }

    /// Returns the page at the current position.
    async fn page(&mut self) -> Result<Page> {
        if let Some(after) = &self.position.after {
            return self.list(self.position.scope, Some(after.clone())).await;
        }
        while self.ahead.len() < MAX_SCOPES_AHEAD && self.is_scope(self.next_ahead) {
            let page = self.list(self.next_ahead, None).in_current_span();
            self.ahead.push_back(AbortOnDropHandle::new(tokio::spawn(page)));
            self.next_ahead += 1;
        }
        match self.ahead.next().await {
            Some(Ok(page)) => page,
            Some(Err(_)) => Err(Error::new(ErrorKind::Internal, "a listing panicked")),
            None => Err(Error::new(ErrorKind::Internal, "the listing ran past its last scope")),
        }
    }

    fn list(&self, scope: u64, after: Option<Cursor>) -> BoxFuture<'static, Result<Page>> {
        let (source, operation) = (self.source.clone(), Arc::clone(&self.operation));
        let (retrier, limit) = (Arc::clone(&self.retrier), self.limit);
        async move {
            let identifier = identifier(&operation, scope);
            let scope = identifier.as_ref().map_or(Scope::Everything, Scope::Identifier);
            retrier.run(|| source.list(ListRequest::new(scope, after.as_ref(), limit))).await
        }
        .boxed()
    }

    fn identifier(&self, scope: u64) -> Option<DicomIdentifier> {
        identifier(&self.operation, scope)
    }

    fn is_scope(&self, scope: u64) -> bool {
        match self.operation.source {
            ExportSource::Everything => scope == 0,
            ExportSource::Identifiers(_) => self.identifier(scope).is_some(),
        }
    }
}

/// Detects a listing of one scope that never ends.
#[derive(Debug, Default)]
struct CursorCheck {
    empty_pages: u32,
    /// A cursor that later ones are compared with. It is replaced after 1, 2, 4, 8 … pages, so that a cycle of any length
    /// is found (Brent's algorithm).
    reference: Option<Cursor>,
    pages: u64,
    next_reference: u64,
}

impl CursorCheck {
    /// # Errors
    /// [`ErrorKind::Internal`] if the page's cursor repeats an earlier one, or too many pages are empty.
    fn check(&mut self, page: &Page, after: Option<&Cursor>) -> Result<()> {
        let Some(next) = &page.next else {
            *self = Self::default();
            return Ok(());
        };
        if after == Some(next) {
            return Err(contract_violation(
                "returned the cursor that it was given: its listing does not advance",
            ));
        }
        if self.reference.as_ref() == Some(next) {
            return Err(contract_violation("returned the same cursor twice: its listing does not end"));
        }
        self.pages += 1;
        if self.pages > self.next_reference {
            self.reference = Some(next.clone());
            self.next_reference = 2 * self.pages;
        }
        let is_empty = page.instances.is_empty() && page.failures.is_empty();
        self.empty_pages = if is_empty { self.empty_pages + 1 } else { 0 };
        match self.empty_pages > MAX_EMPTY_PAGES {
            true => Err(contract_violation("returned too many empty pages")),
            false => Ok(()),
        }
    }
}

fn contract_violation(violation: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the source {violation}"))
}

fn identifier(operation: &OperationSpec, scope: u64) -> Option<DicomIdentifier> {
    match &operation.source {
        ExportSource::Everything => None,
        ExportSource::Identifiers(identifiers) => identifiers.get(usize::try_from(scope).ok()?),
    }
}
