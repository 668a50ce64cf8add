//! The task that takes over operations whose runner is gone, and deletes expired ones.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::engine::runner::Runner;

/// Takes over operations periodically, until `drain` is canceled or the engine is dropped.
pub(super) async fn take_over_periodically(
    runner: Weak<Runner>,
    interval: Duration,
    drain: CancellationToken,
) {
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            () = sleep(interval) => {}
        }
        let Some(runner) = runner.upgrade() else { return };
        if let Err(error) = runner.take_over().await {
            tracing::warn!(kind = error.kind().as_str(), %error, "cannot look for operations to take over");
        }
        runner.operations.sweep_if_due().await;
    }
}
