//! [`RunningLimit`]: limits how many operations run at once.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::StatusCode;

use crate::error::{ErrorKind, Result};
use crate::http::problem::Problem;
use crate::model::{OperationId, OperationKey, OperationStatus};
use crate::service::{ExportService, OperationRecord};
use crate::sync::lock;

/// The `Retry-After` of a 429.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(10);

/// How much earlier than its appearance in the list an operation may be dated: its destination is tried in between, and
/// the clocks of replicas differ.
const MAX_LIST_DELAY: Duration = Duration::from_secs(300);

/// The page size for the service's list.
const PAGE_SIZE: usize = 100;

/// Tracks which operations run, and refuses more than the limit.
///
/// The service's list is authoritative: after a crash, and with several replicas, operations run that this process has
/// not started. The first refresh reads the whole list; later ones read its new part and look up the operations that ran
/// before.
#[derive(Debug)]
pub(super) struct RunningLimit {
    limit: Option<usize>,
    /// The newest operation that has been read. Locked during a refresh, so that two requests cannot both take the last
    /// slot.
    newest: tokio::sync::Mutex<Option<OperationKey>>,
    ids: Arc<Mutex<Ids>>,
}

#[derive(Debug, Default)]
struct Ids {
    /// Found to be running, or to be looked up.
    running: HashSet<OperationId>,
    /// Admitted, and possibly not stored yet.
    starting: HashSet<OperationId>,
    /// Started, or failed to start, since the last refresh began.
    started: HashSet<OperationId>,
}

impl Ids {
    /// How many operations run, without this one.
    fn count_without(&self, id: OperationId) -> usize {
        let all: HashSet<_> = self.running.iter().chain(&self.starting).chain(&self.started).collect();
        all.into_iter().filter(|other| **other != id).count()
    }
}

/// A slot under the limit; dropped once the operation has started or failed to start.
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

impl RunningLimit {
    pub(super) fn new(limit: Option<usize>) -> Self {
        Self { limit, newest: tokio::sync::Mutex::default(), ids: Arc::default() }
    }

    /// Takes a slot for this operation, or fails with 429.
    pub(super) async fn acquire(
        &self,
        service: &dyn ExportService,
        id: OperationId,
    ) -> Result<Slot, Problem> {
        let Some(limit) = self.limit else { return Ok(Slot(None)) };
        let mut newest = self.newest.lock().await;
        let now_newest = self.refresh(service, *newest).await?;
        *newest = now_newest.or(*newest);
        let mut ids = lock(&self.ids);
        if ids.count_without(id) >= limit {
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS)
                .with_detail("the limit of running operations is reached")
                .with_retry_after(BUSY_RETRY_AFTER));
        }
        ids.starting.insert(id);
        Ok(Slot(Some((Arc::clone(&self.ids), id))))
    }

    /// Updates `running`, and returns the newest operation in the list.
    async fn refresh(
        &self,
        service: &dyn ExportService,
        seen: Option<OperationKey>,
    ) -> Result<Option<OperationKey>, Problem> {
        let before: Vec<OperationId> = {
            let mut ids = lock(&self.ids);
            let started = std::mem::take(&mut ids.started);
            ids.running.extend(started);
            ids.running.iter().copied().collect()
        };
        let (mut listed, mut newest, mut after) = (HashSet::new(), None, None);
        loop {
            let page = service.list(after, PAGE_SIZE).await?;
            let Some(last) = page.last().map(key) else { break };
            newest = newest.or(page.first().map(key));
            for record in &page {
                listed.insert(record.operation.operation_id);
                self.update(record.operation.operation_id, is_running(record));
            }
            let is_old = seen
                .is_some_and(|seen| last.created_time.to_utc() + MAX_LIST_DELAY < seen.created_time.to_utc());
            if is_old {
                break;
            }
            after = Some(last);
        }
        for id in before.into_iter().filter(|id| !listed.contains(id)) {
            match service.operation(id).await {
                Ok(record) => self.update(id, is_running(&record)),
                Err(error) if error.kind() == ErrorKind::NotFound => self.update(id, false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(newest)
    }

    fn update(&self, id: OperationId, is_running: bool) {
        let mut ids = lock(&self.ids);
        match is_running {
            true => ids.running.insert(id),
            false => ids.running.remove(&id),
        };
    }
}

/// Whether the operation has been accepted and has not ended.
pub(super) fn is_running(record: &OperationRecord) -> bool {
    matches!(record.operation.status, OperationStatus::NotStarted | OperationStatus::Running)
}

pub(super) fn key(record: &OperationRecord) -> OperationKey {
    OperationKey { created_time: record.operation.created_time, id: record.operation.operation_id }
}
