//! [`Runner`]: runs stored operations in this process.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::engine::builder::RunnerOptions;
use crate::engine::leased_checkpoint::LeasedCheckpoint;
use crate::engine::operations::StoredOperations;
use crate::engine::registry::{Registry, RunGuard};
use crate::engine::run::Run;
use crate::error::Result;
use crate::limits::Retrier;
use crate::model::{OperationId, OperationIssue, OperationSpec, OperationStatus};
use crate::pipeline::{ExportConfig, OpenedOperation, Pipeline, open_stored};
use crate::store::OperationStore;

/// How long an abandoned run may take to log and save what it has finished.
const FINAL_SAVE_TIMEOUT: Duration = Duration::from_secs(20);

/// What the runs of an engine share.
pub(super) struct Runner {
    pub(super) config: ExportConfig,
    pub(super) operations: StoredOperations,
    pub(super) registry: Arc<Registry>,
    store: Arc<dyn OperationStore>,
    options: RunnerOptions,
}

impl Runner {
    pub(super) fn new(config: ExportConfig, store: Arc<dyn OperationStore>, options: RunnerOptions) -> Self {
        Self {
            operations: StoredOperations::new(config.clone(), Arc::clone(&store)),
            registry: Arc::default(),
            config,
            store,
            options,
        }
    }

    /// Runs an operation from its checkpoint to its end, or until it is stopped. `opened` is the operation with the
    /// source and the sink that were opened when it was started or resumed.
    ///
    /// # Errors
    /// The store's; [`Conflict`](crate::ErrorKind::Conflict) if another runner holds the operation or it has ended.
    pub(super) async fn run(&self, guard: RunGuard, opened: Option<OpenedOperation>) -> Result<()> {
        let abandon = guard.stop.abandon.clone();
        tokio::select! {
            biased;
            outcome = self.claim_and_run(guard, opened) => outcome,
            // A store that does not respond would delay the shutdown. The lease lapses by itself.
            () = async { abandon.cancelled().await; sleep(FINAL_SAVE_TIMEOUT).await } => {
                tracing::warn!("a run stopped without a final save: the store does not respond");
                Ok(())
            }
        }
    }

    async fn claim_and_run(&self, guard: RunGuard, opened: Option<OpenedOperation>) -> Result<()> {
        let (id, stop) = (guard.id, &guard.stop);
        let (store, duration) = (Arc::clone(&self.store), self.options.lease_duration);
        let mut leased =
            LeasedCheckpoint::claim(store, self.retrier(), id, duration, stop.cancel.clone()).await?;
        let open_retry = self.retrier();
        let destination = leased.checkpoint.destination.clone();
        let open = async {
            match opened {
                Some(opened) if destination.as_ref().is_none_or(|it| *it == opened.spec.destination) => {
                    Ok(opened)
                }
                _ => {
                    let spec = open_retry.run(|| self.store.spec(id)).await?;
                    let spec = match destination {
                        Some(destination) => {
                            Arc::new(OperationSpec { destination, ..OperationSpec::clone(&spec) })
                        }
                        None => spec,
                    };
                    open_retry.run(|| self.open(Arc::clone(&spec))).await
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancel.cancelled() => leased.end(OperationStatus::Canceled, None).await?,
            () = stop.drain.cancelled() => leased.release().await?,
            opened = leased.renew_during(open) => match opened {
                Ok(operation) => {
                    let pipeline = Pipeline::new(&self.config, operation, &leased.checkpoint.totals);
                    let run = Run::new(pipeline, leased, self.options.checkpoint_interval, &guard);
                    run.run().await?;
                }
                Err(error) => leased.end(OperationStatus::Failed, Some(OperationIssue::from(&error))).await?,
            }
        }
        if self.retrier().run(|| self.store.load(id)).await?.status.is_ended() {
            self.release_resources(id).await;
        }
        Ok(())
    }

    async fn open(&self, spec: Arc<OperationSpec>) -> Result<OpenedOperation> {
        match self.registry.open_sink(spec.id) {
            Some(sink) => {
                let source = self.config.sources.open(&spec).await?;
                Ok(OpenedOperation { spec, source, sink })
            }
            None => open_stored(&self.config, spec).await,
        }
    }

    /// Drops what must not outlive the end of an operation.
    pub(super) async fn release_resources(&self, id: OperationId) {
        self.registry.drop_open_sink(id);
        self.operations.delete_secret(id).await;
    }

    fn retrier(&self) -> Retrier {
        Retrier::new(self.config.options.retry.clone())
    }
}
