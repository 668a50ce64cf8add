//! [`FaultPlan`]: which calls fail, and how, decided by a seed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use fastrand::Rng;
use tokio::time::sleep;

use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;
use crate::testing::faults::StreamFault;

/// A call that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`InstanceSource::list`](crate::InstanceSource::list)
    List,
    /// [`InstanceSource::open`](crate::InstanceSource::open), and what it gives
    Open,
    /// [`InstanceSource::copy_url`](crate::InstanceSource::copy_url)
    CopyUrl,
    /// [`InstanceSource::estimate`](crate::InstanceSource::estimate)
    Estimate,
    /// [`BlobSink::prepare`](crate::BlobSink::prepare)
    Prepare,
    /// [`BlobSink::put`](crate::BlobSink::put)
    Put,
    /// [`BlobSink::copy_from`](crate::BlobSink::copy_from)
    CopyFrom,
    /// [`BlobSink::append`](crate::BlobSink::append)
    Append,
    /// [`BlobSink::finish`](crate::BlobSink::finish)
    Finish,
    /// [`OperationStore::create`](crate::store::OperationStore::create)
    Create,
    /// [`OperationStore::spec`](crate::store::OperationStore::spec)
    Spec,
    /// [`OperationStore::load`](crate::store::OperationStore::load)
    Load,
    /// [`OperationStore::save`](crate::store::OperationStore::save)
    Save,
    /// [`OperationStore::list`](crate::store::OperationStore::list)
    ListOperations,
    /// [`OperationStore::delete`](crate::store::OperationStore::delete)
    Delete,
    /// [`SecretStore::put`](crate::store::SecretStore::put)
    PutSecret,
    /// [`SecretStore::get`](crate::store::SecretStore::get)
    GetSecret,
    /// [`SecretStore::delete`](crate::store::SecretStore::delete)
    DeleteSecret,
}

impl Call {
    /// Those of an [`InstanceSource`](crate::InstanceSource).
    pub const SOURCE: [Self; 4] = [Self::List, Self::Open, Self::CopyUrl, Self::Estimate];
    /// Those of a [`BlobSink`](crate::BlobSink).
    pub const SINK: [Self; 5] = [Self::Prepare, Self::Put, Self::CopyFrom, Self::Append, Self::Finish];
    /// Those of an [`OperationStore`](crate::store::OperationStore).
    pub const STORE: [Self; 6] =
        [Self::Create, Self::Spec, Self::Load, Self::Save, Self::ListOperations, Self::Delete];
    /// Those of a [`SecretStore`](crate::store::SecretStore).
    pub const SECRETS: [Self; 3] = [Self::PutSecret, Self::GetSecret, Self::DeleteSecret];
}

/// Which calls fail, and how.
///
/// What becomes of a call follows from the seed, from what is called with what (which instance, blob or operation),
/// and from how often that has been called before: not from the order of calls that run at once. So the same seed
/// meets the same faults again. By itself a plan lets everything pass; each of its rules adds a way to fail, and the
/// first one that applies decides.
///
/// Clones share their memory of what was called: a few dozen bytes for each call and thing. Pauses are Tokio's, so that
/// a test with a paused clock does not wait.
#[derive(Clone)]
pub struct FaultPlan {
    seed: u64,
    rules: Vec<Rule>,
    latency: Duration,
    attempts: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone)]
struct Rule {
    calls: Vec<Call>,
    rate: f64,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Fails(Vec<ErrorKind>),
    /// The same for every attempt.
    FailsForGood(Vec<ErrorKind>),
    Throttles(Duration),
    LosesAnswers,
    Damages(Vec<StreamFault>),
}

#[derive(Debug, Default)]
struct State {
    /// How often each thing was called, by the hash of call and name.
    called: BTreeMap<(Call, u64), u32>,
    faults: u64,
    down: Option<ErrorKind>,
}

/// What becomes of one call.
#[derive(Debug)]
pub(super) enum Fate {
    Passes,
    Fails(Error),
    LosesAnswer,
    Damaged(StreamFault),
}

/// A call that has its turn.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) fate: Fate,
    /// For what else is up to chance.
    pub(super) rng: Rng,
    after: Duration,
}

impl FaultPlan {
    /// Lets everything pass until it is given rules.
    pub fn new(seed: u64) -> Self {
        let (rules, latency) = (Vec::new(), Duration::ZERO);
        Self { seed, rules, latency, attempts: u32::MAX, state: Arc::default() }
    }

    /// These calls fail so often (0 to 1), before anything is done, with one of these kinds. A put may have read a part
    /// of its content by then.
    pub fn fails(
        self,
        calls: impl IntoIterator<Item = Call>,
        rate: f64,
        kinds: impl IntoIterator<Item = ErrorKind>,
    ) -> Self {
        let kinds = kinds.into_iter().collect();
        self.with(calls, rate, What::Fails(kinds))
    }

    /// So large a part (0 to 1) of the things that these calls are made for fails at every attempt, with one of these
    /// kinds: instances that cannot be read, say.
    pub fn permanent_failures(
        self,
        calls: impl IntoIterator<Item = Call>,
        rate: f64,
        kinds: impl IntoIterator<Item = ErrorKind>,
    ) -> Self {
        let kinds = kinds.into_iter().collect();
        self.with(calls, rate, What::FailsForGood(kinds))
    }

    /// These calls are throttled so often (0 to 1), and asked to come back after up to so long.
    pub fn throttles(self, calls: impl IntoIterator<Item = Call>, rate: f64, up_to: Duration) -> Self {
        self.with(calls, rate, What::Throttles(up_to))
    }

    /// These calls do their work so often (0 to 1) and fail with [`ErrorKind::Unavailable`] nevertheless.
    pub fn lost_responses(self, calls: impl IntoIterator<Item = Call>, rate: f64) -> Self {
        self.with(calls, rate, What::LosesAnswers)
    }

    /// So often (0 to 1) what [`Call::Open`] gives is damaged in one of these ways.
    pub fn damages(self, rate: f64, ways: impl IntoIterator<Item = StreamFault>) -> Self {
        let ways = ways.into_iter().collect();
        self.with([Call::Open], rate, What::Damages(ways))
    }

    /// Every call takes up to so long before its work, and as long after it. Default: no time.
    pub fn latency(mut self, up_to: Duration) -> Self {
        self.latency = up_to;
        self
    }

    /// After so many calls for one thing the next ones pass, but for [`permanent_failures`](Self::permanent_failures) and
    /// [`down`](Self::down). Default: there is no such number.
    pub fn passes_after(mut self, attempts: u32) -> Self {
        self.attempts = attempts;
        self
    }

    /// From now on every call fails with this kind, on all clones, until [`heal`](Self::heal).
    pub fn down(&self, kind: ErrorKind) {
        self.state().down = Some(kind);
    }

    /// Ends what [`down`](Self::down) began.
    pub fn heal(&self) {
        self.state().down = None;
    }

    /// How many faults there have been.
    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    fn with(mut self, calls: impl IntoIterator<Item = Call>, rate: f64, what: What) -> Self {
        self.rules.push(Rule { calls: calls.into_iter().collect(), rate, what });
        self
    }

    /// A call as it is planned: what it does, if it is to do it, and its answer, if that is not lost.
    pub(super) async fn call<T>(
        &self,
        call: Call,
        name: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut turn = self.turn(call, name).await;
        turn.begin()?;
        let answer = work.await?;
        turn.end(answer).await
    }

    /// Takes the pause before a call and says what becomes of it.
    pub(super) async fn turn(&self, call: Call, name: &str) -> Turn {
        let (fate, mut rng) = self.decide(call, name);
        if !matches!(fate, Fate::Passes) {
            tracing::debug!(?call, name, ?fate, "a planned fault");
            self.state().faults += 1;
        }
        let before = self.latency.mul_f64(rng.f64());
        let after = self.latency.mul_f64(rng.f64());
        if !before.is_zero() {
            sleep(before).await;
        }
        Turn { fate, rng, after }
    }

    fn decide(&self, call: Call, name: &str) -> (Fate, Rng) {
        let thing = hash(self.seed, call, name);
        let (attempt, down) = {
            let mut state = self.state();
            let down = state.down;
            let called = state.called.entry((call, thing)).or_default();
            *called += 1;
            (*called, down)
        };
        let mut of_call = Rng::with_seed(thing ^ u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut of_thing = Rng::with_seed(thing);
        if let Some(kind) = down {
            return (Fate::Fails(Error::new(kind, "it is down, as planned")), of_call);
        }
        for rule in &self.rules {
            // Drawn for every rule, so that a rule means the same whatever stands before it.
            let (by_call, by_thing) = (of_call.f64(), of_thing.f64());
            if !rule.calls.contains(&call) {
                continue;
            }
            let fails = |kind: &ErrorKind| Fate::Fails(Error::new(*kind, "a planned fault"));
            let fate = match &rule.what {
                What::FailsForGood(kinds) if by_thing < rule.rate => of_thing.choice(kinds).map(fails),
                What::FailsForGood(_) => None,
                _ if attempt > self.attempts || by_call >= rule.rate => None,
                What::Fails(kinds) => of_call.choice(kinds).map(fails),
                What::Throttles(up_to) => {
                    let wait = up_to.mul_f64(of_call.f64());
                    let error = Error::new(ErrorKind::Throttled, "a planned pause").with_retry_after(wait);
                    Some(Fate::Fails(error))
                }
                What::LosesAnswers => Some(Fate::LosesAnswer),
                What::Damages(ways) => of_call.choice(ways).copied().map(Fate::Damaged),
            };
            if let Some(fate) = fate {
                return (fate, of_call);
            }
        }
        (Fate::Passes, of_call)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl fmt::Debug for FaultPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultPlan")
            .field("seed", &self.seed)
            .field("rules", &self.rules)
            .finish_non_exhaustive()
    }
}

impl Turn {
    /// Fails where the call is to fail before its work.
    pub(super) fn begin(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.fate, Fate::Passes) {
            Fate::Fails(error) => Err(error),
            other => {
                self.fate = other;
                Ok(())
            }
        }
    }

    /// The answer to a call that did its work, if it is not lost.
    pub(super) async fn end<T>(self, answer: T) -> Result<T> {
        if !self.after.is_zero() {
            sleep(self.after).await;
        }
        match self.fate {
            Fate::LosesAnswer => Err(Error::new(ErrorKind::Unavailable, "the answer was lost, as planned")),
            _ => Ok(answer),
        }
    }
}

/// FNV-1a, which is the same in every build.
fn hash(seed: u64, call: Call, name: &str) -> u64 {
    let bytes = [call as u8].into_iter().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
