//! The local runner: [`ExportEngine`] runs operations in this process.

mod builder;
mod delivery;
mod leased_checkpoint;
mod operations;
mod registry;
mod requests;
mod run;
mod runner;
mod running_limit;
mod takeover;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::sleep;

pub use self::builder::ExportEngineBuilder;
use self::runner::{Runner, RunnerOptions};
use crate::error::Result;
use crate::model::{ExportDestination, Operation, OperationId};
use crate::pipeline::{ExportConfig, Progress, validate_destination};
use crate::service::{ExportService, NewOperation, OperationRecord, Target};
use crate::sink::DestinationType;
use crate::store::{OperationFilter, OperationStore};

/// How often [`ExportEngine::wait`] polls an operation that runs in another process.
const REMOTE_POLL_INTERVAL: Duration = Duration::from_millis(250);

/// Runs exports as operations that can be started, observed, canceled and resumed.
///
/// Clones share the engine and its memory budget. The engine runs inside a Tokio runtime. Dropping every clone does not
/// stop operations; [`shutdown`](Self::shutdown) does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
/// use dicom_export::{ExportEngine, ExportSource, MemorySink, MemorySource, NewOperation, OperationStatus};
///
/// let source = MemorySource::new();
/// source.insert("1.2/3.4/5.6".parse()?, &b"the bytes of a DICOM file"[..]);
/// let container = MemorySink::new();
///
/// let engine = ExportEngine::builder(source).build()?;
/// let started = engine.start(NewOperation::new(ExportSource::Everything, container.clone())).await?;
/// let ended = engine.wait(started.operation_id).await?;
///
/// assert_eq!(ended.status, OperationStatus::Completed);
/// assert_eq!((ended.results.exported, ended.results.skipped), (1, 0));
/// let name = format!("{}/results/1.2/3.4/5.6.dcm", ended.operation_id);
/// assert!(container.get(&name).is_some());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ExportEngine(Arc<Runner>);

impl ExportEngine {
    fn new(config: ExportConfig, store: Arc<dyn OperationStore>, options: RunnerOptions) -> Self {
        Self(Arc::new(Runner::new(config, store, options)))
    }

    /// Returns the configuration, for another runner with the same sources, destinations and options.
    pub fn config(&self) -> &ExportConfig {
        &self.0.config
    }

    /// Changes how many bytes of instances all operations of this engine transfer per second, at once and also for running
    /// operations. Zero removes the limit. It is not stored: see
    /// [`ExportEngineBuilder::bytes_per_second`](crate::ExportEngineBuilder::bytes_per_second).
    pub fn set_bytes_per_second(&self, bytes: u64) {
        self.0.config.bytes.set(bytes);
    }

    /// Changes how many bytes of instances all operations of this engine transfer per second to each destination account, at
    /// once and also for running operations. Zero removes the limit. It is not stored: see
    /// [`ExportEngineBuilder::bytes_per_second_per_account`](crate::ExportEngineBuilder::bytes_per_second_per_account).
    pub fn set_bytes_per_second_per_account(&self, bytes: u64) {
        self.0.config.set_bytes_per_second_per_account(bytes);
    }

    /// Accepts an operation for [`run`](Self::run). It returns after the destination was opened and the empty
    /// `errors.log` was created.
    ///
    /// # Errors
    /// As [`ExportService::start`].
    pub async fn create(&self, new: NewOperation) -> Result<Operation> {
        let id = self.0.create(new).await?;
        self.status(id).await
    }

    /// Runs an operation in the caller's task, from its checkpoint to its end or until it is paused. It is for a host with its
    /// own job system, where a retry is a resumption.
    ///
    /// Returns the status document at the end, also if the operation [failed](crate::OperationStatus::Failed), or when the engine
    /// was shut down.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown operation, [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if it has ended or another runner holds
    /// it; otherwise the store's.
    ///
    /// # Cancellation
    /// Dropping the future stops the run and commits no partial blob. Another runner can take over the operation when the
    /// lease lapses.
    pub async fn run(&self, id: OperationId) -> Result<Operation> {
        self.0.run(id).await?;
        self.status(id).await
    }

    /// Accepts an operation and runs it in a task: [`create`](Self::create) and [`run`](Self::run).
    ///
    /// # Errors
    /// As [`ExportService::start`].
    ///
    /// # Cancellation
    /// Dropping the future leaves an operation that is complete and running, or none.
    pub async fn start(&self, new: NewOperation) -> Result<Operation> {
        self.0.start_takeover();
        let runner = Arc::clone(&self.0);
        self.0.registry.run_detached(async move { runner.start(new).await }).await
    }

    /// Resumes an operation that failed, that is paused or that no runner holds, from its checkpoint, in a task. `target`
    /// provides other credentials for the same container.
    ///
    /// # Errors
    /// As [`ExportService::resume`].
    ///
    /// # Cancellation
    /// Dropping the future leaves the operation resumed or unchanged.
    pub async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation> {
        self.0.start_takeover();
        let runner = Arc::clone(&self.0);
        let resume = async move {
            runner.resume(id, target).await?;
            runner.operations.operation(id).await
        };
        self.0.registry.run_detached(resume).await
    }

    /// Resumes every operation that has not ended and that no runner holds. Call it when the server starts: it also starts
    /// the task that takes over operations whose lease lapses later. An operation whose credentials did not survive the
    /// restart fails with `credentialsNeeded`.
    ///
    /// Returns the ids of the resumed operations.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) while shutting down; otherwise the store's.
    pub async fn resume_all(&self) -> Result<Vec<OperationId>> {
        self.0.registry.check_accepting()?;
        self.0.start_takeover();
        self.0.operations.sweep_if_due().await;
        self.0.take_over().await
    }

    /// Returns the status document of an operation.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown operation; otherwise the store's.
    pub async fn status(&self, id: OperationId) -> Result<Operation> {
        self.0.operations.operation(id).await
    }

    /// Returns the progress of an operation that runs in this process. It stays readable after the run ends, for the
    /// newest 1,024 runs; `None` for any other operation.
    pub fn progress(&self, id: OperationId) -> Option<watch::Receiver<Progress>> {
        self.0.registry.progress(id)
    }

    /// Deletes operations that ended longer ago than the builder's `retention` from the store, and returns their number.
    /// Exported data stays. The engine calls it at most once an hour, in
    /// [`resume_all`](Self::resume_all) and beside the search for operations to take over.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge_expired(&self) -> Result<usize> {
        self.0.operations.purge_expired().await
    }

    /// Waits until an operation has ended, or until the engine was shut down.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub async fn wait(&self, id: OperationId) -> Result<Operation> {
        loop {
            if let Some(mut progress) = self.progress(id) {
                // Fails when the run drops its sender.
                while progress.changed().await.is_ok() {}
            }
            let operation = self.status(id).await?;
            if operation.status.is_ended() || self.0.registry.tasks.is_closed() {
                return Ok(operation);
            }
            sleep(REMOTE_POLL_INTERVAL).await;
        }
    }

    /// Requests that an operation be canceled, in whichever process it runs. It stops within seconds.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) for an unknown operation, [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if it has ended.
    pub async fn cancel(&self, id: OperationId) -> Result<()> {
        self.0.cancel(id).await
    }

    /// Requests that an operation be paused, in whichever process it runs. It stops within seconds, and stays paused until
    /// it is [resumed](Self::resume) or canceled.
    ///
    /// # Errors
    /// As [`ExportService::pause`].
    pub async fn pause(&self, id: OperationId) -> Result<()> {
        self.0.pause(id).await
    }

    /// Changes how many bytes of instances an operation transfers per second. Zero removes the limit. It is stored with the
    /// operation.
    ///
    /// # Errors
    /// As [`ExportService::set_bytes_per_second`].
    pub async fn set_operation_bytes_per_second(&self, id: OperationId, bytes: u64) -> Result<()> {
        self.0.set_bytes_per_second(id, bytes).await
    }

    /// Shuts the engine down: it accepts no more operations, waits at most `grace` for batches in progress, drops the
    /// rest, and returns when nothing runs. Operations that have not ended can be resumed.
    pub async fn shutdown(&self, grace: Duration) {
        self.0.registry.shutdown(grace).await;
    }
}

#[async_trait]
impl ExportService for ExportEngine {
    async fn start(&self, new: NewOperation) -> Result<Operation> {
        self.start(new).await
    }

    fn location(&self, destination: &ExportDestination) -> Result<String> {
        validate_destination(&self.0.config, destination).map(|(_, validated)| validated.location)
    }

    fn destination_types(&self) -> Vec<DestinationType> {
        self.0.config.destination_types()
    }

    async fn operation(&self, id: OperationId) -> Result<OperationRecord> {
        self.0.operations.record(id).await
    }

    async fn list(&self, filter: &OperationFilter) -> Result<Vec<OperationRecord>> {
        self.0.operations.list(filter).await
    }

    async fn cancel(&self, id: OperationId) -> Result<()> {
        self.cancel(id).await
    }

    async fn pause(&self, id: OperationId) -> Result<()> {
        self.pause(id).await
    }

    async fn set_bytes_per_second(&self, id: OperationId, bytes: u64) -> Result<()> {
        self.set_operation_bytes_per_second(id, bytes).await
    }

    async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation> {
        self.resume(id, target).await
    }
}

impl fmt::Debug for ExportEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportEngine")
            .field("config", &self.0.config)
            .field("running", &self.0.registry.running())
            .finish_non_exhaustive()
    }
}
