//! [`Place`]: an operation's place among those that run in this process.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::engine::expiry::Pace;
use crate::engine::inner::{Inner, Running};
use crate::engine::ledger::Ledger;
use crate::engine::progress::Progress;
use crate::engine::run::{Run, Stop};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::Retrier;
use crate::model::{OperationId, OperationIssue, OperationSpec, OperationStatus};
use crate::sink::BlobSink;
use crate::source::InstanceSource;

/// How long a run that is abandoned may take to log and save what it has finished: its last words, and a save.
const LAST_SAVE: Duration = Duration::from_secs(20);

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
        let abandon = self.stop.abandon.clone();
        tokio::select! {
            biased;
            outcome = self.run_to_the_end() => outcome,
            // A store that does not answer would hold a shutdown up. The lease lapses by itself.
            () = async { abandon.cancelled().await; sleep(LAST_SAVE).await } => {
                tracing::warn!("left without a last save: the store does not answer");
                Ok(())
            }
        }
    }

    async fn run_to_the_end(&self) -> Result<()> {
        let (inner, id, stop) = (&*self.inner, self.id, &self.stop);
        let retrier = || Retrier::new(inner.options.retry.clone());
        let opening = retrier();
        let mut operation = opening.run(|| inner.store.spec(id)).await?;
        let (store, term) = (Arc::clone(&inner.store), inner.options.lease);
        let mut ledger = Ledger::claim(store, retrier(), id, term, stop.cancel.clone()).await?;
        if let Some(destination) = ledger.checkpoint.destination.clone() {
            operation = Arc::new(OperationSpec { destination, ..OperationSpec::clone(&operation) });
        }
        let open =
            || async { Ok((inner.sources.open(&operation).await?, inner.open_sink(&operation).await?)) };
        tokio::select! {
            biased;
            () = stop.cancel.cancelled() => ledger.end(OperationStatus::Canceled, None).await?,
            () = stop.drain.cancelled() => ledger.release().await?,
            opened = ledger.keep(opening.run(open)) => match opened {
                Ok((source, sink)) => self.run_opened(operation, source, sink, ledger).await?,
                Err(error) => ledger.end(OperationStatus::Failed, Some(OperationIssue::from(&error))).await?,
            }
        }
        if retrier().run(|| inner.store.load(id)).await?.status.is_ended() {
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
        let (inner, options) = (&*self.inner, &self.inner.options);
        let transfers = inner.transfers(operation, source, sink, &ledger.checkpoint.totals);
        let run = Run {
            transfers: Arc::new(transfers),
            number: ledger.checkpoint.version,
            pace: Pace::from(&ledger.checkpoint),
            ledger,
            batch_size: options.batch_size,
            checkpoint_interval: options.checkpoint_interval,
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
