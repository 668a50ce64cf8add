//! What is started, and what becomes of it.

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

use crate::server::{DOWN, QUICK, RELEASE, STUCK, WAITING, ask};
use crate::{BUDGET, Outcome};

/// Operations towards the quick destination at once; with the stuck one and the one that is down there are twenty.
const SLOTS: usize = 18;

/// Every so many operations of a slot, one is canceled.
const CANCEL_EVERY: usize = 5;

/// How long passing trouble is retried.
const RETRY_FOR: Duration = Duration::from_secs(3);

/// How long ended operations are; what fails is resumed at once.
const REMEMBERED: Duration = Duration::from_secs(10);

/// What an operation exports, by its partition.
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

/// Goes to the stuck destination; never done.
const ENDLESS: Kind = Kind { name: "endless", count: 1_000_000, size: 2 << 20 };

/// So many requests have to wait there before the others start: it has taken what it can get of the budget.
const STUCK_REQUESTS: usize = 8;

/// One source a kind, which its operations share.
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
        let unknown = || Error::new(ErrorKind::Invalid, "there is no such kind of operation");
        of_kind.map(|(_, source)| Arc::clone(source)).ok_or_else(unknown)
    }
}

#[derive(Default)]
struct Counts {
    completed: AtomicUsize,
    canceled: AtomicUsize,
    failed: AtomicUsize,
    /// Bytes of what has completed.
    bytes: AtomicU64,
    faults: Mutex<Vec<String>>,
}

pub(crate) struct Load {
    engine: ExportEngine,
    address: String,
    counts: Counts,
    stuck: Mutex<Option<OperationId>>,
    /// Slots whose first operation has completed.
    served: watch::Sender<usize>,
}

impl Load {
    pub(crate) fn on(address: &str) -> Outcome<Self> {
        let engine = ExportEngine::builder_with_provider(Sources::new())
            .destination(
                ExportDestination::AZURE_BLOB,
                AzureBlobProvider::new(AzureBlobPolicy::development()),
            )
            .memory_budget(BUDGET)
            .retry(RetryPolicy::with_budget(RETRY_FOR))
            .retention(REMEMBERED)
            .build()?;
        let (counts, stuck) = (Counts::default(), Mutex::default());
        Ok(Self { engine, address: address.to_owned(), counts, stuck, served: watch::Sender::new(0) })
    }

    /// Loads the engine until it is dropped; an error if it is stuck for so long.
    pub(crate) async fn run(&self, patience: Duration) -> Outcome {
        let begin = async {
            // The stuck one comes first and takes what it can get.
            let stuck = self.start(STUCK, &ENDLESS).await?;
            *lock(&self.stuck) = Some(stuck);
            while ask(&self.address, WAITING).await?.parse::<usize>()? < STUCK_REQUESTS {
                sleep(Duration::from_millis(10)).await;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(stuck)
        };
        let stuck = timeout(patience, begin).await.map_err(|_| "the stuck destination was never asked")??;
        let release = async {
            let mut served = self.served.subscribe();
            let in_time = timeout(patience, served.wait_for(|served| *served == SLOTS)).await.is_ok();
            let moved = self.engine.progress(stuck).map(|progress| progress.borrow().exported);
            if !in_time || moved != Some(0) {
                let served = *self.served.borrow();
                self.fault(format!(
                    "{served} of {SLOTS} were served while one was stuck; it exported {moved:?}"
                ));
            }
            ask(&self.address, RELEASE).await.map(drop)
        };
        let slots = try_join_all((0..SLOTS).map(|slot| self.slot(slot)));
        tokio::try_join!(slots, release, self.down())?;
        Ok(())
    }

    /// One operation after the other.
    async fn slot(&self, slot: usize) -> Outcome {
        for number in 0.. {
            let kind = &KINDS[(slot + number) % KINDS.len()];
            let id = self.start(QUICK, kind).await?;
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
            // An error is its end.
            _ = progress.wait_for(|progress| progress.exported >= kind.count / 2).await;
        }
        match self.engine.cancel(id).await {
            // It was quicker.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(()),
            outcome => Ok(outcome?),
        }
    }

    /// Fails, is resumed, fails.
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

    /// With a SAS that the server does not look at.
    fn destination(&self, account: &str) -> ExportDestination {
        let address = &self.address;
        let uri = format!("http://{address}/{account}/container?sv=2022-11-02&sp=w&sig=bm9uZQ%3D%3D");
        ExportDestination::azure_blob(&uri)
    }

    /// Otherwise the store in memory grows.
    pub(crate) async fn purge_expired(&self) -> Outcome {
        self.engine.purge_expired().await?;
        Ok(())
    }

    /// Shuts down in the middle of everything.
    pub(crate) async fn shut_down(&self, grace: Duration) -> Outcome<Vec<String>> {
        self.engine.shutdown(grace).await;
        let Some(stuck) = *lock(&self.stuck) else { return Ok(vec!["nothing was stuck".to_owned()]) };
        let left = self.engine.status(stuck).await?;
        Ok(match left.status {
            OperationStatus::Running if self.engine.progress(stuck).is_none() => Vec::new(),
            status => vec![format!("after the shutdown the endless operation is {status:?}")],
        })
    }

    /// Waits until every slot has been served, and something was canceled and something has failed.
    pub(crate) async fn has_shown_enough(&self) {
        let Counts { canceled, failed, .. } = &self.counts;
        while *self.served.borrow() < SLOTS || canceled.load(SeqCst) == 0 || failed.load(SeqCst) == 0 {
            sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = std::mem::take(&mut *lock(&self.counts.faults));
        let served = *self.served.borrow();
        if served < SLOTS {
            faults.push(format!("{served} of {SLOTS} slots were served"));
        }
        for (name, count) in [("canceled", &self.counts.canceled), ("failed", &self.counts.failed)] {
            if count.load(SeqCst) == 0 {
                faults.push(format!("nothing was {name}"));
            }
        }
        faults
    }

    fn expect(&self, holds: bool, ended: &Operation) {
        if !holds {
            self.fault(format!("{:?} with {:?}: {:?}", ended.status, ended.results, ended.error));
        }
    }

    fn fault(&self, fault: String) {
        lock(&self.counts.faults).push(fault);
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { completed, canceled, failed, bytes, .. } = &self.counts;
        let stuck = lock(&self.stuck).and_then(|id| self.engine.progress(id));
        write!(
            f,
            "{} completed ({} MiB), {} canceled, {} failed, {} instances at the slow destination",
            completed.load(SeqCst),
            bytes.load(SeqCst) >> 20,
            canceled.load(SeqCst),
            failed.load(SeqCst),
            stuck.map_or(0, |progress| progress.borrow().exported)
        )
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
