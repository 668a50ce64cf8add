//! The service `ExportBatch`: the step `export_batch`, on whichever worker Restate calls.

use restate_sdk::prelude::*;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::error::{Error, ErrorKind, Result};
use crate::restate::wire::{BatchAnswer, BatchRequest, Stopped, again};
use crate::restate::worker::Worker;

/// Exports batches.
pub(crate) struct ExportBatch {
    pub(crate) worker: Worker,
}

#[restate_sdk::service(client_visibility = "pub(crate)", ingress_private)]
impl ExportBatch {
    /// The invocation is the step: its result is its only entry in the journal.
    #[handler]
    async fn export(
        &self,
        _ctx: Context<'_>,
        request: Json<BatchRequest>,
    ) -> HandlerResult<Json<BatchAnswer>> {
        let Json(BatchRequest { run, batch }) = request;
        let number = batch.number;
        let span = tracing::debug_span!("batch", operation = %run.id, number);
        self.export_now(BatchRequest { run, batch }).instrument(span).await.map(Json).map_err(again)
    }
}

impl ExportBatch {
    /// # Errors
    /// Those after which another worker is to try.
    async fn export_now(&self, BatchRequest { run, batch }: BatchRequest) -> Result<BatchAnswer> {
        let _busy = self.worker.busy();
        let opened = match self.worker.open(run).await {
            Ok(opened) => opened,
            Err(error) if error.kind().is_transient() => return Err(error),
            Err(error) => return Ok(BatchAnswer::Stopped(Stopped::failed(&error))),
        };
        let number = batch.number;
        let stopped = || Ok(BatchAnswer::Stopped(opened.why_stopped()));
        tokio::select! {
            biased;
            () = opened.stop.cancelled() => return stopped(),
            () = self.worker.draining() => return Err(shutting_down()),
            () = opened.room_for(&batch) => {}
        }
        tracing::debug!("begins");
        // A task of its own: a panic is this batch's, and dropping the set drops the transfers.
        let mut task = JoinSet::new();
        let transfers = opened.transfers();
        task.spawn(async move { transfers.export_batch(&batch).await }.in_current_span());
        let ended = tokio::select! {
            biased;
            () = opened.stop.cancelled() => return stopped(),
            () = self.worker.abandoned() => return Err(shutting_down()),
            ended = task.join_next() => ended,
        };
        let error = match ended {
            Some(Ok(Ok(outcome))) => {
                let totals = &outcome.totals;
                tracing::debug!(number, exported = totals.exported, skipped = totals.skipped, "batch done");
                return Ok(BatchAnswer::Done(outcome));
            }
            Some(Ok(Err(error))) => error,
            Some(Err(cause)) => {
                Error::new(ErrorKind::Internal, "a transfer stopped unexpectedly").with_source(cause)
            }
            None => Error::new(ErrorKind::Internal, "a transfer did not start"),
        };
        // The others of this run would only find the same.
        Ok(BatchAnswer::Stopped(opened.fail(&error)))
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "this worker is shutting down")
}
