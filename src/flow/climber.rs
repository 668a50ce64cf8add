//! [`Climber`]: finds how many requests at once a destination bears. A pure state machine: time is given to it.

use std::time::Duration;

use tokio::time::Instant;

/// Where it starts, and how far it goes.
const START: usize = 16;
const MOST: usize = 128;

/// How much faster a higher limit has to be to be worth it.
const WORTH: f64 = 1.05;

/// A rate is measured over at least so long, and over two rounds of requests; that of a small step over longer, since a
/// destination that counts requests a second lets a burst pass.
const WINDOW: Duration = Duration::from_millis(100);
const TRIAL: Duration = Duration::from_secs(2);

/// How long the limit is kept that the climb ended at, before a higher one is tried: it is a guess.
const KEEP_FIRST: Duration = Duration::from_secs(2);

/// How long a limit that was found is kept before a higher one is tried. Doubled each time that ends in a refusal.
const KEEP: Duration = Duration::from_secs(10);
const KEEP_LONGEST: Duration = Duration::from_secs(300);

/// A limit under which only one request in so many is refused, and no more than one part in so many of the time is spent
/// on pauses that were asked for, is better than a lower one: it is left for a moment.
const RARELY: usize = 20;
const MOMENT: Duration = Duration::from_secs(1);

/// A limit under which so many requests for each place passed before one was refused is nearly right.
const NEARLY: usize = 5;

/// What went wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// The destination asks for fewer requests.
    Refused,
    /// It failed or did not answer: perhaps it is too much for it, perhaps it is down.
    Failed,
}

/// A limit that rises while throughput rises, and falls at once when requests are refused.
#[derive(Debug)]
pub(super) struct Climber {
    limit: usize,
    phase: Phase,
    keep: Duration,
    /// Requests that went out before this say nothing about the limit as it is now.
    changed: Instant,
    /// Requests that passed since then.
    served: usize,
    /// Since when requests are counted for a rate.
    since: Instant,
    passed: usize,
    /// Whether every place was taken at some time since.
    full: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// In large steps, from a limit and what passed a second under it.
    Climbing {
        from: usize,
        rate: f64,
    },
    /// One small step, tried after a while.
    Trying {
        from: usize,
        rate: f64,
    },
    Keeping {
        until: Instant,
    },
    /// A step back from a limit that is nearly right.
    Resting {
        until: Instant,
        from: usize,
        kept_until: Instant,
    },
}

impl Climber {
    pub(super) fn new(now: Instant) -> Self {
        let phase = Phase::Climbing { from: START, rate: 0.0 };
        Self {
            limit: START,
            phase,
            keep: KEEP_FIRST,
            changed: now,
            served: 0,
            since: now,
            passed: 0,
            full: false,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The highest limit there will ever be.
    pub(super) const fn most() -> usize {
        MOST
    }

    /// A request passed; `full`: every place was taken.
    pub(super) fn passed(&mut self, now: Instant, full: bool) {
        self.passed += 1;
        self.served += 1;
        self.full |= full;
        if let Phase::Resting { until, from, kept_until } = self.phase
            && now >= until
        {
            self.set(from, now);
            self.phase = Phase::Keeping { until: kept_until };
            return;
        }
        let elapsed = now - self.since;
        let window = if matches!(self.phase, Phase::Trying { .. }) { TRIAL } else { WINDOW };
        if elapsed < window || self.passed < 2 * self.limit {
            return;
        }
        // Too few requests to fill the limit: it is not what holds them up.
        if self.full {
            self.measured(now, self.passed as f64 / elapsed.as_secs_f64());
        }
        (self.since, self.passed, self.full) = (now, 0, false);
    }

    /// A request that went out at `sent` was not served; `pause`: how long the destination asks to be left alone.
    pub(super) fn trouble(&mut self, now: Instant, sent: Instant, trouble: Trouble, pause: Duration) {
        // Of the requests that went out together only the first one counts.
        if sent < self.changed {
            return;
        }
        match (trouble, self.phase) {
            // One too many was tried.
            (Trouble::Refused, Phase::Trying { from, .. }) => {
                self.keep = (self.keep * 2).clamp(KEEP, KEEP_LONGEST);
                self.keep_at(from, now);
            }
            (Trouble::Refused, Phase::Keeping { until }) if self.is_rare(now, pause) => {
                let from = self.limit;
                self.set((from * 9 / 10).min(from - 1), now);
                self.phase = Phase::Resting { until: now + pause + MOMENT, from, kept_until: until };
            }
            (Trouble::Refused, Phase::Climbing { from, .. }) => self.fall(from, now, pause),
            (Trouble::Refused, Phase::Keeping { .. } | Phase::Resting { .. }) => {
                self.fall(self.limit, now, pause);
            }
            // Once it serves again there is nothing to say that it bears less than before.
            (Trouble::Failed, _) => {
                self.set((self.limit / 2).max(4).min(self.limit), now);
                self.phase = Phase::Climbing { from: self.limit, rate: 0.0 };
            }
        }
        // Nothing is sent until then.
        self.changed += pause;
        self.since += pause;
    }

    /// The limit is too high: the sooner it was refused, the further it is from what is borne. One that was refused at
    /// once says little of the one before either.
    fn fall(&mut self, before: usize, now: Instant, pause: Duration) {
        let worked = now - self.changed;
        let (from, percent) = if worked * 10 < pause {
            (before, 50)
        } else if worked < pause || self.served < NEARLY * self.limit {
            (self.limit, 70)
        } else {
            (self.limit, 85)
        };
        self.keep_at((from * percent).div_ceil(100).min(self.limit - 1), now);
    }

    fn is_rare(&self, now: Instant, pause: Duration) -> bool {
        self.served >= RARELY * self.limit && now - self.changed >= pause * RARELY as u32
    }

    /// So many a second passed under the limit, and more would have come.
    fn measured(&mut self, now: Instant, measured: f64) {
        match self.phase {
            Phase::Climbing { from, rate } | Phase::Trying { from, rate } if measured < rate * WORTH => {
                self.keep = self.keep.max(KEEP);
                self.keep_at(from, now);
            }
            Phase::Climbing { .. } | Phase::Trying { .. } if self.limit == MOST => self.keep_at(MOST, now),
            Phase::Climbing { .. } => {
                self.phase = Phase::Climbing { from: self.limit, rate: measured };
                self.set(self.limit * 3 / 2 + 1, now);
            }
            Phase::Trying { .. } => {
                self.keep = KEEP;
                self.try_more(now, measured);
            }
            Phase::Keeping { until } if now >= until => self.try_more(now, measured),
            Phase::Keeping { .. } | Phase::Resting { .. } => {}
        }
    }

    fn try_more(&mut self, now: Instant, rate: f64) {
        self.phase = Phase::Trying { from: self.limit, rate };
        self.set(self.limit + (self.limit / 8).max(1), now);
    }

    fn keep_at(&mut self, limit: usize, now: Instant) {
        self.phase = Phase::Keeping { until: now + self.keep };
        self.set(limit, now);
    }

    fn set(&mut self, limit: usize, now: Instant) {
        self.limit = limit.clamp(1, MOST);
        (self.changed, self.since) = (now, now);
        (self.served, self.passed, self.full) = (0, 0, false);
    }
}
