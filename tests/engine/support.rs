//! Sources and sinks that fail on demand, and assertions about what they contain.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::{Secret, ValidatedSettings};
use dicom_export::source::{Instance, ListRequest, Page};
use dicom_export::{
    BlobSink, Content, Error, ErrorKind, ErrorLogEntry, InstanceIdentifier, InstanceSource, MemorySink,
    MemorySource, Operation, OperationSpec, Result, SinkProvider,
};

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};

pub(crate) fn instance(study: usize, series: usize, sop: usize) -> InstanceIdentifier {
    format!("1.2.{study}/1.2.{study}.{series}/1.2.{study}.{series}.{sop}").parse().unwrap()
}

/// A source with `count` instances: ten per series, and four series per study.
pub(crate) fn archive(count: usize) -> MemorySource {
    (0..count)
        .map(|n| {
            let id = instance(n / 40, n / 10 % 4, n % 10);
            let bytes = format!("DICM {id}").repeat(1 + n % 7).into();
            (id, bytes)
        })
        .collect()
}

pub(crate) fn log_of(sink: &MemorySink, operation: &Operation) -> Vec<ErrorLogEntry> {
    let log = sink.get(&format!("{}/errors.log", operation.operation_id)).expect("errors.log exists");
    let text = std::str::from_utf8(&log).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is incomplete");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Asserts that every blob of the operation has the bytes of the source's instance. Returns the number of blobs.
pub(crate) async fn assert_exported(
    source: &dyn InstanceSource,
    sink: &MemorySink,
    operation: &Operation,
) -> usize {
    let results = format!("{}/results/", operation.operation_id);
    let names: Vec<_> = sink.names().into_iter().filter(|name| name.starts_with(&results)).collect();
    for name in &names {
        let id: InstanceIdentifier =
            name.strip_prefix(&results).unwrap().strip_suffix(".dcm").unwrap().parse().unwrap();
        let content = source.open(&Instance::new(id)).await.expect("the source has the instance");
        assert_eq!(sink.get(name).unwrap(), *content.as_bytes().unwrap(), "{name}");
    }
    names.len()
}

/// The errors of the next calls for each instance, the last one first.
type Faults = Arc<Mutex<HashMap<String, Vec<ErrorKind>>>>;

/// Which calls of a source or a sink fail.
#[derive(Clone, Default)]
pub(crate) struct Plan {
    faults: Faults,
    outage: Arc<Mutex<Option<(ErrorKind, usize)>>>,
    starts: Arc<Mutex<Option<ErrorKind>>>,
    pub(crate) calls: Arc<AtomicUsize>,
}

impl Plan {
    /// Makes the next calls for an instance fail with these errors, in this order.
    pub(crate) fn fail(&self, id: &InstanceIdentifier, kinds: &[ErrorKind]) {
        let mut kinds = kinds.to_vec();
        kinds.reverse();
        self.faults.lock().unwrap().insert(id.to_string(), kinds);
    }

    /// Makes every call after the first `after` calls fail, until [`heal`](Self::heal).
    pub(crate) fn fail_all(&self, kind: ErrorKind, after: usize) {
        *self.outage.lock().unwrap() = Some((kind, after));
    }

    pub(crate) fn heal(&self) {
        *self.outage.lock().unwrap() = None;
    }

    /// Makes every test of the destination fail.
    pub(crate) fn fail_starts(&self, kind: ErrorKind) {
        *self.starts.lock().unwrap() = Some(kind);
    }

    fn prepare(&self) -> Result<()> {
        self.starts.lock().unwrap().map_or(Ok(()), |kind| Err(Error::new(kind, "planned failure")))
    }

    /// Counts a call, and returns its planned error.
    fn call(&self, name: &str) -> Result<()> {
        let call = self.calls.fetch_add(1, SeqCst);
        let planned = match *self.outage.lock().unwrap() {
            Some((kind, after)) if call >= after => Some(kind),
            _ => self
                .faults
                .lock()
                .unwrap()
                .iter_mut()
                .find(|(id, _)| name.contains(id.as_str()))
                .and_then(|(_, kinds)| kinds.pop()),
        };
        planned.map_or(Ok(()), |kind| Err(Error::new(kind, "planned failure")))
    }
}

pub(crate) struct FaultySource<S> {
    pub(crate) inner: S,
    pub(crate) plan: Plan,
}

#[async_trait]
impl<S: InstanceSource> InstanceSource for FaultySource<S> {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.inner.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.plan.call(&instance.identifier().to_string())?;
        self.inner.open(instance).await
    }
}

/// A sink in memory whose puts and appends are delayed and fail according to a plan.
pub(crate) type FaultySink = HookedSink<SinkFaults>;

#[derive(Clone, Default)]
pub(crate) struct SinkFaults {
    pub(crate) plan: Plan,
    /// The duration of each put.
    pub(crate) latency: std::time::Duration,
}

impl FaultySink {
    pub(crate) fn new() -> Self {
        Self::with_hook(SinkFaults::default())
    }

    /// A sink whose puts take this long.
    pub(crate) fn with_latency(latency: std::time::Duration) -> Self {
        Self::with_hook(SinkFaults { latency, plan: Plan::default() })
    }

    pub(crate) fn plan(&self) -> &Plan {
        &self.hook.plan
    }
}

#[async_trait]
impl SinkHook for SinkFaults {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        match call {
            SinkCall::Put(path, ..) => {
                tokio::time::sleep(self.latency).await;
                self.plan.call(path.as_str())
            }
            SinkCall::Append => self.plan.call("append"),
            SinkCall::Prepare => self.plan.prepare(),
            SinkCall::Finish => Ok(()),
        }
    }
}

/// Fails all puts until an instant.
#[derive(Clone)]
pub(crate) struct Outage {
    until: tokio::time::Instant,
    error: fn() -> Error,
}

impl Outage {
    /// A sink whose puts fail for this time, with this error.
    pub(crate) fn lasting(seconds: u64, error: fn() -> Error) -> HookedSink<Self> {
        let until = tokio::time::Instant::now() + std::time::Duration::from_secs(seconds);
        HookedSink::with_hook(Self { until, error })
    }
}

#[async_trait]
impl SinkHook for Outage {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        match call {
            SinkCall::Put(..) if tokio::time::Instant::now() < self.until => Err((self.error)()),
            _ => Ok(()),
        }
    }
}

/// A provider that opens the same sink for every operation.
pub(crate) struct FaultySinkProvider(pub(crate) FaultySink);

#[async_trait]
impl SinkProvider for FaultySinkProvider {
    fn validate(&self, _: &serde_json::Value) -> Result<ValidatedSettings> {
        Ok(ValidatedSettings::new("here", serde_json::Value::Null))
    }

    async fn open(&self, _: &OperationSpec, _: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        Ok(Arc::new(self.0.clone()))
    }
}

/// A source of generated instances. It tracks how many of their bytes are in memory.
pub(crate) struct Generated {
    pub(crate) count: u64,
    /// The size of an instance in bytes.
    pub(crate) size: usize,
    /// The size of a chunk in bytes.
    pub(crate) chunk: usize,
    pub(crate) states_size: bool,
    pub(crate) memory: Arc<MemoryUse>,
}

/// The number of bytes that exist, and its maximum so far.
#[derive(Default)]
pub(crate) struct MemoryUse {
    current: AtomicU64,
    pub(crate) peak: AtomicU64,
}

struct Tracked(Vec<u8>, Arc<MemoryUse>);

impl AsRef<[u8]> for Tracked {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.1.current.fetch_sub(self.0.len() as u64, SeqCst);
    }
}

impl MemoryUse {
    fn allocate(self: &Arc<Self>, length: usize) -> Bytes {
        let current = self.current.fetch_add(length as u64, SeqCst) + length as u64;
        self.peak.fetch_max(current, SeqCst);
        Bytes::from_owner(Tracked(vec![7; length], Arc::clone(self)))
    }
}

#[async_trait]
impl InstanceSource for Generated {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let from: u64 = request.after.map(|cursor| cursor.decode()).transpose()?.unwrap_or(0);
        let to = (from + request.limit as u64).min(self.count);
        let page = (from..to).map(|n| {
            let instance = Instance::new(instance(1, 1, n as usize));
            if self.states_size { instance.with_size(self.size as u64) } else { instance }
        });
        let page: Vec<_> = page.collect();
        if to == self.count {
            return Ok(Page::last(page));
        }
        Ok(Page::more(page, dicom_export::source::Cursor::encode(&to)?))
    }

    async fn open(&self, _: &Instance) -> Result<Content> {
        let (memory, chunk, mut left) = (Arc::clone(&self.memory), self.chunk, self.size);
        let chunks = futures::stream::iter(std::iter::from_fn(move || {
            let next = left.min(chunk);
            left -= next;
            (next > 0).then(|| Ok(memory.allocate(next)))
        }));
        Ok(Content::from_stream(self.states_size.then_some(self.size as u64), chunks))
    }
}
