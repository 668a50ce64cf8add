//! The service `ExportBatch`: exports a batch on whichever worker Restate calls.

use restate_sdk::prelude::*;
use tokio::task::JoinSet;
use tracing::Instrument;

use crate::error::{Error, ErrorKind, Result};
use crate::restate::messages::{BatchReply, BatchRequest, Stopped, retryable};
use crate::restate::worker::Worker;
use crate::sync::panicked;

pub(crate) struct ExportBatch {
    pub(crate) worker: Worker,
}

#[restate_sdk::service(client_visibility = "pub(crate)", ingress_private)]
impl ExportBatch {
    /// Exports a batch. The invocation's result is its only journal entry.
    #[handler]
    async fn export(
        &self,
        _ctx: Context<'_>,
        request: Json<BatchRequest>,
    ) -> HandlerResult<Json<BatchReply>> {
        let Json(request) = request;
        let span = tracing::debug_span!("batch", operation = %request.run.id, number = request.batch.number);
        self.export_now(request).instrument(span).await.map(Json).map_err(retryable)
    }
}

impl ExportBatch {
    /// # Errors
    /// Errors after which another worker should try.
    async fn export_now(&self, BatchRequest { run, batch }: BatchRequest) -> Result<BatchReply> {
        let _busy = self.worker.busy();
        let context = match self.worker.open(run).await {
            Ok(context) => context,
            Err(error) if error.kind().is_transient() => return Err(error),
            Err(error) => return Ok(BatchReply::Stopped(Stopped::failed(run, &error))),
        };
        let number = batch.number;
        let stopped = || Ok(BatchReply::Stopped(context.stop_reason()));
        tokio::select! {
            biased;
            () = context.stop.cancelled() => return stopped(),
            () = self.worker.draining() => return Err(shutting_down()),
            () = context.wait_for_backlog(&batch) => {}
        }
        tracing::debug!("batch started");
        // A task, so that a panic affects this batch only, and dropping the set drops the transfers.
        let mut task = JoinSet::new();
        let pipeline = context.pipeline();
        task.spawn(async move { pipeline.export_batch(&batch).await }.in_current_span());
        let ended = tokio::select! {
            biased;
            () = context.stop.cancelled() => return stopped(),
            () = self.worker.abandoned() => return Err(shutting_down()),
            ended = task.join_next() => ended,
        };
        let error = match ended {
            Some(Ok(Ok(outcome))) => {
                let totals = &outcome.totals;
                tracing::debug!(number, exported = totals.exported, skipped = totals.skipped, "batch done");
                return Ok(BatchReply::Done(outcome));
            }
            Some(Ok(Err(error))) => error,
            Some(Err(cause)) => panicked(cause),
            None => Error::new(ErrorKind::Internal, "a transfer did not start"),
        };
        // Other batches of this run would fail in the same way.
        Ok(BatchReply::Stopped(context.fail(run, &error)))
    }
}

fn shutting_down() -> Error {
    Error::new(ErrorKind::Unavailable, "this worker is shutting down")
}
