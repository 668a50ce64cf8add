//! Warnings about a credential that expires before the export ends.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Checkpoint, OperationIssue, Timestamp};

/// A credential that expires within this time is warned about regardless of the estimated end.
const EXPIRES_SOON: Duration = Duration::from_secs(3600);

/// How long a run must last before its rate is used for an estimate.
const MIN_RATE_INTERVAL: Duration = Duration::from_secs(30);

const WARNING_CODE: &str = "credentialExpires";

/// Adds a warning if the destination's credential expires within the hour or before the estimated end. Removes an earlier
/// warning if it does not.
pub(crate) fn update_expiry_warning(
    checkpoint: &mut Checkpoint,
    expires: Option<Timestamp>,
    estimated_end: Option<Timestamp>,
) {
    checkpoint.warnings.retain(|warning| warning.code != WARNING_CODE);
    let Some(expires) = expires else { return };
    let soon = Timestamp::now().saturating_add(EXPIRES_SOON);
    let reason = if expires <= soon {
        "within an hour of the start"
    } else if estimated_end.is_some_and(|end| expires < end) {
        "before the estimated end of the export"
    } else {
        return;
    };
    let message = format!("the destination's credential expires at {expires}, {reason}");
    tracing::warn!(%expires, "the destination's credential expires {reason}");
    checkpoint.warnings.push(OperationIssue::new(WARNING_CODE, message));
}

/// Estimates the end of a run from its rate since it started.
#[derive(Debug)]
pub(crate) struct RateEstimator {
    started: Instant,
    /// The instances that were done at the start of the run.
    initial: u64,
}

impl RateEstimator {
    pub(crate) fn starting_at(checkpoint: &Checkpoint) -> Self {
        Self { started: Instant::now(), initial: instances_done(checkpoint) }
    }

    /// Returns the time at which the export ends at its current rate, if the source estimated the number of instances.
    pub(crate) fn estimated_end(&self, checkpoint: &Checkpoint) -> Option<Timestamp> {
        let (elapsed, done) = (self.started.elapsed(), instances_done(checkpoint));
        let in_run =
            done.checked_sub(self.initial).filter(|in_run| *in_run > 0 && elapsed > MIN_RATE_INTERVAL)?;
        let remaining = checkpoint.estimate?.saturating_sub(done);
        let seconds = elapsed.as_secs_f64() * remaining as f64 / in_run as f64;
        let remaining = Duration::try_from_secs_f64(seconds).ok()?;
        Some(Timestamp::now().saturating_add(remaining))
    }
}

fn instances_done(checkpoint: &Checkpoint) -> u64 {
    checkpoint.totals.exported + checkpoint.totals.skipped
}
