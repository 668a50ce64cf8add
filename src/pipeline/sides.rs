//! [`Sides`]: the retries towards what an export depends on, and [`SideMonitor`], which reports sides that keep failing.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::limits::{Outage, Retrier, RetryPolicy, Side};
use crate::model::{OperationContext, OperationId};
use crate::pipeline::lifecycle::notify;
use crate::pipeline::metrics::FailingSide;
use crate::pipeline::observer::{ExportObserver, SideFailing, SideRecovered};

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
}

/// Reports the sides of an operation that keep failing, to the log and to the observer.
pub(crate) struct SideMonitor {
    id: OperationId,
    context: OperationContext,
    observer: Option<Arc<dyn ExportObserver>>,
    sides: Vec<SideState>,
}

struct SideState {
    retrier: Arc<Retrier>,
    /// The outage that has been reported, how long it lasts when it is reported again, and its part in the metrics.
    reported: Option<(Outage, Duration, FailingSide)>,
}

/// What is reported about a side.
enum Change {
    Failing(Outage),
    /// The side works again. The outage is as it was last reported.
    Recovered(Outage),
}

impl SideMonitor {
    pub(crate) fn new(
        id: OperationId,
        context: OperationContext,
        observer: Option<Arc<dyn ExportObserver>>,
        sides: &Sides,
    ) -> Self {
        let mut monitor = Self { id, context, observer, sides: Vec::new() };
        for retrier in [&sides.source, &sides.destination, &sides.observer] {
            monitor.add(retrier);
        }
        monitor
    }

    /// Adds a side.
    pub(crate) fn add(&mut self, retrier: &Arc<Retrier>) {
        self.sides.push(SideState { retrier: Arc::clone(retrier), reported: None });
    }

    /// Checks the sides periodically, until the future is dropped.
    pub(crate) async fn run(mut self) -> Infallible {
        loop {
            sleep(CHECK_INTERVAL).await;
            self.check().await;
        }
    }

    /// Reports what has changed.
    pub(crate) async fn check(&mut self) {
        for state in &mut self.sides {
            let side = state.retrier.side();
            match state.change() {
                Some(Change::Failing(outage)) => {
                    let failing = SideFailing {
                        operation_id: self.id,
                        context: &self.context,
                        side,
                        kind: outage.kind,
                        error: &outage.error,
                        failing_for: whole_seconds(outage.since.elapsed()),
                        failures: outage.failures,
                        budget_left: whole_seconds(outage.budget_left),
                    };
                    tracing::warn!(
                        side = side.as_str(),
                        kind = failing.kind.as_str(),
                        error = failing.error,
                        failing_for = ?failing.failing_for,
                        failures = failing.failures,
                        budget_left = ?failing.budget_left,
                        "the {side} keeps failing",
                    );
                    notify(self.observer.as_deref(), |observer| observer.side_failing(failing)).await;
                }
                Some(Change::Recovered(outage)) => {
                    let failed_for = whole_seconds(outage.since.elapsed());
                    tracing::info!(side = side.as_str(), ?failed_for, "the {side} works again");
                    let (operation_id, context) = (self.id, &self.context);
                    let recovered = SideRecovered { operation_id, context, side, failed_for };
                    notify(self.observer.as_deref(), |observer| observer.side_recovered(recovered)).await;
                }
                None => {}
            }
        }
    }
}

impl SideState {
    fn change(&mut self) -> Option<Change> {
        let outage = self.retrier.outage();
        if let Some((reported, _, _)) = &self.reported
            && outage.as_ref().is_none_or(|outage| outage.since != reported.since)
        {
            return self.reported.take().map(|(reported, _, _)| Change::Recovered(reported));
        }
        let outage = outage?;
        let due = self.reported.as_ref().map_or(FIRST_REPORT, |(_, next, _)| *next);
        if outage.since.elapsed() < due {
            return None;
        }
        let failing = match self.reported.take() {
            Some((_, _, failing)) => failing,
            None => FailingSide::new(self.retrier.side()),
        };
        self.reported = Some((outage.clone(), due * 2, failing));
        Some(Change::Failing(outage))
    }
}

fn whole_seconds(duration: Duration) -> Duration {
    Duration::from_secs(duration.as_secs())
}
