//! Repeating what failed for a passing reason, within a budget that runs from the last success.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};

/// How long, and how often, the engine repeats what failed with [`Throttled`](crate::ErrorKind::Throttled) or
/// [`Unavailable`](crate::ErrorKind::Unavailable).
///
/// Pauses double from `first_pause` to `longest_pause`, each shortened at random by up to a half so that calls do
/// not return in step. A `Retry-After` is honoured as the least pause; one that reaches past the budget ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// How long a side (the source, the destination) may fail without one success between before the operation
    /// does. Default: 10 minutes. A single call gives up after twice this even while others pass.
    pub budget: Duration,
    /// Default: 100 ms.
    pub first_pause: Duration,
    /// Default: 30 s.
    pub longest_pause: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            budget: Duration::from_secs(600),
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(30),
        }
    }
}

impl Retry {
    /// Nothing is repeated: for tests that expect a failure.
    pub fn none() -> Self {
        Self::for_up_to(Duration::ZERO)
    }

    /// The defaults with another budget.
    pub fn for_up_to(budget: Duration) -> Self {
        Self { budget, ..Self::default() }
    }
}

/// One side's retries: every call towards it shares the moment since which nothing has succeeded.
#[derive(Debug)]
pub(crate) struct Retrier {
    retry: Retry,
    state: Mutex<State>,
    /// Whether there is trouble to forget: a success, which every instance is, takes no lock otherwise.
    in_trouble: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// The first failure since the last success.
    trouble_since: Option<Instant>,
    jitter: fastrand::Rng,
}

/// One call's failures so far.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    first: Option<Instant>,
    count: u32,
}

impl Retrier {
    pub(crate) fn new(retry: Retry) -> Self {
        let state = Mutex::new(State { trouble_since: None, jitter: fastrand::Rng::new() });
        Self { retry, state, in_trouble: AtomicBool::new(false) }
    }

    /// Calls until it succeeds, fails for good, or the budget is used up. Dropping the future drops the call.
    pub(crate) async fn run<T, F, Fut>(&self, mut call: F) -> Result<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T>>,
    {
        let mut failures = Failures::default();
        loop {
            match call().await {
                Ok(value) => {
                    self.succeeded();
                    return Ok(value);
                }
                Err(error) => match self.pause(&mut failures, &error) {
                    Some(pause) => sleep(pause).await,
                    None => return Err(error),
                },
            }
        }
    }

    /// The shortest pause, before any doubling.
    pub(crate) fn first_pause(&self) -> Duration {
        self.retry.first_pause.min(self.retry.budget)
    }

    /// Notes that the side works.
    pub(crate) fn succeeded(&self) {
        if self.in_trouble.load(SeqCst) {
            let mut state = self.lock();
            state.trouble_since = None;
            self.in_trouble.store(false, SeqCst);
        }
    }

    /// Notes a failure, and says how long to pause before the next try; `None`: there is none.
    pub(crate) fn pause(&self, failures: &mut Failures, error: &Error) -> Option<Duration> {
        if !error.kind().is_transient() {
            return None;
        }
        let now = Instant::now();
        let mut state = self.lock();
        let since = *state.trouble_since.get_or_insert(now);
        self.in_trouble.store(true, SeqCst);
        let first = *failures.first.get_or_insert(now);
        let budget = self.retry.budget;
        let left = budget.saturating_sub(now - since).min((budget * 2).saturating_sub(now - first));
        if left.is_zero() {
            return None;
        }
        let doubled = self.retry.first_pause.saturating_mul(1 << failures.count.min(20));
        let pause = doubled.min(self.retry.longest_pause).mul_f64(1.0 - state.jitter.f64() / 2.0);
        failures.count += 1;
        match error.retry_after() {
            Some(asked) if asked > left => None,
            Some(asked) => Some(pause.max(asked)),
            None => Some(pause.min(left)),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
