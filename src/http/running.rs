//! [`Running`]: how many operations run, for the limit on them.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;

use crate::engine::{ExportService, OperationRecord};
use crate::error::{ErrorKind, Result};
use crate::http::problem::Problem;
use crate::model::OperationKey;
use crate::model::{OperationId, OperationStatus};
use crate::sync::lock;

/// How long a client is asked to wait when enough runs already.
const BUSY_FOR: Duration = Duration::from_secs(10);

/// An operation appears in the list a while after the time that it is listed by: its destination is tried between.
/// And clocks of replicas differ.
const LATE: Duration = Duration::from_secs(300);

/// How many operations one look at the service's list gives.
const PAGE: usize = 100;

/// Knows which operations run, and lets in no more than the limit.
///
/// The service's list is the truth, since a crash or another replica leaves operations that no counter of this process
/// has seen. It is walked whole once; then each look walks what is new, and asks again after those that ran before.
#[derive(Debug)]
pub(super) struct Running {
    limit: Option<usize>,
    /// The newest operation that has been looked at. Held for a look, so that two requests cannot both take the last
    /// place.
    newest: tokio::sync::Mutex<Option<OperationKey>>,
    ids: Arc<Mutex<Ids>>,
}

#[derive(Debug, Default)]
struct Ids {
    /// Seen to run, or to be asked after.
    open: HashSet<OperationId>,
    /// Let in, and perhaps not stored yet.
    starting: HashSet<OperationId>,
    /// Started, or failed to, since the last look began; the next one finds out.
    started: HashSet<OperationId>,
}

impl Ids {
    /// Whether so many run, or more, besides this one.
    fn are_as_many_as(&self, limit: usize, besides: OperationId) -> bool {
        let all: HashSet<_> = self.open.iter().chain(&self.starting).chain(&self.started).collect();
        all.into_iter().filter(|id| **id != besides).count() >= limit
    }
}

/// A place among those that run; when dropped, the operation has started or failed to.
#[derive(Debug)]
#[must_use]
pub(super) struct Slot(Option<(Arc<Mutex<Ids>>, OperationId)>);

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some((ids, id)) = &self.0 {
            let mut ids = lock(ids);
            ids.starting.remove(id);
            ids.started.insert(*id);
        }
    }
}

impl Running {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self { limit, newest: tokio::sync::Mutex::default(), ids: Arc::default() }
    }

    /// Takes a place for this operation, or answers 429.
    pub(super) async fn enter(&self, service: &dyn ExportService, id: OperationId) -> Result<Slot, Problem> {
        let Some(limit) = self.limit else { return Ok(Slot(None)) };
        let mut newest = self.newest.lock().await;
        let now_newest = self.look(service, *newest).await?;
        *newest = now_newest.or(*newest);
        let mut ids = lock(&self.ids);
        if ids.are_as_many_as(limit, id) {
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS)
                .with_detail("as many operations run as this server allows")
                .with_retry_after(BUSY_FOR));
        }
        ids.starting.insert(id);
        Ok(Slot(Some((Arc::clone(&self.ids), id))))
    }

    /// Brings `open` up to date, and gives the newest operation that there is.
    async fn look(
        &self,
        service: &dyn ExportService,
        seen: Option<OperationKey>,
    ) -> Result<Option<OperationKey>, Problem> {
        let before: Vec<OperationId> = {
            let mut ids = lock(&self.ids);
            let started = std::mem::take(&mut ids.started);
            ids.open.extend(started);
            ids.open.iter().copied().collect()
        };
        let (mut fresh, mut newest, mut after) = (HashSet::new(), None, None);
        loop {
            let page = service.list(after, PAGE).await?;
            let Some(last) = page.last().map(key) else { break };
            newest = newest.or(page.first().map(key));
            for record in &page {
                fresh.insert(record.operation.operation_id);
                self.note(record.operation.operation_id, is_running(record));
            }
            let old = seen.is_some_and(|seen| last.created_time.to_utc() + LATE < seen.created_time.to_utc());
            if old {
                break;
            }
            after = Some(last);
        }
        for id in before.into_iter().filter(|id| !fresh.contains(id)) {
            match service.operation(id).await {
                Ok(record) => self.note(id, is_running(&record)),
                Err(error) if error.kind() == ErrorKind::NotFound => self.note(id, false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(newest)
    }

    fn note(&self, id: OperationId, runs: bool) {
        let mut ids = lock(&self.ids);
        match runs {
            true => ids.open.insert(id),
            false => ids.open.remove(&id),
        };
    }
}

/// Whether it has been accepted and not ended.
pub(super) fn is_running(record: &OperationRecord) -> bool {
    matches!(record.operation.status, OperationStatus::NotStarted | OperationStatus::Running)
}

pub(super) fn key(record: &OperationRecord) -> OperationKey {
    OperationKey { created_time: record.operation.created_time, id: record.operation.operation_id }
}
