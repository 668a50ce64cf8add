//! [`Sides`]: the retries towards what an export depends on, and [`SideMonitor`], which notices sides that keep failing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::limits::{Outage, Retrier, RetryPolicy, Side};

/// A side that fails for this long without a success is reported; again after twice the time, and so on.
const FIRST_REPORT: Duration = Duration::from_secs(30);

const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The retries of one operation. Each side has its own budget.
#[derive(Debug, Clone)]
pub(crate) struct Sides {
    pub(crate) source: Arc<Retrier>,
    pub(crate) destination: Arc<Retrier>,
    pub(crate) observer: Arc<Retrier>,
}

impl Sides {
    pub(crate) fn new(policy: &RetryPolicy) -> Self {
        let retrier = |side| Arc::new(Retrier::new(side, policy.clone()));
        Self {
            source: retrier(Side::Source),
            destination: retrier(Side::Destination),
            observer: retrier(Side::Observer),
        }
    }

    /// Returns a monitor for each side.
    pub(crate) fn monitors(&self) -> Vec<SideMonitor> {
        [&self.source, &self.destination, &self.observer].map(SideMonitor::new).into()
    }
}

/// Decides when the outage of a side is reported.
#[derive(Debug)]
pub(crate) struct SideMonitor {
    retrier: Arc<Retrier>,
    /// The outage that has been reported, and how long it lasts when it is reported again.
    reported: Option<(Outage, Duration)>,
}

/// What is reported about a side.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SideChange {
    Failing(Outage),
    /// The side works again. The outage is as it was last reported.
    Recovered(Outage),
}

impl SideMonitor {
    pub(crate) fn new(retrier: &Arc<Retrier>) -> Self {
        Self { retrier: Arc::clone(retrier), reported: None }
    }

    /// Logs a side that keeps failing, and its recovery. It is called periodically.
    pub(crate) fn check(&mut self) {
        let side = self.retrier.side().as_str();
        match self.change() {
            Some(SideChange::Failing(outage)) => tracing::warn!(
                side,
                kind = outage.kind.as_str(),
                error = outage.error,
                failing_for = ?whole_seconds(outage.since.elapsed()),
                failures = outage.failures,
                budget_left = ?whole_seconds(outage.budget_left),
                "the {side} keeps failing",
            ),
            Some(SideChange::Recovered(outage)) => tracing::info!(
                side,
                failed_for = ?whole_seconds(outage.since.elapsed()),
                "the {side} works again",
            ),
            None => {}
        }
    }

    fn change(&mut self) -> Option<SideChange> {
        let outage = self.retrier.outage();
        if let Some((reported, _)) = &self.reported
            && outage.as_ref().is_none_or(|outage| outage.since != reported.since)
        {
            return self.reported.take().map(|(reported, _)| SideChange::Recovered(reported));
        }
        let outage = outage?;
        let due = self.reported.as_ref().map_or(FIRST_REPORT, |(_, next)| *next);
        if outage.since.elapsed() < due {
            return None;
        }
        self.reported = Some((outage.clone(), due * 2));
        Some(SideChange::Failing(outage))
    }
}

/// Checks sides until it is dropped.
pub(crate) async fn monitor(mut monitors: Vec<SideMonitor>) -> Infallible {
    loop {
        sleep(CHECK_INTERVAL).await;
        monitors.iter_mut().for_each(SideMonitor::check);
    }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
