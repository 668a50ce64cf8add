//! [`Case`]: the archive, request, destination, options and failure rates that follow from a seed.

use std::sync::Arc;
use std::time::Duration;

use dicom_export::store::{MemoryOperationStore, MemorySecretStore};
use dicom_export::testing::{
    Call, FaultPlan, FaultyOperationStore, FaultySecretStore, FaultySource, StreamFault,
};
use dicom_export::{
    Concurrency, ErrorKind, ExportDestination, ExportEngine, ExportEngineBuilder, ExportSource, OperationId,
    RetryPolicy,
};
use fastrand::Rng;

use crate::archive::Archive;
use crate::destination::{Container, Provider};

pub(crate) const DESTINATION: &str = "test";

pub(crate) struct Case {
    pub(crate) id: OperationId,
    pub(crate) archive: Arc<Archive>,
    pub(crate) wanted: ExportSource,
    pub(crate) container: Arc<Container>,
    pub(crate) store: MemoryOperationStore,
    pub(crate) secrets: MemorySecretStore,
    pub(crate) has_secret: bool,
    /// The number of processes that run the operation at the same time.
    pub(crate) processes: u64,
    /// Whether the faults of the source may skip readable instances.
    pub(crate) may_skip_good: bool,
    options: Options,
    levels: Levels,
}

struct Options {
    memory: u64,
    batch_size: usize,
    checkpoint_interval: Duration,
    concurrency: Concurrency,
    budget: Duration,
    manifest: bool,
}

/// Failure rates, from 0 to 1.
struct Levels {
    source: f64,
    damage: f64,
    sink: f64,
    fatal: f64,
    store: f64,
    panics: f64,
    /// The longest pause that the destination asks for.
    retry_after: Duration,
    latency: Duration,
}

/// The faults of one process.
#[derive(Clone)]
pub(crate) struct Plans {
    pub(crate) source: FaultPlan,
    pub(crate) sink: FaultPlan,
    pub(crate) store: FaultPlan,
    pub(crate) secrets: FaultPlan,
}

impl Case {
    pub(crate) fn random(seed: u64) -> (Self, Rng) {
        let mut rng = Rng::with_seed(seed);
        // The engine's own jitter follows from the seed too.
        fastrand::seed(seed);
        let memory = [4 << 10, 64 << 10, 64 << 20][rng.usize(..3)];
        let archive = Archive::random(&mut rng, memory);
        let wanted = wanted(&mut rng, &archive);
        let options = Options {
            memory,
            batch_size: [1, 3, 10, 64, 256][rng.usize(..5)],
            checkpoint_interval: Duration::from_millis([0, 20, 1000][rng.usize(..3)]),
            concurrency: [Concurrency::Auto, Concurrency::Fixed(1), Concurrency::Fixed(5)][rng.usize(..3)],
            budget: Duration::from_secs([20, 60, 600][rng.usize(..3)]),
            manifest: rng.bool(),
        };
        let mut level = |levels: [f64; 4]| levels[rng.usize(..4)];
        let levels = Levels {
            source: level([0.0, 0.02, 0.1, 0.3]),
            damage: level([0.0, 0.0, 0.05, 0.3]),
            sink: level([0.0, 0.02, 0.1, 0.3]),
            fatal: level([0.0, 0.0, 0.0, 0.01]),
            store: level([0.0, 0.0, 0.02, 0.1]),
            panics: level([0.0, 0.0, 0.0, 0.01]),
            retry_after: Duration::from_secs([3, 3, 3_600, 1_000_000_000_000][rng.usize(..4)]),
            latency: Duration::from_millis([0, 10, 500][rng.usize(..3)]),
        };
        let case = Self {
            id: OperationId::from_u128(u128::from(seed) + 1),
            archive: Arc::new(archive),
            wanted,
            container: Arc::new(Container::random(&mut rng)),
            store: MemoryOperationStore::new(),
            secrets: MemorySecretStore::new(),
            has_secret: rng.bool(),
            processes: 1,
            may_skip_good: rng.u8(..4) == 0,
            options,
            levels,
        };
        (case, rng)
    }

    pub(crate) fn destination(&self) -> ExportDestination {
        ExportDestination::new(DESTINATION, serde_json::json!({}))
    }

    pub(crate) fn has_manifest(&self) -> bool {
        self.options.manifest
    }

    pub(crate) fn budget(&self) -> Duration {
        self.options.budget
    }

    /// The faults of a new process.
    pub(crate) fn plans(&self, rng: &mut Rng) -> Plans {
        let Levels { panics, latency, store, .. } = self.levels;
        let panicking = [Call::List, Call::Open, Call::CopyUrl, Call::Estimate];
        // A panic in `open` skips the instance.
        let panicking = panicking.into_iter().filter(|call| self.may_skip_good || *call != Call::Open);
        let storing = FaultPlan::new(rng.u64(..))
            .latency(latency / 10)
            .fails(Call::STORE, store, [ErrorKind::Unavailable])
            .lost_responses(Call::STORE, store);
        let hiding = FaultPlan::new(rng.u64(..))
            .fails(Call::SECRETS, store, [ErrorKind::Unavailable])
            .lost_responses(Call::SECRETS, store);
        Plans {
            source: self
                .source_plan(rng, self.levels.retry_after, self.may_skip_good)
                .panics(panicking, panics),
            sink: self.sink_plan(rng).panics(Call::SINK, panics),
            store: storing,
            secrets: hiding,
        }
    }

    fn source_plan(&self, rng: &mut Rng, retry_after: Duration, skips_good: bool) -> FaultPlan {
        use ErrorKind::{Conflict, Internal, NotFound, Throttled, Unavailable};
        let Levels { source, damage, .. } = self.levels;
        let plan = self.slow_plan(rng, &Call::SOURCE, retry_after).fails(
            Call::SOURCE,
            source,
            [Throttled, Unavailable],
        );
        if skips_good {
            plan.damages(damage, StreamFault::ALL).fails(
                [Call::Open],
                source / 10.0,
                [NotFound, Conflict, Internal],
            )
        } else {
            // Three attempts that fail permanently would skip an instance.
            let faults = StreamFault::ALL.into_iter().filter(|fault| *fault != StreamFault::Unreadable);
            plan.damages(damage, faults).passes_after(2)
        }
    }

    fn sink_plan(&self, rng: &mut Rng) -> FaultPlan {
        use ErrorKind::{Conflict, Internal, NotFound, Throttled, Unauthorized, Unavailable};
        let Levels { sink, fatal, .. } = self.levels;
        self.slow_plan(rng, &Call::SINK, self.levels.retry_after)
            .fails(Call::SINK, sink, [Throttled, Unavailable])
            .lost_responses(Call::SINK, sink / 2.0)
            .fails(Call::SINK, fatal, [Unauthorized, Conflict, Internal, NotFound])
    }

    fn slow_plan(&self, rng: &mut Rng, calls: &[Call], retry_after: Duration) -> FaultPlan {
        let Levels { sink, latency, .. } = self.levels;
        FaultPlan::new(rng.u64(..)).latency(latency).throttles(
            calls.iter().copied(),
            sink / 10.0,
            retry_after,
        )
    }

    /// Only transient faults, none of which uses up the retry budget.
    pub(crate) fn healed(&self, rng: &mut Rng) -> Plans {
        let sink = FaultPlan::new(rng.u64(..))
            .fails(Call::SINK, self.levels.sink, [ErrorKind::Unavailable])
            .lost_responses(Call::SINK, self.levels.sink);
        let quiet = FaultPlan::new(0);
        Plans {
            source: self.source_plan(rng, Duration::from_secs(3), false).passes_after(2),
            sink: sink.passes_after(2),
            store: quiet.clone(),
            secrets: quiet,
        }
    }

    /// An engine in a new process.
    pub(crate) fn engine(&self, plans: &Plans) -> ExportEngine {
        self.builder(plans).build().unwrap()
    }

    /// An engine that deletes ended operations at once.
    pub(crate) fn forgetful_engine(&self, plans: &Plans) -> ExportEngine {
        self.builder(plans).retention(Duration::ZERO).build().unwrap()
    }

    fn builder(&self, plans: &Plans) -> ExportEngineBuilder {
        let provider = Provider {
            container: Arc::clone(&self.container),
            archive: Arc::clone(&self.archive),
            plan: plans.sink.clone(),
            has_secret: self.has_secret,
        };
        ExportEngine::builder(FaultySource::new(Arc::clone(&self.archive), plans.source.clone()))
            .destination(DESTINATION, provider)
            .operation_store(Arc::new(FaultyOperationStore::new(self.store.clone(), plans.store.clone())))
            .secret_store(Arc::new(FaultySecretStore::new(self.secrets.clone(), plans.secrets.clone())))
            .memory_budget(self.options.memory)
            .batch_size(self.options.batch_size)
            .checkpoint_interval(self.options.checkpoint_interval)
            .concurrency(self.options.concurrency)
            .retry(RetryPolicy::with_budget(self.options.budget))
            .manifest(self.options.manifest)
    }
}

/// Everything, or identifiers of which some exist and some do not.
fn wanted(rng: &mut Rng, archive: &Archive) -> ExportSource {
    if rng.bool() {
        return ExportSource::Everything;
    }
    let known: Vec<_> = archive.items.keys().collect();
    let mut identifiers = Vec::new();
    for n in 0..rng.usize(1..40) {
        let unknown = format!("1.3.{n}/1.3.{n}.1/1.3.{n}.1.1");
        let id = rng.choice(&known).map_or(unknown.clone(), ToString::to_string);
        let id = if rng.u8(..5) == 0 { unknown } else { id };
        let parts: Vec<_> = id.split('/').take(rng.usize(1..=3)).collect();
        identifiers.push(parts.join("/").parse().unwrap());
    }
    ExportSource::identifiers(identifiers).unwrap()
}
