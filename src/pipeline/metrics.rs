//! Metrics of exports, for the recorder that the host has installed with the `metrics` crate.
//!
//! Transfers only update atomic numbers. Once a second, what has changed is passed to the recorder.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use ::metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use tokio::time::{Instant, sleep};

use crate::error::ErrorKind;
use crate::limits::{Limiter, MemoryBudget, Side};
use crate::model::{OperationId, OperationStatus};
use crate::pipeline::Pipeline;
use crate::pipeline::config::ExportConfig;
use crate::pipeline::observer::Resumption;
use crate::pipeline::progress::Progress;
use crate::pipeline::sides::Sides;
use crate::sync::lock;

const UPDATE_INTERVAL: Duration = Duration::from_secs(1);

/// The upper bounds of the ranges in which durations are counted, in milliseconds. The last range has none.
const BOUNDS: [u64; 15] = [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 60_000, 300_000];

/// The reason for skips that are no error of an instance.
const UNLISTED: &str = "unlisted";

const OPERATIONS: &str = "dicom_export_operations_total";
const RUNNING: &str = "dicom_export_operations_running";
const INSTANCES: &str = "dicom_export_instances_exported_total";
const BYTES: &str = "dicom_export_bytes_exported_total";
const SKIPS: &str = "dicom_export_instances_skipped_total";
const RETRIES: &str = "dicom_export_retries_total";
const FAILING: &str = "dicom_export_sides_failing";
const MEMORY: &str = "dicom_export_memory_bytes";
const MEMORY_BUDGET: &str = "dicom_export_memory_budget_bytes";
const CONCURRENCY: &str = "dicom_export_concurrency_limit";
const INSTANCE_DURATION: &str = "dicom_export_instance_duration_seconds";
const BATCH_DURATION: &str = "dicom_export_batch_duration_seconds";
const IDLE: &str = "dicom_export_seconds_since_progress";

/// Counts an operation that was accepted.
pub(super) fn operation_accepted() {
    describe();
    counter!(OPERATIONS, "event" => "accepted").increment(1);
}

/// Counts an operation that begins to run.
pub(super) fn operation_started(resumption: Option<Resumption>) {
    let event = match resumption {
        None => "started",
        Some(Resumption::Requested) => "resumed",
        Some(Resumption::TakenOver) => "taken_over",
    };
    describe();
    counter!(OPERATIONS, "event" => event).increment(1);
}

/// Counts an operation that was paused.
pub(super) fn operation_paused() {
    describe();
    counter!(OPERATIONS, "event" => OperationStatus::Paused.as_str()).increment(1);
}

/// Counts an operation that has ended.
pub(super) fn operation_ended(status: OperationStatus) {
    describe();
    counter!(OPERATIONS, "event" => status.as_str()).increment(1);
}

/// A side that is reported as failing, until it is dropped.
#[derive(Debug)]
pub(super) struct FailingSide(Side);

impl FailingSide {
    pub(super) fn new(side: Side) -> Self {
        gauge!(FAILING, "side" => side.as_str()).increment(1.0);
        Self(side)
    }
}

impl Drop for FailingSide {
    fn drop(&mut self) {
        gauge!(FAILING, "side" => self.0.as_str()).decrement(1.0);
    }
}

/// Durations, counted by range.
#[derive(Debug, Default)]
struct Durations {
    /// The number and the sum in nanoseconds of each range.
    ranges: [(AtomicU64, AtomicU64); BOUNDS.len() + 1],
}

impl Durations {
    fn record(&self, duration: Duration) {
        let milliseconds = duration.as_millis();
        let range = BOUNDS.iter().position(|bound| milliseconds < u128::from(*bound)).unwrap_or(BOUNDS.len());
        let (count, sum) = &self.ranges[range];
        count.fetch_add(1, Relaxed);
        sum.fetch_add(duration.as_nanos() as u64, Relaxed);
    }

    /// Passes the durations since the last call to the recorder, each range as its mean.
    fn report(&self, name: &'static str) {
        for (count, sum) in &self.ranges {
            let (count, sum) = (count.swap(0, Relaxed), sum.swap(0, Relaxed));
            if count > 0 {
                let mean = Duration::from_nanos(sum).as_secs_f64() / count as f64;
                histogram!(name).record_many(mean, count as usize);
            }
        }
    }
}

/// What the transfers of an operation count.
#[derive(Debug, Default)]
pub(super) struct TransferMetrics {
    instances: Durations,
    batches: Durations,
    /// By reason. Skips are rare enough for a lock.
    skips: Mutex<BTreeMap<&'static str, u64>>,
}

/// A started transfer or batch.
pub(super) struct Timer(Instant);

impl TransferMetrics {
    pub(super) fn start(&self) -> Timer {
        Timer(Instant::now())
    }

    pub(super) fn instance_finished(&self, timer: Timer) {
        self.instances.record(timer.0.elapsed());
    }

    pub(super) fn batch_finished(&self, timer: Timer) {
        self.batches.record(timer.0.elapsed());
    }

    pub(super) fn skipped(&self, kind: ErrorKind) {
        self.add_skips(kind.as_str(), 1);
    }

    /// Counts entries that could not be listed, and identifiers that matched nothing.
    pub(super) fn not_listed(&self, entries: usize) {
        if entries > 0 {
            self.add_skips(UNLISTED, entries as u64);
        }
    }

    fn add_skips(&self, reason: &'static str, count: u64) {
        *lock(&self.skips).entry(reason).or_default() += count;
    }

    fn report(&self) {
        self.instances.report(INSTANCE_DURATION);
        self.batches.report(BATCH_DURATION);
        for (reason, count) in std::mem::take(&mut *lock(&self.skips)) {
            counter!(SKIPS, "reason" => reason).increment(count);
        }
    }
}

/// What the runs of a process share.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedMetrics {
    /// Since when each running operation has made no progress.
    last_progress: Arc<Mutex<HashMap<OperationId, Instant>>>,
}

impl SharedMetrics {
    /// Sets the gauge to the longest time without progress of any operation.
    fn report(&self) {
        let oldest = lock(&self.last_progress).values().min().copied();
        gauge!(IDLE).set(oldest.map_or(0.0, |time| time.elapsed().as_secs_f64()));
    }
}

/// What the metrics of a pipeline are read from.
pub(super) struct PipelineMetrics {
    pub(super) transfers: Arc<TransferMetrics>,
    shared: SharedMetrics,
    memory: MemoryBudget,
    limiter: Arc<Limiter>,
    throttle_key: String,
}

impl PipelineMetrics {
    pub(super) fn new(config: &ExportConfig, throttle_key: &str) -> Self {
        Self {
            transfers: Arc::default(),
            shared: config.metrics.clone(),
            memory: config.memory.clone(),
            limiter: config.limiter(throttle_key),
            throttle_key: throttle_key.to_owned(),
        }
    }
}

/// Reports the metrics of one run until it is dropped.
pub(crate) struct RunMetrics {
    pipeline: Arc<Pipeline>,
    reported: Progress,
    activity: u64,
    retries: HashMap<(Side, ErrorKind), u64>,
}

impl RunMetrics {
    pub(crate) fn new(pipeline: Arc<Pipeline>) -> Self {
        describe();
        gauge!(RUNNING).increment(1.0);
        let (reported, activity) = (pipeline.progress(None), pipeline.activity());
        lock(&pipeline.metrics.shared.last_progress).insert(pipeline.spec().id, Instant::now());
        Self { pipeline, reported, activity, retries: HashMap::new() }
    }

    /// Reports once a second, until the future is dropped.
    pub(crate) async fn run(&mut self) -> Infallible {
        loop {
            self.update();
            sleep(UPDATE_INTERVAL).await;
        }
    }

    /// Reports what has changed.
    pub(crate) fn update(&mut self) {
        let PipelineMetrics { transfers, shared, memory, limiter, throttle_key } = &self.pipeline.metrics;
        let progress = self.pipeline.progress(None);
        counter!(INSTANCES).increment(progress.exported.saturating_sub(self.reported.exported));
        counter!(BYTES).increment(progress.bytes.saturating_sub(self.reported.bytes));
        self.reported = progress;
        transfers.report();
        let Sides { source, destination, observer } = &self.pipeline.sides;
        for retrier in [source, destination, observer] {
            for (kind, count) in retrier.retries() {
                let reported = self.retries.entry((retrier.side(), kind)).or_default();
                if count > *reported {
                    let (side, kind) = (retrier.side().as_str(), kind.as_str());
                    counter!(RETRIES, "side" => side, "kind" => kind).increment(count - *reported);
                    *reported = count;
                }
            }
        }
        gauge!(MEMORY).set(memory.used() as f64);
        gauge!(MEMORY_BUDGET).set(memory.bytes() as f64);
        gauge!(CONCURRENCY, "destination" => throttle_key.clone()).set(limiter.limit() as f64);
        let activity = self.pipeline.activity();
        if activity != self.activity {
            self.activity = activity;
            lock(&shared.last_progress).insert(self.pipeline.spec().id, Instant::now());
        }
        shared.report();
    }
}

impl Drop for RunMetrics {
    fn drop(&mut self) {
        self.update();
        gauge!(RUNNING).decrement(1.0);
        let shared = &self.pipeline.metrics.shared;
        lock(&shared.last_progress).remove(&self.pipeline.spec().id);
        shared.report();
    }
}

/// Describes the metrics to the recorder, once.
fn describe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        describe_counter!(
            OPERATIONS,
            "Operations that were accepted, started, resumed, taken over or paused, or ended"
        );
        describe_gauge!(RUNNING, "Operations that run in this process");
        describe_counter!(INSTANCES, "Instances that were exported");
        describe_counter!(BYTES, Unit::Bytes, "The size of the instances that were exported");
        describe_counter!(SKIPS, "Entries that were skipped, by the kind of the error");
        describe_counter!(RETRIES, "Failed calls that were retried, by side and kind of the error");
        describe_gauge!(FAILING, "Sides of operations that have failed for 30 seconds or longer");
        describe_gauge!(MEMORY, Unit::Bytes, "Bytes of the memory budget that are in use");
        describe_gauge!(MEMORY_BUDGET, Unit::Bytes, "The memory budget");
        describe_gauge!(CONCURRENCY, "The limit on concurrent requests, by account");
        describe_histogram!(
            INSTANCE_DURATION,
            Unit::Seconds,
            "The time that the transfer of an instance takes"
        );
        describe_histogram!(BATCH_DURATION, Unit::Seconds, "The time that the export of a batch takes");
        describe_gauge!(IDLE, Unit::Seconds, "The longest time without progress of an operation that runs");
    });
}
