//! [`Place`]: an operation's place among those that run in this process.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::engine::expiry::Pace;
use crate::engine::inner::{Inner, Running};
use crate::engine::ledger::Ledger;
use crate::engine::progress::Progress;
use crate::engine::run::{Run, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::Retrier;
use crate::operation::{OperationId, OperationNote, OperationSpec, OperationStatus};
use crate::sink::BlobSink;
use crate::source::InstanceSource;

/// Taken before a run starts, so that it can be watched and canceled from the first moment; given up by drop.
pub(super) struct Place {
    inner: Arc<Inner>,
    id: OperationId,
    stop: Stop,
    progress: watch::Sender<Progress>,
}

impl Place {
    /// # Errors
    /// [`ErrorKind::Conflict`] when the operation runs in this process already.
    pub(super) fn take(inner: &Arc<Inner>, id: OperationId) -> Result<Self> {
        let stop = Stop {
            cancel: CancellationToken::new(),
            drain: inner.drain.clone(),
            abandon: inner.abandon.clone(),
        };
        let (sender, progress) = watch::channel(Progress::default());
        match inner.running().entry(id) {
            Entry::Occupied(_) => {
                return Err(Error::new(ErrorKind::Conflict, "the operation is being run already"));
            }
            Entry::Vacant(free) => _ = free.insert(Running { cancel: stop.cancel.clone(), progress }),
        }
        Ok(Self { inner: Arc::clone(inner), id, stop, progress: sender })
    }

    /// Runs the operation from its checkpoint on.
    pub(super) async fn run(self) -> Result<()> {
        let (inner, id, stop) = (&*self.inner, self.id, &self.stop);
        let mut operation = inner.store.spec(id).await?;
        let retrier = Retrier::new(inner.knobs.retry.clone());
        let (store, term) = (Arc::clone(&inner.store), inner.knobs.lease);
        let mut ledger = Ledger::claim(store, retrier, id, term, stop.cancel.clone()).await?;
        if let Some(destination) = ledger.checkpoint.destination.clone() {
            operation = Arc::new(OperationSpec { destination, ..OperationSpec::clone(&operation) });
        }
        let opened =
            async { Ok((inner.sources.open(&operation).await?, inner.open_sink(&operation).await?)) };
        match ledger.keep(opened).await {
            Ok((source, sink)) => self.run_opened(operation, source, sink, ledger).await?,
            Err(error) => ledger.end(OperationStatus::Failed, Some(OperationNote::from(&error))).await?,
        }
        if inner.store.load(id).await?.status.is_ended() {
            inner.forget(id).await;
        }
        Ok(())
    }

    async fn run_opened(
        &self,
        operation: Arc<OperationSpec>,
        source: Arc<dyn InstanceSource>,
        sink: Arc<dyn BlobSink>,
        ledger: Ledger,
    ) -> Result<()> {
        let (inner, knobs) = (&*self.inner, &self.inner.knobs);
        let transfers = inner.transfers(operation, source, sink, &ledger.checkpoint.totals);
        let run = Run {
            transfers: Arc::new(transfers),
            pace: Pace::from(&ledger.checkpoint),
            ledger,
            batch_size: knobs.batch_size,
            checkpoint_every: knobs.checkpoint_every,
            stop: self.stop.clone(),
            progress: self.progress.clone(),
            appends: 0,
            committed: Instant::now(),
        };
        run.run().await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.inner.running().remove(&self.id);
    }
}
