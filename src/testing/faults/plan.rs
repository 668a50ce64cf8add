//! [`FaultPlan`]: a reproducible plan of failing calls.

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
    /// [`InstanceSource::open`](crate::InstanceSource::open), and the content that it returns
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
    // At the end, so that the seeds of the other calls keep their faults.
    /// [`OperationStore::query`](crate::store::OperationStore::query)
    QueryOperations,
}

impl Call {
    /// The calls of an [`InstanceSource`](crate::InstanceSource).
    pub const SOURCE: [Self; 4] = [Self::List, Self::Open, Self::CopyUrl, Self::Estimate];
    /// The calls of a [`BlobSink`](crate::BlobSink).
    pub const SINK: [Self; 5] = [Self::Prepare, Self::Put, Self::CopyFrom, Self::Append, Self::Finish];
    /// The calls of an [`OperationStore`](crate::store::OperationStore).
    pub const STORE: [Self; 7] = [
        Self::Create,
        Self::Spec,
        Self::Load,
        Self::Save,
        Self::ListOperations,
        Self::QueryOperations,
        Self::Delete,
    ];
    /// The calls of a [`SecretStore`](crate::store::SecretStore).
    pub const SECRETS: [Self; 3] = [Self::PutSecret, Self::GetSecret, Self::DeleteSecret];
}

/// Which calls fail, and how.
///
/// A seed decides the outcome of each call, together with the arguments (the instance, the blob or the operation) and the
/// number of earlier calls with the same arguments. The order of concurrent calls has no influence, so the same seed
/// produces the same faults again. A new plan lets every call pass. Each rule adds a way to fail; the first rule that
/// applies to a call decides.
///
/// Clones share the record of earlier calls, which takes a few dozen bytes for each call and argument. All pauses use
/// Tokio's clock, so a test with a paused clock does not wait.
///
/// ```
/// use std::time::Duration;
/// use dicom_export::testing::{Call, FaultPlan, FaultySink};
/// use dicom_export::{ErrorKind, MemorySink};
///
/// let plan = FaultPlan::new(42)
///     .fails([Call::Put], 0.1, [ErrorKind::Unavailable])
///     .latency(Duration::from_millis(50));
/// let sink = FaultySink::new(MemorySink::new(), plan.clone());
/// assert_eq!(plan.faults(), 0);
/// ```
#[derive(Clone)]
#[must_use]
pub struct FaultPlan {
    seed: u64,
    rules: Vec<Rule>,
    latency: Duration,
    max_failing_attempts: u32,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Clone)]
struct Rule {
    calls: Vec<Call>,
    rate: f64,
    kind: FaultKind,
}

#[derive(Debug, Clone)]
enum FaultKind {
    Fails(Vec<ErrorKind>),
    /// The same for every attempt.
    FailsPermanently(Vec<ErrorKind>),
    Throttles(Duration),
    LosesResponses,
    Damages(Vec<StreamFault>),
    Panics,
}

#[derive(Debug, Default)]
struct State {
    /// The number of calls so far, by the call and the hash of its arguments.
    attempts: BTreeMap<(Call, u64), u32>,
    faults: u64,
    down: Option<ErrorKind>,
}

/// The planned outcome of a call.
#[derive(Debug)]
pub(super) enum Outcome {
    Passes,
    Fails(Error),
    LosesResponse,
    Damaged(StreamFault),
    Panics,
}

/// A call, its planned outcome and the pause after it.
#[derive(Debug)]
pub(super) struct PlannedCall {
    pub(super) outcome: Outcome,
    /// The source of further random choices for this call.
    pub(super) rng: Rng,
    after: Duration,
}

impl FaultPlan {
    /// Creates a plan that lets every call pass.
    pub fn new(seed: u64) -> Self {
        let (rules, latency) = (Vec::new(), Duration::ZERO);
        Self { seed, rules, latency, max_failing_attempts: u32::MAX, state: Arc::default() }
    }

    /// Makes a fraction `rate` (0 to 1) of these calls fail with one of these kinds, before they do any work. A `put`
    /// may have read part of its content by then.
    pub fn fails(
        self,
        calls: impl IntoIterator<Item = Call>,
        rate: f64,
        kinds: impl IntoIterator<Item = ErrorKind>,
    ) -> Self {
        let kinds = kinds.into_iter().collect();
        self.with(calls, rate, FaultKind::Fails(kinds))
    }

    /// Makes these calls fail at every attempt, with one of these kinds, for a fraction `rate` (0 to 1) of their
    /// arguments: for example instances that can never be read.
    pub fn permanent_failures(
        self,
        calls: impl IntoIterator<Item = Call>,
        rate: f64,
        kinds: impl IntoIterator<Item = ErrorKind>,
    ) -> Self {
        let kinds = kinds.into_iter().collect();
        self.with(calls, rate, FaultKind::FailsPermanently(kinds))
    }

    /// Makes a fraction `rate` (0 to 1) of these calls fail with [`ErrorKind::Throttled`] and a `Retry-After` between
    /// zero and `max_retry_after`.
    pub fn throttles(
        self,
        calls: impl IntoIterator<Item = Call>,
        rate: f64,
        max_retry_after: Duration,
    ) -> Self {
        self.with(calls, rate, FaultKind::Throttles(max_retry_after))
    }

    /// Makes a fraction `rate` (0 to 1) of these calls do their work and still fail, with [`ErrorKind::Unavailable`].
    pub fn lost_responses(self, calls: impl IntoIterator<Item = Call>, rate: f64) -> Self {
        self.with(calls, rate, FaultKind::LosesResponses)
    }

    /// Damages a fraction `rate` (0 to 1) of the contents that [`Call::Open`] returns, each with one of these faults.
    pub fn damages(self, rate: f64, faults: impl IntoIterator<Item = StreamFault>) -> Self {
        let faults = faults.into_iter().collect();
        self.with([Call::Open], rate, FaultKind::Damages(faults))
    }

    /// Makes a fraction `rate` (0 to 1) of these calls panic with the message "planned panic", before they do any work.
    pub fn panics(self, calls: impl IntoIterator<Item = Call>, rate: f64) -> Self {
        self.with(calls, rate, FaultKind::Panics)
    }

    /// Sets the maximum random delay before each call, and again after it. Default: zero.
    pub fn latency(mut self, max: Duration) -> Self {
        self.latency = max;
        self
    }

    /// Lets calls with the same arguments pass after this number of attempts, except for
    /// [`permanent_failures`](Self::permanent_failures) and [`down`](Self::down). Default: no limit.
    pub fn passes_after(mut self, attempts: u32) -> Self {
        self.max_failing_attempts = attempts;
        self
    }

    /// Makes every call fail with this kind from now on, on all clones, until [`heal`](Self::heal).
    pub fn down(&self, kind: ErrorKind) {
        self.state().down = Some(kind);
    }

    /// Ends an outage that [`down`](Self::down) began.
    pub fn heal(&self) {
        self.state().down = None;
    }

    /// The number of faults so far.
    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    fn with(mut self, calls: impl IntoIterator<Item = Call>, rate: f64, kind: FaultKind) -> Self {
        self.rules.push(Rule { calls: calls.into_iter().collect(), rate, kind });
        self
    }

    /// Makes a call with its planned outcome.
    pub(super) async fn call<T>(
        &self,
        call: Call,
        name: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut planned = self.begin(call, name).await;
        planned.fail_before()?;
        let response = work.await?;
        planned.finish(response).await
    }

    /// Waits for the planned delay before a call and returns its outcome.
    pub(super) async fn begin(&self, call: Call, name: &str) -> PlannedCall {
        let (outcome, mut rng) = self.decide(call, name);
        if !matches!(outcome, Outcome::Passes) {
            tracing::debug!(?call, name, ?outcome, "planned fault");
            self.state().faults += 1;
        }
        let before = self.latency.mul_f64(rng.f64());
        let after = self.latency.mul_f64(rng.f64());
        if !before.is_zero() {
            sleep(before).await;
        }
        PlannedCall { outcome, rng, after }
    }

    fn decide(&self, call: Call, name: &str) -> (Outcome, Rng) {
        let arguments = hash(self.seed, call, name);
        let (attempt, down) = {
            let mut state = self.state();
            let down = state.down;
            let attempts = state.attempts.entry((call, arguments)).or_default();
            *attempts += 1;
            (*attempts, down)
        };
        let mut per_call = Rng::with_seed(arguments ^ u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut per_arguments = Rng::with_seed(arguments);
        if let Some(kind) = down {
            return (Outcome::Fails(Error::new(kind, "planned outage")), per_call);
        }
        for rule in &self.rules {
            // Drawn for every rule, so that the rules before one do not change its outcomes.
            let (call_draw, argument_draw) = (per_call.f64(), per_arguments.f64());
            if !rule.calls.contains(&call) {
                continue;
            }
            let fails = |kind: &ErrorKind| Outcome::Fails(Error::new(*kind, "planned fault"));
            let outcome = match &rule.kind {
                FaultKind::FailsPermanently(kinds) if argument_draw < rule.rate => {
                    per_arguments.choice(kinds).map(fails)
                }
                FaultKind::FailsPermanently(_) => None,
                _ if attempt > self.max_failing_attempts || call_draw >= rule.rate => None,
                FaultKind::Fails(kinds) => per_call.choice(kinds).map(fails),
                FaultKind::Throttles(max) => {
                    let wait = max.mul_f64(per_call.f64());
                    let error = Error::new(ErrorKind::Throttled, "planned throttling").with_retry_after(wait);
                    Some(Outcome::Fails(error))
                }
                FaultKind::LosesResponses => Some(Outcome::LosesResponse),
                FaultKind::Damages(faults) => per_call.choice(faults).copied().map(Outcome::Damaged),
                FaultKind::Panics => Some(Outcome::Panics),
            };
            if let Some(outcome) = outcome {
                return (outcome, per_call);
            }
        }
        (Outcome::Passes, per_call)
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

impl PlannedCall {
    /// Returns the planned error, if the call fails before its work.
    ///
    /// # Panics
    /// If the plan contains a panic for this call.
    pub(super) fn fail_before(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.outcome, Outcome::Passes) {
            Outcome::Fails(error) => Err(error),
            Outcome::Panics => panic!("planned panic"),
            other => {
                self.outcome = other;
                Ok(())
            }
        }
    }

    /// Returns the response of a call that has done its work, unless the response is lost.
    pub(super) async fn finish<T>(self, response: T) -> Result<T> {
        if !self.after.is_zero() {
            sleep(self.after).await;
        }
        match self.outcome {
            Outcome::LosesResponse => Err(Error::new(ErrorKind::Unavailable, "planned loss of the response")),
            _ => Ok(response),
        }
    }
}

/// FNV-1a: stable across builds and platforms.
fn hash(seed: u64, call: Call, name: &str) -> u64 {
    let bytes = [call as u8].into_iter().chain(name.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325 ^ seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
