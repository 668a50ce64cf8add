//! The workflow `Export`: one run of an operation, from a position in its listing to its end.

use std::pin::Pin;

use restate_sdk::context::DurableFuture;
use restate_sdk::prelude::*;

use crate::model::OperationStatus;
use crate::model::Position;
use crate::pipeline::OrderedPrefix;
use crate::restate::messages::{Commit, Ended, RunRequest, SegmentOutcome, SegmentRequest, Stopped};
use crate::restate::operations::ExportOperationClient;
use crate::restate::segment::ExportSegmentClient;
use crate::restate::worker::Worker;

/// The number of segments in progress: one that lists, and earlier ones whose last batches are not done.
const MAX_CONCURRENT_SEGMENTS: u64 = 4;

/// Its key is the operation's id, or `<id>.<n>` for a resumption.
pub(crate) struct Export {
    pub(crate) worker: Worker,
}

/// An event that a run waits for.
enum Event {
    /// A segment has listed its part: the next one starts at this position.
    Listed(Position),
    Ended(u64, SegmentOutcome),
}

type Awaited<'ctx> = Pin<Box<dyn DurableFuture<Output = Result<Event, TerminalError>> + Send + 'ctx>>;

#[restate_sdk::workflow(client_visibility = "pub(crate)")]
impl Export {
    #[handler(ingress_private)]
    async fn run(&self, ctx: WorkflowContext<'_>, request: Json<RunRequest>) -> HandlerResult<()> {
        let Json(RunRequest { run, from, totals, plan }) = request;
        let operation = || ctx.object_client::<ExportOperationClient<'_>>(run.id.to_string());
        operation().begun(run.number).send();
        let announce_start = || async move { self.worker.announce_start(run).await };
        // Fails if the workflow was canceled, which the segments find out too.
        _ = ctx.run(announce_start).name("announce the start").await;
        ctx.service_client::<ExportSegmentClient<'_>>().estimate(Json(run)).send();

        let mut done = Commit { run: run.number, segments: 0, position: from.clone(), totals, ended: None };
        let mut next = (!from.done).then_some(from);
        let (mut begun, mut ended) = (0, 0);
        let mut in_progress = Vec::new();
        let mut prefix = OrderedPrefix::starting_at(0);
        let (mut stopped, mut is_stopping) = (None, false);
        let mut awaited = DurableFuturesUnordered::<Awaited<'_>>::new();
        loop {
            if !is_stopping
                && begun - ended < MAX_CONCURRENT_SEGMENTS
                && let Some(from) = next.take()
            {
                let (listed, is_listed) = ctx.awakeable::<Json<Position>>();
                let segment = begun;
                let request = SegmentRequest { run, segment, from: from.clone(), plan: plan.clone(), listed };
                let call = ctx.service_client::<ExportSegmentClient<'_>>().run(Json(request)).call();
                in_progress.push((segment, call.invocation_handle().await));
                awaited.push(Box::pin(is_listed.map_ok(|Json(position)| Event::Listed(position))));
                awaited.push(Box::pin(call.map(move |outcome| {
                    let outcome = outcome.map_or_else(|error| failed_segment(from, &error), Json::into_inner);
                    Ok(Event::Ended(segment, outcome))
                })));
                begun += 1;
            }
            if ended == begun {
                break;
            }
            match awaited.next().await {
                Ok(Some((_, Ok(Event::Listed(position))))) => next = (!position.done).then_some(position),
                Ok(Some((_, Ok(Event::Ended(segment, outcome))))) => {
                    ended += 1;
                    in_progress.retain(|(number, _)| *number != segment);
                    if outcome.stopped.is_some() && !is_stopping {
                        is_stopping = true;
                        // Later segments do not count, since a resumption starts before them.
                        for handle in in_progress.iter().filter(|(number, _)| *number > segment) {
                            if let Ok(handle) = &handle.1 {
                                handle.cancel();
                            }
                        }
                    }
                    prefix.insert(segment, outcome);
                    while stopped.is_none()
                        && let Some(outcome) = prefix.pop()
                    {
                        done.segments += 1;
                        done.totals.add(&outcome.totals);
                        done.position = outcome.end;
                        stopped = outcome.stopped;
                        operation().commit(Json(done.clone())).send();
                    }
                }
                // The segments are canceled with the workflow, and stop.
                Ok(Some((_, Err(error)))) | Err(error) => {
                    is_stopping = true;
                    tracing::debug!(code = error.code(), "stopping");
                }
                Ok(None) => break,
            }
        }
        if is_stopping && stopped.is_none() {
            stopped = Some(Stopped::Canceled);
        }

        let was_stopped = stopped.is_some();
        let finish = || async move { self.worker.finish(run, was_stopped).await.map(Json) };
        let mut finished = ctx.run(finish).name("finish").await;
        if finished.is_err() {
            // Canceled meanwhile, which is signaled once.
            finished = ctx.run(finish).name("finish").await;
        }
        let failed = match finished {
            Ok(Json(failed)) => failed,
            Err(error) => Some(Stopped::from_terminal(&error)),
        };
        done.ended = Some(run_end(stopped.or(failed)));
        let delete_secret = || async move {
            self.worker.delete_secret(run).await;
            Ok(())
        };
        _ = ctx.run(delete_secret).name("delete secret").await;
        if operation().commit(Json(done.clone())).call().await.is_err() {
            operation().commit(Json(done)).call().await?;
        }
        let announce_end = || async move { self.worker.announce_end(run).await };
        if ctx.run(announce_end).name("announce the end").await.is_err() {
            ctx.run(announce_end).name("announce the end").await?;
        }
        Ok(())
    }
}

fn run_end(stopped: Option<Stopped>) -> Ended {
    match stopped {
        None => Ended { status: OperationStatus::Completed, error: None },
        Some(Stopped::Canceled) => Ended { status: OperationStatus::Canceled, error: None },
        Some(Stopped::Failed(issue)) => Ended { status: OperationStatus::Failed, error: Some(issue) },
    }
}

/// The outcome of a segment whose attempts were used up: none of its batches count.
fn failed_segment(from: Position, error: &TerminalError) -> SegmentOutcome {
    SegmentOutcome { totals: Default::default(), end: from, stopped: Some(Stopped::from_terminal(error)) }
}
