//! [`ConcurrencyController`]: finds how many concurrent requests a destination can serve. A pure state machine: the
//! caller passes the time in.

use std::time::Duration;

use tokio::time::Instant;

const INITIAL_LIMIT: usize = 16;
const MAX_LIMIT: usize = 128;

/// A higher limit is kept only if throughput grows by at least this factor.
const MIN_SPEEDUP: f64 = 1.05;

/// The shortest time over which throughput is measured; it also covers at least two rounds of requests.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(100);

/// The same while probing: a destination that limits requests per second lets a burst pass.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the limit at which slow start ended is held before a higher one is probed.
const INITIAL_HOLD: Duration = Duration::from_secs(2);

/// How long a limit is held before a higher one is probed. Doubles after each probe that was throttled.
const MIN_HOLD: Duration = Duration::from_secs(10);
const MAX_HOLD: Duration = Duration::from_secs(300);

/// Throttling is rare when at most one request in this many is throttled, and at most this part of the time is spent in
/// requested pauses. A limit with rare throttling is better than a lower one, so it is left only briefly.
const RARE_THROTTLING_RATIO: usize = 20;
const BACK_OFF_INTERVAL: Duration = Duration::from_secs(1);

/// A limit is close to right when each permit served this many requests before one was throttled.
const CLOSE_TO_RIGHT: usize = 5;

/// Why a request was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The destination asked for fewer requests.
    Throttled,
    /// The destination failed or did not respond: it may be overloaded, or down.
    Unavailable,
}

/// A limit that grows while throughput grows, and shrinks at once when requests are throttled.
#[derive(Debug)]
pub(super) struct ConcurrencyController {
    limit: usize,
    phase: Phase,
    hold: Duration,
    /// Requests sent before this moment say nothing about the current limit.
    changed: Instant,
    /// Requests served since `changed`.
    served: usize,
    /// The start of the throughput sample.
    sample_start: Instant,
    /// Requests served in the sample.
    sample: usize,
    /// Whether all permits were in use at some moment of the sample.
    saturated: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Grows in large steps, from a limit and its throughput.
    SlowStart { from: usize, rate: f64 },
    /// Tries one small step up, from a limit and its throughput.
    Probing { from: usize, rate: f64 },
    /// Holds the limit.
    Steady { until: Instant },
    /// One step below a limit that is close to right.
    BackedOff { until: Instant, from: usize, hold_until: Instant },
}

impl ConcurrencyController {
    pub(super) fn new(now: Instant) -> Self {
        let phase = Phase::SlowStart { from: INITIAL_LIMIT, rate: 0.0 };
        Self {
            limit: INITIAL_LIMIT,
            phase,
            hold: INITIAL_HOLD,
            changed: now,
            served: 0,
            sample_start: now,
            sample: 0,
            saturated: false,
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// The highest possible limit.
    pub(super) const fn max_limit() -> usize {
        MAX_LIMIT
    }

    /// Records a request that was served; `saturated`: all permits were in use.
    pub(super) fn on_success(&mut self, now: Instant, saturated: bool) {
        self.sample += 1;
        self.served += 1;
        self.saturated |= saturated;
        if let Phase::BackedOff { until, from, hold_until } = self.phase
            && now >= until
        {
            self.set_limit(from, now);
            self.phase = Phase::Steady { until: hold_until };
            return;
        }
        let elapsed = now.saturating_duration_since(self.sample_start);
        let interval =
            if matches!(self.phase, Phase::Probing { .. }) { PROBE_INTERVAL } else { SAMPLE_INTERVAL };
        if elapsed < interval || self.sample < 2 * self.limit {
            return;
        }
        // Without saturation it is not the limit that bounds throughput.
        if self.saturated {
            self.on_sample(now, self.sample as f64 / elapsed.as_secs_f64());
        }
        (self.sample_start, self.sample, self.saturated) = (now, 0, false);
    }

    /// Records a request that was sent at `sent` and was not served; `pause`: how long the destination asked to wait.
    pub(super) fn on_failure(&mut self, now: Instant, sent: Instant, failure: Failure, pause: Duration) {
        // Of the requests that were in flight together, only the first failure counts.
        if sent < self.changed {
            return;
        }
        match (failure, self.phase) {
            (Failure::Throttled, Phase::Probing { from, .. }) => {
                self.hold = (self.hold * 2).clamp(MIN_HOLD, MAX_HOLD);
                self.hold_at(from, now);
            }
            (Failure::Throttled, Phase::Steady { until }) if self.throttling_is_rare(now, pause) => {
                let from = self.limit;
                self.set_limit((from * 9 / 10).min(from - 1), now);
                self.phase =
                    Phase::BackedOff { until: now + pause + BACK_OFF_INTERVAL, from, hold_until: until };
            }
            (Failure::Throttled, Phase::SlowStart { from, .. }) => self.decrease(from, now, pause),
            (Failure::Throttled, Phase::Steady { .. } | Phase::BackedOff { .. }) => {
                self.decrease(self.limit, now, pause);
            }
            // Once the destination responds again, nothing suggests that it can serve less than before.
            (Failure::Unavailable, _) => {
                self.set_limit((self.limit / 2).max(4).min(self.limit), now);
                self.phase = Phase::SlowStart { from: self.limit, rate: 0.0 };
            }
        }
        // Nothing is sent during the pause.
        self.changed += pause;
        self.sample_start += pause;
    }

    /// Lowers a limit that is too high: the sooner it was throttled, the larger the step. If it was throttled at once,
    /// the limit before it, `previous`, was not confirmed either.
    fn decrease(&mut self, previous: usize, now: Instant, pause: Duration) {
        let worked = now.saturating_duration_since(self.changed);
        let (from, percent) = if worked * 10 < pause {
            (previous, 50)
        } else if worked < pause || self.served < CLOSE_TO_RIGHT * self.limit {
            (self.limit, 70)
        } else {
            (self.limit, 85)
        };
        self.hold_at((from * percent).div_ceil(100).min(self.limit - 1), now);
    }

    fn throttling_is_rare(&self, now: Instant, pause: Duration) -> bool {
        let worked = now.saturating_duration_since(self.changed);
        self.served >= RARE_THROTTLING_RATIO * self.limit && worked >= pause * RARE_THROTTLING_RATIO as u32
    }

    /// Uses a measured throughput, in requests per second, that the limit bounded.
    fn on_sample(&mut self, now: Instant, measured: f64) {
        match self.phase {
            Phase::SlowStart { from, rate } | Phase::Probing { from, rate }
                if measured < rate * MIN_SPEEDUP =>
            {
                self.hold = self.hold.max(MIN_HOLD);
                self.hold_at(from, now);
            }
            Phase::SlowStart { .. } | Phase::Probing { .. } if self.limit == MAX_LIMIT => {
                self.hold_at(MAX_LIMIT, now);
            }
            Phase::SlowStart { .. } => {
                self.phase = Phase::SlowStart { from: self.limit, rate: measured };
                self.set_limit(self.limit * 3 / 2 + 1, now);
            }
            Phase::Probing { .. } => {
                self.hold = MIN_HOLD;
                self.probe(now, measured);
            }
            Phase::Steady { until } if now >= until => self.probe(now, measured),
            Phase::Steady { .. } | Phase::BackedOff { .. } => {}
        }
    }

    fn probe(&mut self, now: Instant, rate: f64) {
        self.phase = Phase::Probing { from: self.limit, rate };
        self.set_limit(self.limit + (self.limit / 8).max(1), now);
    }

    fn hold_at(&mut self, limit: usize, now: Instant) {
        self.phase = Phase::Steady { until: now + self.hold };
        self.set_limit(limit, now);
    }

    fn set_limit(&mut self, limit: usize, now: Instant) {
        self.limit = limit.clamp(1, MAX_LIMIT);
        (self.changed, self.sample_start) = (now, now);
        (self.served, self.sample, self.saturated) = (0, 0, false);
    }
}
