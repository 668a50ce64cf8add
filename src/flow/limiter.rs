//! How much runs at once towards one destination, or one source: [`Concurrency`] and its limiter.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::climber::{Climber, Trouble};
use super::gate::{Gate, Place};
use crate::error::{Error, ErrorKind};

/// How many requests run at once towards one destination account, and with them how many instances are transferred.
/// All operations towards an account share it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Concurrency {
    /// As many as the destination bears, up to 128: more while more of them get more done, fewer at once when it
    /// refuses some (429, 503) or does not answer. The default.
    #[default]
    Auto,
    /// So many. Each costs a connection and, while it lasts, the bytes of its instance from the byte budget.
    Fixed(usize),
}

impl Concurrency {
    /// The most there will ever be.
    pub(crate) fn most(self) -> usize {
        match self {
            Self::Auto => Climber::most(),
            Self::Fixed(requests) => requests.max(1),
        }
    }
}

/// Shared by all that talk to one account: places for requests and for instances, and a pause that it asked for.
#[derive(Debug)]
pub(crate) struct Limiter {
    requests: Gate,
    /// A sink that does not send through [`Upload::request`](super::Upload::request) is bounded by these alone.
    instances: Gate,
    /// `None`: the limits are fixed.
    climber: Option<Mutex<Climber>>,
    resume_at: Mutex<Option<Instant>>,
}

/// A request's place.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    limiter: &'a Limiter,
    sent: Instant,
    _place: Place<'a>,
}

impl Limiter {
    pub(crate) fn new(concurrency: Concurrency) -> Self {
        let (limit, climber) = match concurrency {
            Concurrency::Fixed(_) => (concurrency.most(), None),
            Concurrency::Auto => {
                let climber = Climber::new(Instant::now());
                (climber.limit(), Some(Mutex::new(climber)))
            }
        };
        let instances = if climber.is_some() { instances(limit) } else { limit };
        Self {
            requests: Gate::new(limit),
            instances: Gate::new(instances),
            climber,
            resume_at: Mutex::new(None),
        }
    }

    /// Waits until an instance may be opened.
    pub(crate) async fn instance(&self) -> Place<'_> {
        self.instances.enter().await
    }

    /// Waits until a request may go out; dropping the slot makes room for the next.
    pub(crate) async fn request(&self) -> Slot<'_> {
        let place = self.requests.enter().await;
        // Read after the wait for a place: the pause may have been asked for meanwhile.
        while let Some(at) = self.resume_at() {
            sleep_until(at).await;
        }
        Slot { limiter: self, sent: Instant::now(), _place: place }
    }

    /// The other side asked to be left alone for so long.
    fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        let mut resume_at = self.resume_at.lock().unwrap_or_else(PoisonError::into_inner);
        *resume_at = Some(resume_at.map_or(until, |at| at.max(until)));
    }

    fn resume_at(&self) -> Option<Instant> {
        let resume_at = self.resume_at.lock().unwrap_or_else(PoisonError::into_inner);
        resume_at.filter(|at| *at > Instant::now())
    }

    fn adapt(&self, change: impl FnOnce(&mut Climber)) {
        let Some(climber) = &self.climber else { return };
        let mut climber: MutexGuard<'_, Climber> = climber.lock().unwrap_or_else(PoisonError::into_inner);
        let before = climber.limit();
        change(&mut climber);
        let limit = climber.limit();
        if limit != before {
            // Under the lock, so that changes arrive in order.
            self.requests.resize(limit);
            self.instances.resize(instances(limit));
            tracing::debug!(limit, "requests at once");
        }
    }
}

impl Slot<'_> {
    /// The request passed.
    pub(crate) fn passed(self) {
        let full = self.limiter.requests.is_full();
        self.limiter.adapt(|climber| climber.passed(Instant::now(), full));
    }

    /// The request failed: the pause that was asked for holds for everybody, and fewer go out from now on.
    pub(crate) fn failed(self, error: &Error) {
        let trouble = match error.kind() {
            ErrorKind::Throttled => Trouble::Refused,
            ErrorKind::Unavailable => Trouble::Failed,
            _ => return,
        };
        let pause = error.retry_after().unwrap_or_default();
        if !pause.is_zero() {
            self.limiter.pause(pause);
        }
        self.limiter.adapt(|climber| climber.trouble(Instant::now(), self.sent, trouble, pause));
    }
}

/// Instances under way for so many requests: some more, so that one is always read while others are sent.
fn instances(requests: usize) -> usize {
    requests + requests / 4 + 2
}
