//! The service `ExportSegment`: lists some hundreds of batches and has them exported by all workers.

use std::collections::VecDeque;

use restate_sdk::prelude::*;

use crate::model::{Position, Totals};
use crate::pipeline::{Batch, CommitQueue};
use crate::restate::batch::ExportBatchClient;
use crate::restate::list::Lister;
use crate::restate::messages::{
    BatchReply, BatchRequest, Listed, Plan, Report, Run, SegmentOutcome, SegmentRequest, Stopped,
};
use crate::restate::operations::ExportOperationClient;
use crate::restate::worker::Worker;

/// A segment reports its progress about this many times.
const REPORTS_PER_SEGMENT: u64 = 16;

pub(crate) struct ExportSegment {
    pub(crate) worker: Worker,
}

#[restate_sdk::service(client_visibility = "pub(crate)", ingress_private)]
impl ExportSegment {
    #[handler]
    async fn run(
        &self,
        ctx: Context<'_>,
        request: Json<SegmentRequest>,
    ) -> HandlerResult<Json<SegmentOutcome>> {
        let Json(SegmentRequest { run, segment, from, plan, listed }) = request;
        let lister = Lister::new(self.worker.clone(), run);
        let mut listing = Listing::starting_at(from.clone());
        let mut committed = Committed { totals: Totals::default(), end: from.clone() };
        let mut queue = CommitQueue::starting_at(&from);
        let mut ends = Vec::new();
        let mut calls = DurableFuturesUnordered::new();
        let mut reported = 0;
        let mut stopped: Option<Stopped> = None;
        loop {
            while stopped.is_none() && calls.len() < plan.window {
                if let Some(batch) = listing.queue.pop_front() {
                    ends.push((batch.number, batch.end.clone()));
                    let request = Json(BatchRequest { run, batch });
                    calls.push(ctx.service_client::<ExportBatchClient<'_>>().export(request).call());
                    continue;
                }
                if listing.is_done {
                    break;
                }
                let position = listing.position.clone();
                match ctx.run(|| lister.list(position)).name("list").await.map(Json::into_inner) {
                    Ok(Listed::Batches { batches, bytes, end }) => {
                        listing.add(batches, bytes, end, &plan);
                        if listing.is_done {
                            ctx.resolve_awakeable(&listed, Json(listing.position.clone()));
                        }
                    }
                    Ok(Listed::Stopped(reason)) => stopped = Some(reason),
                    Err(error) => stopped = Some(Stopped::from_terminal(&error)),
                }
            }
            match calls.next().await {
                Ok(None) => break,
                Ok(Some((index, Ok(Json(BatchReply::Done(outcome)))))) => {
                    let (number, end): &(u64, Position) = &ends[index];
                    queue.add(*number, end.clone(), outcome);
                }
                Ok(Some((_, Ok(Json(BatchReply::Stopped(reason)))))) => _ = stopped.get_or_insert(reason),
                // Canceled. Workers stop the batches in progress; those that are done by then count.
                Ok(Some((_, Err(error)))) | Err(error) => {
                    stopped.get_or_insert_with(|| Stopped::from_terminal(&error));
                }
            }
            if queue.lines().is_full() && stopped.is_none() {
                stopped = self.commit(&ctx, run, &mut queue, &mut committed).await;
            }
            if queue.batches() - reported >= (listing.batches / REPORTS_PER_SEGMENT).max(1) {
                reported = queue.batches();
                let mut totals = committed.totals.clone();
                totals.add(queue.totals());
                let report = Report { run: run.number, segment, batches: reported, totals };
                let operation = ctx.object_client::<ExportOperationClient<'_>>(run.id.to_string());
                operation.report(Json(report)).send();
            }
        }
        let failure = self.commit(&ctx, run, &mut queue, &mut committed).await;
        let stopped = stopped.or(failure);
        if stopped.is_none() {
            // The listing may have advanced over empty pages after its last batch.
            committed.end = listing.position;
        }
        Ok(Json(SegmentOutcome { totals: committed.totals, end: committed.end, stopped }))
    }

    /// Asks the source for the number of instances, concurrently with everything else.
    #[handler]
    async fn estimate(&self, ctx: Context<'_>, run: Json<Run>) -> HandlerResult<()> {
        let Json(run) = run;
        let estimate = ctx.run(|| async move { Ok(Json(self.worker.estimate(run).await)) });
        if let Json(Some(instances)) = estimate.name("estimate").await? {
            let operation = ctx.object_client::<ExportOperationClient<'_>>(run.id.to_string());
            operation.estimated(Json((run.number, instances))).send();
        }
        Ok(())
    }
}

impl ExportSegment {
    /// Makes the pending log lines durable, then counts their batches. Returns why that is not possible.
    async fn commit(
        &self,
        ctx: &Context<'_>,
        run: Run,
        queue: &mut CommitQueue,
        committed: &mut Committed,
    ) -> Option<Stopped> {
        if !queue.lines().is_empty() {
            let (first_batch, lines) = (queue.next_batch(), queue.lines());
            let append = || async move { self.worker.append(run, first_batch, lines).await.map(Json) };
            let mut appended = ctx.run(append).name("append").await;
            if appended.is_err() {
                // Canceled meanwhile, which is signaled once: the lines must not be lost.
                appended = ctx.run(append).name("append").await;
            }
            match appended {
                Ok(Json(None)) => {}
                Ok(Json(Some(reason))) => return Some(reason),
                Err(error) => return Some(Stopped::from_terminal(&error)),
            }
        }
        if let Some((end, totals)) = queue.take() {
            committed.totals.add(&totals);
            committed.end = end;
        }
        None
    }
}

/// The listing of a segment.
struct Listing {
    position: Position,
    /// Listed batches that have not been started.
    queue: VecDeque<Batch>,
    batches: u64,
    bytes: usize,
    is_done: bool,
}

impl Listing {
    fn starting_at(position: Position) -> Self {
        Self { position, queue: VecDeque::new(), batches: 0, bytes: 0, is_done: false }
    }

    fn add(&mut self, batches: Vec<Batch>, bytes: usize, end: Position, plan: &Plan) {
        self.batches += batches.len() as u64;
        self.bytes += bytes;
        self.is_done = end.done || self.batches >= plan.segment_batches || self.bytes >= plan.segment_bytes;
        self.queue.extend(batches);
        self.position = end;
    }
}

/// The batches of a segment whose log lines are durable.
struct Committed {
    totals: Totals,
    end: Position,
}
