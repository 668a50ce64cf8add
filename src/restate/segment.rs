//! The service `ExportSegment`: lists some hundreds of batches, and has them exported all over.

use std::collections::VecDeque;

use restate_sdk::prelude::*;

use crate::engine::{Batch, BatchOutcome, Lines, Prefix};
use crate::model::{Position, Totals};
use crate::restate::batch::ExportBatchClient;
use crate::restate::lister::Lister;
use crate::restate::operations::ExportOperationClient;
use crate::restate::wire::{
    BatchAnswer, BatchRequest, Listed, Plan, Report, Run, SegmentOutcome, SegmentRequest, Stopped,
};
use crate::restate::worker::Worker;

/// A segment says how far it is whenever it has come this part of itself further.
const REPORTS: u64 = 16;

/// Lists and exports segments.
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
        let mut listing = Listing::from(from.clone());
        let mut tally = Tally::from(from.clone());
        let mut prefix = Prefix::starting_at(from.batch);
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
                if listing.is_over {
                    break;
                }
                let after = listing.position.clone();
                match ctx.run(|| lister.list(after)).name("list").await.map(Json::into_inner) {
                    Ok(Listed::Batches { batches, bytes, end }) => {
                        listing.add(batches, bytes, end, &plan);
                        if listing.is_over {
                            ctx.resolve_awakeable(&listed, Json(listing.position.clone()));
                        }
                    }
                    Ok(Listed::Stopped(why)) => stopped = Some(why),
                    Err(error) => stopped = Some(Stopped::from_terminal(&error)),
                }
            }
            match calls.next().await {
                Ok(None) => break,
                Ok(Some((at, Ok(Json(BatchAnswer::Done(outcome)))))) => {
                    let (number, end): &(u64, Position) = &ends[at];
                    prefix.finish(*number, (end.clone(), outcome));
                }
                Ok(Some((_, Ok(Json(BatchAnswer::Stopped(why)))))) => _ = stopped.get_or_insert(why),
                // Canceled. Workers tell the batches under way; what those have done until then counts.
                Ok(Some((_, Err(error)))) | Err(error) => {
                    stopped.get_or_insert_with(|| Stopped::from_terminal(&error));
                }
            }
            while let Some((end, outcome)) = prefix.pop() {
                tally.add(end, outcome);
            }
            if tally.lines.are_many() && stopped.is_none() {
                stopped = self.append(&ctx, run, &mut tally).await;
            }
            if tally.batches - reported >= (listing.batches / REPORTS).max(1) {
                reported = tally.batches;
                let totals = tally.so_far();
                let report = Report { run: run.number, segment, batches: reported, totals };
                let operation = ctx.object_client::<ExportOperationClient<'_>>(run.id.to_string());
                operation.report(Json(report)).send();
            }
        }
        let unlogged = self.append(&ctx, run, &mut tally).await;
        let stopped = stopped.or(unlogged);
        if stopped.is_none() {
            // The listing may have moved on after its last batch, over empty pages.
            tally.end = listing.position;
        }
        Ok(Json(SegmentOutcome { totals: tally.totals, end: tally.end, stopped }))
    }

    /// Asks the source how many instances there are, beside everything else.
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
    /// Makes the waiting lines durable; then their batches count.
    async fn append(&self, ctx: &Context<'_>, run: Run, tally: &mut Tally) -> Option<Stopped> {
        if !tally.lines.is_empty() {
            let (key, lines) = (tally.key, &tally.lines);
            let append = || async move { self.worker.append(run, key, lines).await.map(Json) };
            let mut appended = ctx.run(append).name("append").await;
            if appended.is_err() {
                // Canceled meanwhile: that comes once, and the lines are not lost for it.
                appended = ctx.run(append).name("append").await;
            }
            match appended {
                Ok(Json(None)) => {}
                Ok(Json(Some(why))) => return Some(why),
                Err(error) => return Some(Stopped::from_terminal(&error)),
            }
        }
        tally.commit();
        None
    }
}

/// How far a segment has listed.
struct Listing {
    position: Position,
    /// Listed, and not begun yet.
    queue: VecDeque<Batch>,
    batches: u64,
    bytes: usize,
    is_over: bool,
}

impl Listing {
    fn from(position: Position) -> Self {
        Self { position, queue: VecDeque::new(), batches: 0, bytes: 0, is_over: false }
    }

    fn add(&mut self, batches: Vec<Batch>, bytes: usize, end: Position, plan: &Plan) {
        self.batches += batches.len() as u64;
        self.bytes += bytes;
        self.is_over = end.done || self.batches >= plan.segment_batches || self.bytes >= plan.segment_bytes;
        self.queue.extend(batches);
        self.position = end;
    }
}

/// What a segment has done, in order.
struct Tally {
    /// Of the batches up to `end`, whose lines are in the log.
    totals: Totals,
    end: Position,
    /// Of those after it, whose lines wait.
    waiting: Totals,
    waiting_end: Option<Position>,
    lines: Lines,
    /// The first batch whose lines may wait.
    key: u64,
    batches: u64,
}

impl Tally {
    fn from(position: Position) -> Self {
        Self {
            key: position.batch,
            totals: Totals::default(),
            end: position,
            waiting: Totals::default(),
            waiting_end: None,
            lines: Lines::default(),
            batches: 0,
        }
    }

    fn add(&mut self, end: Position, outcome: BatchOutcome) {
        self.waiting.add(&outcome.totals);
        self.lines.add(&outcome.lines);
        self.waiting_end = Some(end);
        self.batches += 1;
    }

    fn commit(&mut self) {
        self.totals.add(&std::mem::take(&mut self.waiting));
        self.lines = Lines::default();
        if let Some(end) = self.waiting_end.take() {
            self.key = end.batch;
            self.end = end;
        }
    }

    fn so_far(&self) -> Totals {
        let mut totals = self.totals.clone();
        totals.add(&self.waiting);
        totals
    }
}
