//! [`Runner`]: starts, resumes, takes over and runs operations in this process.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};
use tracing::{Instrument, Span};

use crate::engine::leased_checkpoint::{LeaseTerms, LeasedCheckpoint};
use crate::engine::operations::{StoredOperations, check_resumable};
use crate::engine::registry::{Registry, RunGuard};
use crate::engine::run::Run;
use crate::engine::running_limit::{RunningLimit, Slot};
use crate::error::{Error, Result};
use crate::limits::{Retrier, Side};
use crate::model::{Operation, OperationId, OperationSpec, OperationStatus, StoredDestination};
use crate::pipeline::{
    ExportConfig, OpenedOperation, Pipeline, PreparedOperation, Resumption, SideMonitor, Sides,
    announce_pause, announce_start, describe, log_accepted, log_failure, open_sink, operation_span, prepare,
    record, reopen, status_document,
};
use crate::service::{NewOperation, Target};
use crate::store::OperationStore;
use crate::sync::catch_panic;

/// How long a start may take, including a destination that does not respond.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an abandoned run may take to log and save what it has finished.
const FINAL_SAVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The options of the local runner.
#[derive(Debug, Clone)]
pub(super) struct RunnerOptions {
    /// The name of this runner.
    pub(super) name: String,
    pub(super) checkpoint_interval: Duration,
    pub(super) lease_duration: Duration,
    /// `None`: the engine does not take over operations by itself.
    pub(super) takeover_interval: Option<Duration>,
}

/// What the runs of an engine share.
pub(super) struct Runner {
    pub(super) config: ExportConfig,
    pub(super) operations: StoredOperations,
    pub(super) registry: Arc<Registry>,
    limit: RunningLimit,
    pub(super) store: Arc<dyn OperationStore>,
    pub(super) options: RunnerOptions,
    /// Held while ends that were not delivered are delivered.
    pub(super) delivering: Mutex<()>,
    /// Set when the task that takes over operations was started.
    pub(super) takeover: OnceLock<()>,
}

impl Runner {
    pub(super) fn new(config: ExportConfig, store: Arc<dyn OperationStore>, options: RunnerOptions) -> Self {
        Self {
            operations: StoredOperations::new(config.clone(), Arc::clone(&store)),
            registry: Arc::default(),
            limit: RunningLimit::new(config.options.max_running, Arc::clone(&store)),
            config,
            store,
            options,
            delivering: Mutex::default(),
            takeover: OnceLock::new(),
        }
    }

    /// Stores a new operation without running it.
    pub(super) async fn create(&self, new: NewOperation) -> Result<OperationId> {
        self.registry.check_accepting()?;
        let slot = self.admit(new.context.partition.as_deref()).await?;
        let prepared = self.prepare(new).await?;
        let operation = self.limit.fill(slot, self.operations.create(prepared)).await?;
        log_accepted(&operation.spec);
        self.registry.keep_open_sink(&operation);
        Ok(operation.spec.id)
    }

    /// Stores a new operation with this runner's lease, and runs it in a task. Returns its first status document.
    pub(super) async fn start(self: &Arc<Self>, new: NewOperation) -> Result<Operation> {
        self.registry.check_accepting()?;
        let guard = self.registry.register(new.id)?;
        let slot = self.admit(new.context.partition.as_deref()).await?;
        let mut prepared = self.prepare(new).await?;
        let terms = self.lease_terms(&guard);
        // With a lease from the start, no other replica takes the operation over before its secret is stored.
        let now = self.config.short_retrier().run(|| self.store.now()).await?;
        prepared.checkpoint.lease = Some(terms.lease_from(now));
        prepared.checkpoint.runner = Some(terms.runner.clone());
        let mut checkpoint = prepared.checkpoint.clone();
        let opened = self.limit.fill(slot, self.operations.create(prepared)).await?;
        log_accepted(&opened.spec);
        self.registry.keep_open_sink(&opened);
        checkpoint.version = 1;
        let operation = status_document(guard.id, &checkpoint);
        let leased = LeasedCheckpoint::new(terms, guard.id, checkpoint);
        let resumption = Resumption::Requested;
        self.spawn(guard, async move |runner, guard| {
            runner.run_claimed(guard, leased, Some(opened), resumption).await
        });
        Ok(operation)
    }

    async fn admit(&self, partition: Option<&str>) -> Result<Slot> {
        self.limit.admit(partition, &self.config.short_retrier()).await
    }

    async fn prepare(&self, new: NewOperation) -> Result<PreparedOperation> {
        limit_start(prepare(&self.config, new)).await
    }

    /// Resumes an operation that failed or that no runner holds, and runs it in a task.
    pub(super) async fn resume(self: &Arc<Self>, id: OperationId, target: Option<Target>) -> Result<()> {
        self.registry.check_accepting()?;
        let guard = self.registry.register(id)?;
        let (leased, opened) = self.claim_resumable(&guard, target).await?;
        let resumption = Resumption::Requested;
        self.spawn(guard, async move |runner, guard| {
            runner.run_claimed(guard, leased, opened, resumption).await
        });
        Ok(())
    }

    /// Runs an operation in the caller's task.
    pub(super) async fn run(&self, id: OperationId) -> Result<()> {
        self.registry.check_accepting()?;
        let guard = self.registry.register(id)?;
        let (leased, opened) = self.claim_resumable(&guard, None).await?;
        self.run_claimed(guard, leased, opened, Resumption::Requested).instrument(operation_span(id)).await
    }

    /// Opens the target if there is one, and claims the operation: of two resumptions, one succeeds.
    async fn claim_resumable(
        &self,
        guard: &RunGuard,
        target: Option<Target>,
    ) -> Result<(LeasedCheckpoint, Option<OpenedOperation>)> {
        let open = async {
            let checkpoint = self.operations.load_resumable(guard.id).await?;
            // An operation that is running counts already.
            let slot = match checkpoint.status.is_running() {
                true => Slot::none(),
                false => self.admit(checkpoint.context.partition.as_deref()).await?,
            };
            Ok((slot, self.operations.open_resumed(guard.id, &checkpoint, target).await?))
        };
        let (slot, opened) = limit_start(open).await?;
        let destination = opened.as_ref().map(|opened| &opened.spec.destination);
        let claim = LeasedCheckpoint::claim(self.lease_terms(guard), guard.id, |checkpoint| {
            check_resumable(checkpoint.status)?;
            reopen(checkpoint, destination);
            Ok(())
        });
        let leased = self.limit.fill(slot, claim).await?;
        opened.iter().for_each(|opened| self.registry.keep_open_sink(opened));
        Ok((leased, opened))
    }

    /// Runs work for an operation in a task, under a span.
    pub(super) fn spawn<F>(self: &Arc<Self>, guard: RunGuard, work: impl FnOnce(Arc<Self>, RunGuard) -> F)
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let span = operation_span(guard.id);
        span.follows_from(tracing::Span::current());
        let work = work(Arc::clone(self), guard);
        let work = async move {
            if let Err(error) = work.await {
                let kind = error.kind().as_str();
                tracing::warn!(kind, error = %error.report(), "a run ended without a final save");
            }
        };
        self.registry.tasks.spawn(work.instrument(span));
    }

    /// Runs an operation from its checkpoint to its end, or until it is stopped. `opened` is the operation with the
    /// source and the sink that were opened when it was started or resumed.
    ///
    /// # Errors
    /// The store's; [`Conflict`](crate::ErrorKind::Conflict) if another runner has taken over the operation.
    pub(super) async fn run_claimed(
        &self,
        guard: RunGuard,
        leased: LeasedCheckpoint,
        opened: Option<OpenedOperation>,
        resumption: Resumption,
    ) -> Result<()> {
        let (id, abandon) = (guard.id, guard.stop.abandon.clone());
        let run = async {
            let run = AssertUnwindSafe(self.execute(&guard, leased, opened, resumption)).catch_unwind();
            if let Ok(outcome) = run.await {
                return outcome;
            }
            tracing::error!("the run panicked");
            self.operations.fail_after_panic(guard.id, &guard.holder).await?;
            self.release_resources(guard.id).await;
            Ok(())
        };
        let outcome = tokio::select! {
            biased;
            outcome = run => outcome,
            // A store that does not respond would delay the shutdown. The lease lapses by itself.
            () = async { abandon.cancelled().await; sleep(FINAL_SAVE_TIMEOUT).await } => {
                tracing::warn!("a run stopped without a final save: the store does not respond");
                Ok(())
            }
        };
        // The run is over, also for those who wait for it.
        drop(guard);
        self.deliver_end(id).await;
        outcome
    }

    async fn execute(
        &self,
        guard: &RunGuard,
        leased: LeasedCheckpoint,
        opened: Option<OpenedOperation>,
        resumption: Resumption,
    ) -> Result<()> {
        let sides = Sides::new(&self.config.options.retry);
        let (context, observer) = (leased.checkpoint.context.clone(), self.config.observer.clone());
        let mut monitor = SideMonitor::new(guard.id, context, observer, &sides);
        monitor.add(leased.store_retrier());
        let status = tokio::select! {
            biased;
            status = self.open_and_run(guard, leased, opened, resumption, sides) => status?,
            never = monitor.run() => match never {},
        };
        match status {
            OperationStatus::Paused => {
                let record = self.retrier().run(|| self.operations.record(guard.id)).await?;
                announce_pause(self.config.observer.as_deref(), &record).await;
            }
            _ if status.is_ended() => self.release_resources(guard.id).await,
            _ => {}
        }
        Ok(())
    }

    async fn open_and_run(
        &self,
        guard: &RunGuard,
        mut leased: LeasedCheckpoint,
        opened: Option<OpenedOperation>,
        resumption: Resumption,
        sides: Sides,
    ) -> Result<OperationStatus> {
        let (id, stop) = (guard.id, &guard.stop);
        if leased.checkpoint.status != OperationStatus::Running {
            leased.checkpoint.status = OperationStatus::Running;
            leased.save().await?;
        }
        let checkpoint = leased.checkpoint.clone();
        let resumption = leased.was_started.then_some(resumption);
        let open = async {
            let spec = match &opened {
                Some(opened) => Arc::clone(&opened.spec),
                None => self.spec(id, checkpoint.destination.clone()).await?,
            };
            describe(&Span::current(), &spec.context, Some(&spec.destination.location));
            let record = record(id, checkpoint.clone());
            announce_start(self.config.observer.as_deref(), &record, resumption).await;
            match opened {
                Some(opened) => Ok(opened),
                None => self.open(spec, &sides).await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancel.cancelled() => leased.end(OperationStatus::Canceled, None).await,
            () = stop.pause.cancelled() => leased.pause().await,
            () = stop.drain.cancelled() => leased.release().await,
            opened = leased.renew_during(open) => match opened {
                Ok(operation) => {
                    let bytes = Arc::clone(&guard.requests.bytes);
                    let pipeline = Pipeline::new(&self.config, operation, sides, &checkpoint.totals, bytes);
                    Run::new(pipeline, leased, self.options.checkpoint_interval, guard).run().await
                }
                Err(error) => leased.end(OperationStatus::Failed, Some(log_failure(&error))).await,
            }
        }
    }

    /// Loads the spec of an operation, with the destination of its last resumption if there was one.
    async fn spec(
        &self,
        id: OperationId,
        destination: Option<StoredDestination>,
    ) -> Result<Arc<OperationSpec>> {
        let spec = self.retrier().run(|| self.store.spec(id)).await?;
        Ok(match destination {
            Some(destination) => Arc::new(OperationSpec { destination, ..OperationSpec::clone(&spec) }),
            None => spec,
        })
    }

    async fn open(&self, spec: Arc<OperationSpec>, sides: &Sides) -> Result<OpenedOperation> {
        let source = sides.source.run(|| self.config.open_source(&spec)).await?;
        let sink = match self.registry.open_sink(spec.id) {
            Some(sink) => sink,
            None => sides.destination.run(|| open_sink(&self.config, &spec)).await?,
        };
        Ok(OpenedOperation { spec, source, sink })
    }

    /// Drops what must not outlive the end of an operation.
    pub(super) async fn release_resources(&self, id: OperationId) {
        self.registry.drop_open_sink(id);
        self.config.delete_secret(id).await;
    }

    pub(super) fn lease_terms(&self, guard: &RunGuard) -> LeaseTerms {
        LeaseTerms {
            store: Arc::clone(&self.store),
            retrier: Arc::new(self.retrier()),
            holder: guard.holder.clone(),
            runner: self.options.name.clone(),
            duration: self.options.lease_duration,
            requests: guard.requests.clone(),
            has_observer: self.config.observer.is_some(),
        }
    }

    fn retrier(&self) -> Retrier {
        Retrier::new(Side::OperationStore, self.config.options.retry.clone())
    }
}

/// Runs the calls of the host's providers at a start or a resumption.
///
/// # Errors
/// Theirs; [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if they take too long, and [`ErrorKind::Internal`](crate::ErrorKind::Internal) if they panic.
async fn limit_start<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let work = catch_panic(work, "the source's or the destination's provider panicked");
    timeout(START_TIMEOUT, work).await.unwrap_or_else(|_| {
        let message =
            format!("the destination or the source did not respond within {} s", START_TIMEOUT.as_secs());
        Err(Error::invalid("/destination", message))
    })
}
