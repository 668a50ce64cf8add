//! Warns of a credential that will not last.

use std::time::Duration;

use tokio::time::Instant;

use crate::model::Checkpoint;
use crate::model::OperationIssue;
use crate::model::Timestamp;

/// A credential with less left than this is warned about.
const SOON: Duration = Duration::from_secs(3600);

/// How long a run has to last before its speed says anything about its end.
const SETTLED: Duration = Duration::from_secs(30);

const CODE: &str = "credentialExpires";

impl Checkpoint {
    /// Says that the destination's credential expires within the hour, or before the estimated end; takes back what was
    /// said before if neither is so.
    pub(super) fn warn_of_expiry(&mut self, expires: Option<Timestamp>, estimated_end: Option<Timestamp>) {
        self.warnings.retain(|warning| warning.code != CODE);
        let Some(expires) = expires else { return };
        let soon = Timestamp::now().saturating_add(SOON);
        let why = if expires <= soon {
            "within the hour of the start"
        } else if estimated_end.is_some_and(|end| expires < end) {
            "before the export's estimated end"
        } else {
            return;
        };
        let message = format!("the destination's credential expires at {expires}, {why}");
        tracing::warn!(%expires, "the destination's credential expires {why}");
        self.warnings.push(OperationIssue::new(CODE, message));
    }
}

/// A run's speed, from its start on.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    /// What was done before.
    done: u64,
}

impl Pace {
    pub(super) fn from(checkpoint: &Checkpoint) -> Self {
        Self { began: Instant::now(), done: done(checkpoint) }
    }

    /// When the export ends at the speed it has had so far, if the source estimated how much there is.
    pub(super) fn estimated_end(&self, checkpoint: &Checkpoint) -> Option<Timestamp> {
        let (elapsed, done) = (self.began.elapsed(), done(checkpoint));
        let since = done.checked_sub(self.done).filter(|since| *since > 0 && elapsed > SETTLED)?;
        let left = checkpoint.estimate?.saturating_sub(done);
        let left = Duration::try_from_secs_f64(elapsed.as_secs_f64() * left as f64 / since as f64).ok()?;
        Some(Timestamp::now().saturating_add(left))
    }
}

fn done(checkpoint: &Checkpoint) -> u64 {
    checkpoint.totals.exported + checkpoint.totals.skipped
}
