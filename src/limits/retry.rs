//! [`RetryPolicy`]: retries of transient failures, within a budget that restarts with each success.

use std::sync::Mutex;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::outage::{Outage, Side};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// How the engine retries calls that fail with [`Throttled`](crate::ErrorKind::Throttled) or
/// [`Unavailable`](crate::ErrorKind::Unavailable).
///
/// The pause doubles from `initial_backoff` to `max_backoff`; each is shortened at random by up to a half, so that
/// concurrent calls do not retry in lockstep. A `Retry-After` is the minimum pause, but no pause is longer than 30 s or
/// `max_backoff`, and none exceeds the remaining budget.
///
/// ```
/// use std::time::Duration;
/// use dicom_export::RetryPolicy;
///
/// let patient = RetryPolicy::with_budget(Duration::from_secs(3600)).with_max_backoff(Duration::from_secs(60));
/// assert_eq!(patient.initial_backoff, Duration::from_millis(100));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How long the source or the destination may fail, without one success in between, before the operation fails.
    /// Default: 10 minutes. A single call gives up after twice this time even if other calls succeed.
    pub budget: Duration,
    /// The first pause. Default: 100 ms.
    pub initial_backoff: Duration,
    /// The longest pause. Default: 30 s.
    pub max_backoff: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(600),
            initial_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(30),
        }
    }
}

impl RetryPolicy {
    /// Creates a policy without retries, for tests that expect a failure.
    pub fn none() -> Self {
        Self::with_budget(Duration::ZERO)
    }

    /// Creates a policy with the default pauses and this budget.
    pub fn with_budget(budget: Duration) -> Self {
        Self { budget, ..Self::default() }
    }

    /// Sets the first pause.
    #[must_use]
    pub fn with_initial_backoff(mut self, pause: Duration) -> Self {
        self.initial_backoff = pause;
        self
    }

    /// Sets the longest pause.
    #[must_use]
    pub fn with_max_backoff(mut self, pause: Duration) -> Self {
        self.max_backoff = pause;
        self
    }
}

/// The longest pause that a `Retry-After` can cause, unless `max_backoff` is longer: one response must not stop an export
/// for longer, and a destination that needs more time repeats it.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);

/// Retries calls towards one side. All calls share the time of the last success.
#[derive(Debug)]
pub(crate) struct Retrier {
    side: Side,
    policy: RetryPolicy,
    state: Mutex<State>,
    /// Whether `State::failing_since` is set, so that a success takes no lock while nothing fails.
    is_failing: AtomicBool,
    /// The number of calls whose work was completed.
    completed: AtomicU64,
    /// The number of requests that succeeded, which tells a long transfer from a stuck one.
    successes: AtomicU64,
}

#[derive(Debug)]
struct State {
    /// The time of the first failure since the last success, or since which calls have been waiting for a pause.
    failing_since: Option<Instant>,
    /// The failures since then, and the latest one.
    failures: u64,
    last_failure: Option<(ErrorKind, String)>,
    /// Retries since the start.
    throttled: u64,
    unavailable: u64,
    jitter: fastrand::Rng,
}

/// The failures of one call so far.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    first: Option<Instant>,
    count: u32,
    /// The number of completed calls at the last failure.
    completed: u64,
    /// The number of the latest failures between which other calls were completed.
    isolated: u32,
}

impl Retrier {
    pub(crate) fn new(side: Side, policy: RetryPolicy) -> Self {
        let state = State {
            failing_since: None,
            failures: 0,
            last_failure: None,
            throttled: 0,
            unavailable: 0,
            jitter: fastrand::Rng::new(),
        };
        Self {
            side,
            policy,
            state: Mutex::new(state),
            is_failing: AtomicBool::new(false),
            completed: AtomicU64::new(0),
            successes: AtomicU64::new(0),
        }
    }

    pub(crate) fn side(&self) -> Side {
        self.side
    }

    /// Returns the current time without a success, if calls fail or wait for a pause.
    pub(crate) fn outage(&self) -> Option<Outage> {
        if !self.is_failing.load(SeqCst) {
            return None;
        }
        let state = lock(&self.state);
        let since = state.failing_since?;
        // Without a failure of its own, the calls wait for a pause that the other side asked for.
        let waiting = || (ErrorKind::Throttled, "requests wait for a pause".to_owned());
        let (kind, error) = state.last_failure.clone().unwrap_or_else(waiting);
        let budget_left = self.policy.budget.saturating_sub(since.elapsed());
        Some(Outage { since, failures: state.failures, kind, error, budget_left })
    }

    /// Calls until the call succeeds, fails with an error that is not transient, or the budget is used up.
    ///
    /// # Cancellation
    /// Dropping the future drops the call in progress.
    pub(crate) async fn run<T, F, Fut>(&self, mut call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut failures = Failures::default();
        loop {
            match call().await {
                Ok(value) => {
                    self.request_succeeded();
                    return Ok(value);
                }
                Err(error) => match self.backoff(&mut failures, &error) {
                    Some(pause) => sleep(pause).await,
                    None => return Err(error),
                },
            }
        }
    }

    /// The first pause.
    pub(crate) fn initial_backoff(&self) -> Duration {
        self.policy.initial_backoff.min(self.policy.budget)
    }

    /// Records that the work of a call was completed, for example that an instance was read to its end: the side works for
    /// others than a call that fails.
    pub(crate) fn completed(&self) {
        self.completed.fetch_add(1, SeqCst);
        self.succeeded();
    }

    /// Records a success, and counts the request.
    pub(crate) fn request_succeeded(&self) {
        self.successes.fetch_add(1, Relaxed);
        self.succeeded();
    }

    /// The number of failures that were retried, by kind.
    #[cfg(feature = "metrics")]
    pub(crate) fn retries(&self) -> [(ErrorKind, u64); 2] {
        let state = lock(&self.state);
        [(ErrorKind::Throttled, state.throttled), (ErrorKind::Unavailable, state.unavailable)]
    }

    /// The number of requests that succeeded.
    pub(crate) fn successes(&self) -> u64 {
        self.successes.load(Relaxed)
    }

    /// Whether another call was completed since the latest failure of this one.
    pub(crate) fn has_completed_since(&self, failures: &Failures) -> bool {
        self.completed.load(SeqCst) > failures.completed
    }

    /// Records a success: the side responds.
    pub(crate) fn succeeded(&self) {
        if self.is_failing.load(SeqCst) {
            let mut state = lock(&self.state);
            state.failing_since = None;
            state.failures = 0;
            state.last_failure = None;
            self.is_failing.store(false, SeqCst);
        }
    }

    /// Records that a call waits for a pause that the other side asked for: the wait counts against the budget.
    pub(crate) fn delayed(&self) {
        let mut state = lock(&self.state);
        state.failing_since.get_or_insert_with(Instant::now);
        self.is_failing.store(true, SeqCst);
    }

    /// Records a failure and returns the pause before the next attempt, or `None` if the call must not be retried.
    pub(crate) fn backoff(&self, failures: &mut Failures, error: &Error) -> Option<Duration> {
        if !error.kind().is_transient() {
            return None;
        }
        let (now, completed) = (Instant::now(), self.completed.load(SeqCst));
        let failure = (error.kind(), error.report().to_string());
        let mut state = lock(&self.state);
        let failing_since = *state.failing_since.get_or_insert(now);
        state.failures += 1;
        state.last_failure = Some(failure);
        self.is_failing.store(true, SeqCst);
        let is_isolated = failures.first.is_some() && completed > failures.completed;
        failures.isolated = if is_isolated { failures.isolated + 1 } else { 0 };
        failures.completed = completed;
        let first = *failures.first.get_or_insert(now);
        let budget = self.policy.budget;
        let remaining = budget
            .saturating_sub(now - failing_since)
            .min(budget.saturating_mul(2).saturating_sub(now - first));
        if remaining.is_zero() {
            return None;
        }
        match error.kind() {
            ErrorKind::Throttled => state.throttled += 1,
            _ => state.unavailable += 1,
        }
        let doubled = self.policy.initial_backoff.saturating_mul(1 << failures.count.min(20));
        let pause = doubled.min(self.policy.max_backoff).mul_f64(1.0 - state.jitter.f64() / 2.0);
        failures.count += 1;
        let requested = error.retry_after().unwrap_or_default();
        let requested = requested.min(MAX_RETRY_AFTER.max(self.policy.max_backoff));
        Some(pause.max(requested).min(remaining))
    }
}

impl Failures {
    /// The failures of a call that something else makes and counts: the number of attempts so far, and the time since the
    /// first one began.
    #[cfg(feature = "object_store")]
    pub(crate) fn counted(attempts: usize, elapsed: Duration) -> Self {
        let count = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        Self { first: Instant::now().checked_sub(elapsed), count, ..Self::default() }
    }

    /// The number of failures that were retried.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The number of the latest failures of the call before each of which another call was completed.
    pub(crate) fn isolated(&self) -> u32 {
        self.isolated
    }

    /// The time since the first failure.
    pub(crate) fn elapsed(&self) -> Duration {
        self.first.map(|first| first.elapsed()).unwrap_or_default()
    }
}
