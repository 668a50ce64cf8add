//! The export engine: [`ExportEngine`].

mod admission;
mod builder;
mod checked;
mod checks;
mod copy;
mod digest;
mod expiry;
mod guard;
#[cfg(feature = "dicom")]
mod identity;
#[cfg(not(feature = "dicom"))]
#[path = "no_identity.rs"]
mod identity;
mod inner;
mod ledger;
mod lines;
mod observer;
mod place;
mod plan;
mod progress;
mod retention;
mod run;
mod service;
mod status;
mod transfer;
mod verdict;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

pub use self::builder::ExportEngineBuilder;
pub use self::checks::Checksums;
#[cfg(feature = "dicom")]
pub use self::identity::IdentityCheck;
pub use self::observer::{BatchDone, ExportObserver};
pub use self::progress::Progress;
pub use self::service::{ExportService, NewOperation, OperationRecord, Target};
#[cfg(feature = "restate")]
pub(crate) use self::{
    admission::{Draft, Tried},
    lines::Lines,
    plan::{Batch, Planner, Prefix},
    status::document,
    transfer::{BatchOutcome, Transfers},
};
use crate::engine::inner::Inner;
use crate::engine::place::Place;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::MemoryBudget;
use crate::model::OperationKey;
use crate::model::{Operation, OperationId, OperationStatus};
use crate::source::{InstanceSource, SourceProvider};

/// Exports instances, as operations that are started, watched, canceled and resumed.
///
/// Cloning gives another handle on the same engine; its operations share one byte budget. It runs inside a Tokio
/// runtime. Dropping every handle does not stop what runs: [`shutdown`](Self::shutdown) does.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
/// use std::sync::Arc;
/// use dicom_export::{BlobSink, ExportEngine, ExportSource, MemorySink, MemorySource, NewOperation, OperationStatus};
///
/// let source = MemorySource::new();
/// source.insert("1.2/3.4/5.6".parse()?, &b"the bytes of a DICOM file"[..]);
/// let container = MemorySink::new();
///
/// let engine = ExportEngine::builder(source).build()?;
/// let sink: Arc<dyn BlobSink> = Arc::new(container.clone());
/// let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await?;
/// let ended = engine.wait(started.operation_id).await?;
///
/// assert_eq!(ended.status, OperationStatus::Completed);
/// assert_eq!((ended.results.exported, ended.results.skipped), (1, 0));
/// let name = format!("{}/results/1.2/3.4/5.6.dcm", ended.operation_id);
/// assert!(container.get(&name).is_some());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ExportEngine {
    pub(crate) inner: Arc<Inner>,
}

impl ExportEngine {
    /// Returns a builder for an engine over one source.
    pub fn builder(source: impl InstanceSource) -> ExportEngineBuilder {
        ExportEngineBuilder::over_one(source)
    }

    /// An engine whose operations each have their own source: for hosts with tenants.
    pub fn builder_with_provider(sources: impl SourceProvider) -> ExportEngineBuilder {
        ExportEngineBuilder::over(Arc::new(sources))
    }

    fn assemble(builder: ExportEngineBuilder) -> Self {
        let ExportEngineBuilder { sources, destinations, store, secrets, has_own_secrets, observer, options } =
            builder;
        let budget = MemoryBudget::new(options.memory);
        let inner = Inner {
            sources,
            destinations,
            store,
            secrets,
            has_own_secrets,
            observer,
            options,
            budget,
            limiters: Mutex::default(),
            running: Mutex::default(),
            sinks: Mutex::default(),
            swept: Mutex::default(),
            tasks: TaskTracker::new(),
            drain: CancellationToken::new(),
            abandon: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Accepts an operation and leaves it to [`run`](Self::run). It returns once the destination has been tried: there
    /// is an `errors.log`.
    ///
    /// # Errors
    /// As [`ExportService::start`].
    pub async fn create(&self, new: NewOperation) -> Result<Operation> {
        self.inner.accepting()?;
        let spec = self.inner.admit(new).await?;
        self.inner.operation(spec.id).await
    }

    /// Runs an operation in the caller's task, from its checkpoint to its end: for a host's own job system, where a
    /// retry is a resumption.
    ///
    /// It returns the status document at the end, [`Failed`](OperationStatus::Failed) included, or as it stood when the
    /// engine was shut down.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such operation, [`ErrorKind::Conflict`] when it has ended or somebody else
    /// runs it; otherwise the store's.
    ///
    /// # Cancellation
    /// Dropping the future stops the run where it is and commits no partial blob. Another can take the operation over
    /// once the lease has lapsed.
    pub async fn run(&self, id: OperationId) -> Result<Operation> {
        self.inner.accepting()?;
        if self.inner.store.load(id).await?.status == OperationStatus::Failed {
            self.inner.reopen(id, None).await?;
        }
        Place::take(&self.inner, id)?.run().await?;
        self.inner.operation(id).await
    }

    /// Accepts an operation and runs it in a task of its own: [`create`](Self::create) and [`run`](Self::run).
    ///
    /// # Errors
    /// As [`ExportService::start`].
    ///
    /// # Cancellation
    /// Dropping the future leaves a whole operation or none, running.
    pub async fn start(&self, new: NewOperation) -> Result<Operation> {
        let engine = self.clone();
        self.detached(async move {
            let operation = engine.create(new).await?;
            engine.spawn_run(operation.operation_id)?;
            engine.inner.forget_now_and_then().await;
            Ok(operation)
        })
        .await
    }

    /// Goes on with an operation that failed, or that nobody runs, from its checkpoint, in a task of its own.
    ///
    /// `target` gives other credentials for the same container.
    ///
    /// # Errors
    /// As [`ExportService::resume`].
    ///
    /// # Cancellation
    /// Dropping the future leaves the operation resumed or as it was.
    pub async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation> {
        self.inner.accepting()?;
        let engine = self.clone();
        self.detached(async move {
            engine.inner.reopen(id, target).await?;
            engine.spawn_run(id)?;
            engine.inner.operation(id).await
        })
        .await
    }

    /// Resumes every operation that has not ended and that nobody runs: for a server's start. One whose credentials
    /// did not survive the restart becomes `failed`, with the code `credentialsNeeded`.
    ///
    /// Gives the operations it found.
    ///
    /// # Errors
    /// The store's.
    pub async fn resume_all(&self) -> Result<Vec<OperationId>> {
        self.inner.accepting()?;
        self.inner.forget_now_and_then().await;
        let mut found = Vec::new();
        for id in self.inner.every_operation().await? {
            if self.inner.is_left(id).await? && self.spawn_run(id).is_ok() {
                found.push(id);
            }
        }
        Ok(found)
    }

    /// The status document.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such operation; otherwise the store's.
    pub async fn status(&self, id: OperationId) -> Result<Operation> {
        self.inner.operation(id).await
    }

    /// How an operation that runs in this process is getting on; `None` when it does not.
    pub fn progress(&self, id: OperationId) -> Option<watch::Receiver<Progress>> {
        self.inner.running().get(&id).map(|running| running.progress.clone())
    }

    /// Forgets operations that ended longer ago than the builder's `retention`. The engine does it by itself, once an hour
    /// at most, when an operation is started and in [`resume_all`](Self::resume_all); what they exported stays.
    ///
    /// Gives how many there were.
    ///
    /// # Errors
    /// The store's.
    pub async fn purge_expired(&self) -> Result<usize> {
        self.inner.purge_expired().await
    }

    /// Waits until an operation has ended, or until the engine has been shut down and has left it.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub async fn wait(&self, id: OperationId) -> Result<Operation> {
        const ELSEWHERE: Duration = Duration::from_millis(250);
        loop {
            if let Some(mut progress) = self.progress(id) {
                // Ends when the run drops its sender.
                while progress.changed().await.is_ok() {}
            }
            let operation = self.inner.operation(id).await?;
            if operation.status.is_ended() || self.inner.tasks.is_closed() {
                return Ok(operation);
            }
            sleep(ELSEWHERE).await;
        }
    }

    /// Asks for an operation to be canceled, wherever it runs; it winds down within seconds.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when there is no such operation, [`ErrorKind::Conflict`] when it has ended.
    pub async fn cancel(&self, id: OperationId) -> Result<()> {
        self.inner.cancel(id).await
    }

    /// Accepts nothing more, lets batches under way finish for so long, drops the rest, and returns when nothing runs.
    /// Operations that have not ended are left to be resumed.
    pub async fn shutdown(&self, grace: Duration) {
        self.inner.drain.cancel();
        self.inner.tasks.close();
        if timeout(grace, self.inner.tasks.wait()).await.is_err() {
            self.inner.abandon.cancel();
            self.inner.tasks.wait().await;
        }
    }

    /// Runs something to its end although the caller may go away.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = oneshot::channel();
        self.inner.tasks.spawn(
            async move {
                _ = sender.send(work.await);
            }
            .in_current_span(),
        );
        receiver
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the operation could not be started")))
    }

    fn spawn_run(&self, id: OperationId) -> Result<()> {
        let span = tracing::info_span!("export", operation = %id);
        span.follows_from(tracing::Span::current());
        let place = Place::take(&self.inner, id)?;
        let run = async move {
            if let Err(error) = place.run().await {
                tracing::warn!(kind = error.kind().as_str(), %error, "the run ended");
            }
        };
        self.inner.tasks.spawn(run.instrument(span));
        Ok(())
    }
}

#[async_trait]
impl ExportService for ExportEngine {
    async fn start(&self, new: NewOperation) -> Result<Operation> {
        self.start(new).await
    }

    async fn operation(&self, id: OperationId) -> Result<OperationRecord> {
        self.inner.record(id).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationRecord>> {
        let mut records = Vec::new();
        for key in self.inner.store.list(after, limit).await? {
            match self.inner.record(key.id).await {
                Ok(record) => records.push(record),
                // Deleted since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(records)
    }

    async fn cancel(&self, id: OperationId) -> Result<()> {
        self.cancel(id).await
    }

    async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation> {
        self.resume(id, target).await
    }
}

impl fmt::Debug for ExportEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExportEngine")
            .field("has_own_secrets", &self.inner.has_own_secrets)
            .field("options", &self.inner.options)
            .field("running", &self.inner.running().len())
            .finish_non_exhaustive()
    }
}
