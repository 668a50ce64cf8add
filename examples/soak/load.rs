//! The operations that are started, and their expected results.

use std::fmt;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::testing::GeneratedSource;
use dicom_export::{
    Error, ErrorKind, ExportDestination, ExportEngine, ExportSource, InstanceSource, NewOperation, Operation,
    OperationContext, OperationId, OperationSpec, OperationStatus, RetryPolicy, SourceProvider,
};
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::server::{BLOCKED, DOWN, FAST, RELEASE, WAITING, get};
use crate::{BUDGET, Outcome};

/// Concurrent operations with the fast destination. With the blocked one and the one that is down there are twenty.
const SLOTS: usize = 18;

/// One of this number of operations in a slot is canceled.
const CANCEL_EVERY: usize = 5;

/// The retry budget.
const RETRY_BUDGET: Duration = Duration::from_secs(3);

/// How long ended operations are kept. Failed ones are resumed immediately.
const RETENTION: Duration = Duration::from_secs(10);

/// The instances of an operation, selected by its partition.
struct Kind {
    name: &'static str,
    count: u64,
    size: u64,
}

const KINDS: [Kind; 3] = [
    Kind { name: "small", count: 200, size: 20_000 },
    Kind { name: "medium", count: 40, size: 512 << 10 },
    Kind { name: "large", count: 2, size: 20 << 20 },
];

/// The operation with the blocked destination, which never ends.
const ENDLESS: Kind = Kind { name: "endless", count: 1_000_000, size: 2 << 20 };

/// The number of blocked requests before the other operations start: by then the blocked operation has taken its maximum
/// share of the memory budget.
const BLOCKED_REQUESTS: usize = 8;

/// One source for each kind, shared by its operations.
struct Sources(Vec<(&'static str, Arc<dyn InstanceSource>)>);

impl Sources {
    fn new() -> Self {
        let source =
            |Kind { name, count, size }| (name, Arc::new(GeneratedSource::new(count, size).copied()) as _);
        Self(KINDS.into_iter().chain([ENDLESS]).map(source).collect())
    }
}

#[async_trait]
impl SourceProvider for Sources {
    async fn open(&self, operation: &OperationSpec) -> dicom_export::Result<Arc<dyn InstanceSource>> {
        let name = operation.context.partition.as_deref().unwrap_or_default();
        let of_kind = self.0.iter().find(|(kind, _)| *kind == name);
        let unknown = || Error::new(ErrorKind::Invalid, "unknown kind of operation");
        of_kind.map(|(_, source)| Arc::clone(source)).ok_or_else(unknown)
    }
}

#[derive(Default)]
struct Counts {
    completed: AtomicUsize,
    canceled: AtomicUsize,
    failed: AtomicUsize,
    /// The bytes of completed operations.
    bytes: AtomicU64,
    violations: Mutex<Vec<String>>,
}

pub(crate) struct Load {
    engine: ExportEngine,
    address: String,
    counts: Counts,
    blocked: Mutex<Option<OperationId>>,
    /// The number of slots whose first operation has ended.
    served: watch::Sender<usize>,
}

impl Load {
    pub(crate) fn new(address: &str) -> Outcome<Self> {
        let engine = ExportEngine::builder_with_provider(Sources::new())
            .destination(
                ExportDestination::AZURE_BLOB,
                AzureBlobProvider::new(AzureBlobPolicy::development()),
            )
            .memory_budget(BUDGET)
            .retry(RetryPolicy::with_budget(RETRY_BUDGET))
            .retention(RETENTION)
            .build()?;
        let (counts, blocked) = (Counts::default(), Mutex::default());
        Ok(Self { engine, address: address.to_owned(), counts, blocked, served: watch::Sender::new(0) })
    }

    /// Loads the engine until the future is dropped.
    ///
    /// # Errors
    /// Fails if the load does not make progress within `limit`.
    pub(crate) async fn run(&self, limit: Duration) -> Outcome {
        let begin = async {
            // The blocked operation starts first and takes its share of the memory budget.
            let blocked = self.start(BLOCKED, &ENDLESS).await?;
            *lock(&self.blocked) = Some(blocked);
            while get(&self.address, WAITING).await?.parse::<usize>()? < BLOCKED_REQUESTS {
                sleep(Duration::from_millis(10)).await;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(blocked)
        };
        let blocked =
            timeout(limit, begin).await.map_err(|_| "the blocked destination received no requests")??;
        let release = async {
            let mut served = self.served.subscribe();
            let in_time = timeout(limit, served.wait_for(|served| *served == SLOTS)).await.is_ok();
            let moved = self.engine.progress(blocked).map(|progress| progress.borrow().exported);
            if !in_time || moved != Some(0) {
                let served = *self.served.borrow();
                self.violation(format!(
                    "{served} of {SLOTS} slots were served while one operation was blocked; it exported {moved:?}"
                ));
            }
            get(&self.address, RELEASE).await.map(drop)
        };
        let slots = try_join_all((0..SLOTS).map(|slot| self.slot(slot)));
        tokio::try_join!(slots, release, self.down())?;
        Ok(())
    }

    /// Runs one operation after the other.
    async fn slot(&self, slot: usize) -> Outcome {
        for number in 0.. {
            let kind = &KINDS[(slot + number) % KINDS.len()];
            let id = self.start(FAST, kind).await?;
            let is_canceled = (slot + number) % CANCEL_EVERY == CANCEL_EVERY - 1;
            if is_canceled {
                self.cancel_halfway(id, kind).await?;
            }
            let ended = self.engine.wait(id).await?;
            match ended.status {
                OperationStatus::Completed => {
                    self.counts.completed.fetch_add(1, SeqCst);
                    self.counts.bytes.fetch_add(kind.count * kind.size, SeqCst);
                    self.expect(ended.results.exported == kind.count && ended.results.skipped == 0, &ended);
                }
                OperationStatus::Canceled if is_canceled => {
                    self.counts.canceled.fetch_add(1, SeqCst);
                    self.expect(ended.results.exported <= kind.count && ended.results.skipped == 0, &ended);
                }
                _ => self.expect(false, &ended),
            }
            if number == 0 {
                self.served.send_modify(|served| *served += 1);
            }
        }
        Ok(())
    }

    async fn cancel_halfway(&self, id: OperationId, kind: &Kind) -> Outcome {
        if let Some(mut progress) = self.engine.progress(id) {
            // An error: the operation has ended.
            _ = progress.wait_for(|progress| progress.exported >= kind.count / 2).await;
        }
        match self.engine.cancel(id).await {
            // The operation ended first.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Resumes an operation each time it has failed.
    async fn down(&self) -> Outcome {
        let id = self.start(DOWN, &KINDS[0]).await?;
        loop {
            let ended = self.engine.wait(id).await?;
            self.counts.failed.fetch_add(1, SeqCst);
            let counts = (ended.results.exported, ended.results.skipped);
            self.expect(ended.status == OperationStatus::Failed && counts == (0, 0), &ended);
            self.engine.resume(id, Some(self.destination(DOWN).into())).await?;
        }
    }

    async fn start(&self, account: &str, kind: &Kind) -> Outcome<OperationId> {
        let context = OperationContext::default().with_partition(kind.name);
        let new =
            NewOperation::new(ExportSource::Everything, self.destination(account)).with_context(context);
        Ok(self.engine.start(new).await?.operation_id)
    }

    /// A destination with a SAS, which the server does not check.
    fn destination(&self, account: &str) -> ExportDestination {
        let address = &self.address;
        let uri = format!("http://{address}/{account}/container?sv=2022-11-02&sp=w&sig=bm9uZQ%3D%3D");
        ExportDestination::azure_blob(&uri)
    }

    /// Deletes ended operations from the store in memory, which would grow otherwise.
    pub(crate) async fn purge_expired(&self) -> Outcome {
        self.engine.purge_expired().await?;
        Ok(())
    }

    /// Returns whether an operation runs: the sender of its progress is dropped at the end of the run.
    fn is_running(&self, id: OperationId) -> bool {
        self.engine.progress(id).is_some_and(|progress| progress.has_changed().is_ok())
    }

    /// Shuts the engine down during the load.
    pub(crate) async fn shut_down(&self, grace: Duration) -> Outcome<Vec<String>> {
        self.engine.shutdown(grace).await;
        let Some(blocked) = *lock(&self.blocked) else {
            return Ok(vec!["no operation was blocked".to_owned()]);
        };
        let left = self.engine.status(blocked).await?;
        Ok(match left.status {
            OperationStatus::Running if !self.is_running(blocked) => Vec::new(),
            status => vec![format!("after the shutdown the endless operation is {status:?}")],
        })
    }

    /// Waits until every slot was served, and at least one operation was canceled and one failed.
    pub(crate) async fn wait_until_covered(&self) {
        let Counts { canceled, failed, .. } = &self.counts;
        while *self.served.borrow() < SLOTS || canceled.load(SeqCst) == 0 || failed.load(SeqCst) == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        let mut violations = std::mem::take(&mut *lock(&self.counts.violations));
        let served = *self.served.borrow();
        if served < SLOTS {
            violations.push(format!("{served} of {SLOTS} slots were served"));
        }
        for (name, count) in [("canceled", &self.counts.canceled), ("failed", &self.counts.failed)] {
            if count.load(SeqCst) == 0 {
                violations.push(format!("no operation was {name}"));
            }
        }
        violations
    }

    fn expect(&self, is_met: bool, ended: &Operation) {
        if !is_met {
            self.violation(format!("{:?} with {:?}: {:?}", ended.status, ended.results, ended.error));
        }
    }

    fn violation(&self, violation: String) {
        lock(&self.counts.violations).push(violation);
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { completed, canceled, failed, bytes, .. } = &self.counts;
        let blocked = lock(&self.blocked).and_then(|id| self.engine.progress(id));
        write!(
            f,
            "{} completed ({} MiB), {} canceled, {} failed, {} instances at the slow destination",
            completed.load(SeqCst),
            bytes.load(SeqCst) >> 20,
            canceled.load(SeqCst),
            failed.load(SeqCst),
            blocked.map_or(0, |progress| progress.borrow().exported)
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
