//! [`StoredOperations`]: changes to operations in the store, apart from those that a run makes.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Checkpoint, Operation, OperationId, OperationIssue, OperationKey, OperationSpec, OperationStatus,
    Timestamp,
};
use crate::pipeline::{
    ExportConfig, OpenedDestination, OpenedOperation, PreparedOperation, describe, log_ended,
    open_destination, operation_span, record, stored_secret,
};
use crate::secret::Secret;
use crate::service::{OperationRecord, Target};
use crate::store::{OperationFilter, OperationStore};
use crate::sync::lock;

/// How many times a change to a checkpoint is attempted while others change it.
const MAX_CAS_ATTEMPTS: usize = 20;

/// How often the engine deletes expired operations, unless the retention is shorter.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);

/// The number of operations that are queried per call.
const PAGE_SIZE: usize = 100;

/// The operations of an engine, in its stores.
pub(super) struct StoredOperations {
    config: ExportConfig,
    store: Arc<dyn OperationStore>,
    last_sweep: Mutex<Option<Instant>>,
}

impl StoredOperations {
    pub(super) fn new(config: ExportConfig, store: Arc<dyn OperationStore>) -> Self {
        Self { config, store, last_sweep: Mutex::new(None) }
    }

    /// Stores a prepared operation and its secret.
    pub(super) async fn create(&self, prepared: PreparedOperation) -> Result<OpenedOperation> {
        let PreparedOperation { operation, checkpoint, secret } = prepared;
        // The operation first: one that is stored under the same id keeps its secret.
        self.create_once(&operation.spec, &checkpoint).await?;
        let id = operation.spec.id;
        if let Err(error) = self.store_secret(id, secret).await {
            // It may be stored although its response was lost.
            self.config.delete_secret(id).await;
            if let Err(error) = self.config.short_retrier().run(|| self.store.delete(id)).await {
                let kind = error.kind().as_str();
                tracing::warn!(operation = %id, kind, error = %error.report(), "cannot delete a rejected operation");
            }
            return Err(error);
        }
        Ok(operation)
    }

    /// Creates an operation once, although the store's response may be lost.
    async fn create_once(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        let retrier = self.config.short_retrier();
        match retrier.run(|| self.store.create(spec, checkpoint)).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let stored = retrier.run(|| self.store.spec(spec.id)).await?;
                // Another operation with this id has another creation time.
                if *stored == *spec { Ok(()) } else { Err(error) }
            }
            outcome => outcome,
        }
    }

    async fn store_secret(&self, id: OperationId, secret: Option<Secret>) -> Result<()> {
        match secret {
            Some(secret) => self.config.short_retrier().run(|| self.config.secrets.put(id, &secret)).await,
            None => Ok(()),
        }
    }

    pub(super) async fn record(&self, id: OperationId) -> Result<OperationRecord> {
        Ok(record(id, self.store.load(id).await?))
    }

    pub(super) async fn operation(&self, id: OperationId) -> Result<Operation> {
        self.record(id).await.map(|record| record.operation)
    }

    pub(super) async fn list(&self, filter: &OperationFilter) -> Result<Vec<OperationRecord>> {
        let found = self.store.query(filter).await?;
        Ok(found.into_iter().map(|(key, checkpoint)| record(key.id, checkpoint)).collect())
    }

    /// Returns the ids of the operations that have not ended and that no runner holds.
    pub(super) async fn unclaimed(&self) -> Result<Vec<OperationId>> {
        self.without_holder(OperationFilter::new(PAGE_SIZE).unfinished_only()).await
    }

    /// Returns the ids of the operations whose end is to be delivered, and that no runner delivers.
    pub(super) async fn undelivered(&self) -> Result<Vec<OperationId>> {
        self.without_holder(OperationFilter::new(PAGE_SIZE).end_pending_only()).await
    }

    async fn without_holder(&self, filter: OperationFilter) -> Result<Vec<OperationId>> {
        let filter = filter.lease_lapsed_at(self.store.now().await?);
        let found = self.query_all(filter).await?;
        Ok(found.into_iter().map(|(key, _)| key.id).collect())
    }

    /// Returns all operations that match a filter, newest first.
    async fn query_all(&self, mut filter: OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        let mut found = Vec::new();
        loop {
            let page = self.store.query(&filter).await?;
            let next = page.last().filter(|_| page.len() == filter.limit).map(|(key, _)| *key);
            found.extend(page);
            match next {
                Some(key) => filter = filter.after(key),
                None => return Ok(found),
            }
        }
    }

    /// Loads the checkpoint of an operation that can be resumed.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if it has ended or a runner holds it.
    pub(super) async fn load_resumable(&self, id: OperationId) -> Result<Checkpoint> {
        let retrier = self.config.short_retrier();
        let checkpoint = retrier.run(|| self.store.load(id)).await?;
        check_resumable(checkpoint.status)?;
        let is_held = checkpoint.is_held(retrier.run(|| self.store.now()).await?);
        if is_held && !checkpoint.status.is_ended() {
            return Err(Error::new(ErrorKind::Conflict, "the operation is running"));
        }
        Ok(checkpoint)
    }

    /// Opens the new target of a resumed operation and stores the target's secret, if there is a target.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a target that cannot be used; [`ErrorKind::CredentialsNeeded`] if the operation failed
    /// and its secret is gone.
    pub(super) async fn open_resumed(
        &self,
        id: OperationId,
        checkpoint: &Checkpoint,
        target: Option<Target>,
    ) -> Result<Option<OpenedOperation>> {
        let spec = self.config.short_retrier().run(|| self.store.spec(id)).await?;
        match target {
            Some(target) => self.open_target(&spec, target).await.map(Some),
            // Without its secret, a failed operation stays failed. One that is not failed fails when it runs.
            None if checkpoint.status == OperationStatus::Failed => {
                let destination = checkpoint.destination.as_ref().unwrap_or(&spec.destination);
                stored_secret(&self.config, id, destination).await?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// Fails an operation whose run panicked, unless another runner holds it.
    pub(super) async fn fail_after_panic(&self, id: OperationId, holder: &str) -> Result<()> {
        let has_observer = self.config.observer.is_some();
        let fail = |checkpoint: &mut Checkpoint| {
            // Already saved by an attempt whose response was lost.
            if checkpoint.status == OperationStatus::Failed {
                return Ok(());
            }
            if checkpoint.lease.as_ref().is_none_or(|lease| lease.holder != holder) {
                return Err(Error::new(ErrorKind::Conflict, "another runner holds the operation"));
            }
            let issue = OperationIssue::new(ErrorKind::Internal.as_str(), "the export stopped unexpectedly");
            checkpoint.end(OperationStatus::Failed, Some(issue), has_observer);
            Ok(())
        };
        let failed = self.config.short_retrier().run(|| self.update(id, fail)).await;
        log_ended(&failed?);
        Ok(())
    }

    /// Opens the new target of a resumed operation and stores its secret.
    async fn open_target(&self, spec: &OperationSpec, target: Target) -> Result<OpenedOperation> {
        let required = Some(&*spec.destination.location);
        let OpenedDestination { destination, secret, sink } =
            open_destination(&self.config, spec, target, required).await?;
        let spec = Arc::new(OperationSpec { destination, ..spec.clone() });
        let source = self.config.open_source(&spec).await?;
        self.store_secret(spec.id, secret).await?;
        Ok(OpenedOperation { spec, source, sink })
    }

    /// Requests that an operation be canceled. Returns whether it has ended with that.
    pub(super) async fn request_cancel(&self, id: OperationId) -> Result<bool> {
        let now = self.store.now().await?;
        let checkpoint = self
            .update(id, |checkpoint| {
                check_not_ended(checkpoint.status)?;
                checkpoint.cancel_requested = true;
                if !checkpoint.is_held(now) {
                    // There is no runner that could stop.
                    checkpoint.end(OperationStatus::Canceled, None, self.config.observer.is_some());
                }
                checkpoint.last_updated_time = Timestamp::now();
                Ok(())
            })
            .await?;
        if checkpoint.status.is_ended() {
            let span = operation_span(id);
            let destination = checkpoint.destination.as_ref();
            describe(&span, &checkpoint.context, destination.map(|destination| &*destination.location));
            span.in_scope(|| log_ended(&checkpoint));
        }
        Ok(checkpoint.status.is_ended())
    }

    /// Requests that an operation be paused. Returns the operation if it is paused with that.
    pub(super) async fn request_pause(&self, id: OperationId) -> Result<Option<OperationRecord>> {
        let now = self.store.now().await?;
        let pause = |checkpoint: &mut Checkpoint| {
            check_not_ended(checkpoint.status)?;
            match checkpoint.is_held(now) {
                true => checkpoint.pause_requested = true,
                // There is no runner that could stop.
                false => checkpoint.pause(),
            }
            checkpoint.last_updated_time = Timestamp::now();
            Ok(())
        };
        let checkpoint = self.update(id, pause).await?;
        Ok((checkpoint.status == OperationStatus::Paused).then(|| record(id, checkpoint)))
    }

    /// Changes the limit on the bytes per second of an operation.
    pub(super) async fn set_bytes_per_second(&self, id: OperationId, bytes: u64) -> Result<()> {
        let change = |checkpoint: &mut Checkpoint| {
            check_not_ended(checkpoint.status)?;
            checkpoint.bytes_per_second = NonZeroU64::new(bytes);
            checkpoint.last_updated_time = Timestamp::now();
            Ok(())
        };
        self.update(id, change).await.map(|_| ())
    }

    /// Changes a checkpoint, again if another change came first.
    pub(super) async fn update(
        &self,
        id: OperationId,
        change: impl Fn(&mut Checkpoint) -> Result<()> + Send + Sync,
    ) -> Result<Checkpoint> {
        for _ in 0..MAX_CAS_ATTEMPTS {
            let mut checkpoint = self.store.load(id).await?;
            change(&mut checkpoint)?;
            match self.store.save(id, &checkpoint).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                saved => return saved.map(|_| checkpoint),
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the operation changes too often"))
    }

    /// Deletes expired operations, unless that was done recently.
    pub(super) async fn sweep_if_due(&self) {
        {
            let mut last_sweep = lock(&self.last_sweep);
            let interval = SWEEP_INTERVAL.min(self.config.options.retention);
            if last_sweep.is_some_and(|last| last.elapsed() < interval) {
                return;
            }
            *last_sweep = Some(Instant::now());
        }
        if let Err(error) = self.purge_expired().await {
            tracing::warn!(kind = error.kind().as_str(), error = %error.report(), "cannot delete expired operations");
        }
    }

    /// Deletes operations that ended longer ago than the retention, and returns their number.
    pub(super) async fn purge_expired(&self) -> Result<usize> {
        let end = Timestamp::now().saturating_sub(self.config.options.retention);
        let expired = self.query_all(OperationFilter::new(PAGE_SIZE).ended_before(end)).await?;
        for (key, _) in &expired {
            // The secret was deleted when the operation ended, unless the process stopped in between.
            self.config.secrets.delete(key.id).await?;
            self.store.delete(key.id).await?;
        }
        Ok(expired.len())
    }
}

/// # Errors
/// [`ErrorKind::Conflict`] if the operation has ended.
fn check_not_ended(status: OperationStatus) -> Result<()> {
    match status.is_ended() {
        true => Err(Error::new(ErrorKind::Conflict, "the operation has ended")),
        false => Ok(()),
    }
}

/// # Errors
/// [`ErrorKind::Conflict`] if the operation is completed or canceled.
pub(super) fn check_resumable(status: OperationStatus) -> Result<()> {
    match status {
        OperationStatus::Completed | OperationStatus::Canceled => {
            Err(Error::new(ErrorKind::Conflict, "the operation has ended: there is nothing to resume"))
        }
        _ => Ok(()),
    }
}
