//! Takes over operations that no runner holds: after a restart, and when the runner of another process stops.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::engine::leased_checkpoint::LeasedCheckpoint;
use crate::engine::runner::Runner;
use crate::error::{Error, ErrorKind, Result};
use crate::model::OperationId;
use crate::pipeline::Resumption;

impl Runner {
    /// Starts the task that takes over operations, once. It needs a runtime, so it is not started by the builder.
    pub(super) fn start_takeover(self: &Arc<Self>) {
        if let Some(interval) = self.options.takeover_interval {
            self.takeover.get_or_init(|| {
                let drain = self.registry.drain_token();
                tokio::spawn(take_over_periodically(Arc::downgrade(self), interval, drain));
            });
        }
    }

    /// Runs every operation that has not ended and that no runner holds, each in a task. Returns their ids. Delivers the
    /// ends that have not been delivered, in another task.
    pub(super) async fn take_over(self: &Arc<Self>) -> Result<Vec<OperationId>> {
        if self.config.observer.is_some() {
            let (runner, drain) = (Arc::clone(self), self.registry.drain_token());
            self.registry.tasks.spawn(async move {
                tokio::select! {
                    () = runner.deliver_ends() => {}
                    () = drain.cancelled() => {}
                }
            });
        }
        let mut ids = Vec::new();
        for id in self.operations.unclaimed().await? {
            let Ok(guard) = self.registry.register(id) else { continue };
            self.spawn(guard, async |runner, guard| {
                let claim = LeasedCheckpoint::claim(runner.lease_terms(&guard), guard.id, |checkpoint| {
                    match checkpoint.status.is_running() {
                        true => Ok(()),
                        false => Err(Error::new(ErrorKind::Conflict, "the operation has ended or is paused")),
                    }
                });
                let claim = tokio::select! {
                    claim = claim => claim,
                    () = guard.stop.abandon.cancelled() => return Ok(()),
                };
                match claim {
                    Ok(leased) => runner.run_claimed(guard, leased, None, Resumption::TakenOver).await,
                    // Another replica was faster, or the operation was deleted.
                    Err(error) if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => Ok(()),
                    Err(error) => Err(error),
                }
            });
            ids.push(id);
        }
        Ok(ids)
    }
}

/// Takes over operations periodically, until `drain` is canceled or the engine is dropped.
async fn take_over_periodically(runner: Weak<Runner>, interval: Duration, drain: CancellationToken) {
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            () = sleep(interval) => {}
        }
        let Some(runner) = runner.upgrade() else { return };
        if let Err(error) = runner.take_over().await {
            let kind = error.kind().as_str();
            tracing::warn!(kind, error = %error.report(), "cannot look for operations to take over");
        }
        runner.operations.sweep_if_due().await;
    }
}
