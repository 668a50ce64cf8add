//! The workflow `Export`: one run of an operation, from a position in its listing to its end.

use std::pin::Pin;

use restate_sdk::context::DurableFuture;
use restate_sdk::prelude::*;

use crate::engine::Prefix;
use crate::model::OperationStatus;
use crate::model::Position;
use crate::restate::operations::ExportOperationClient;
use crate::restate::segment::ExportSegmentClient;
use crate::restate::wire::{Commit, Ended, RunRequest, SegmentOutcome, SegmentRequest, Stopped};
use crate::restate::worker::Worker;

/// Segments under way at once: one that lists, and those before it whose last batches are not done yet.
const SEGMENTS: u64 = 4;

/// Runs under an operation's id; a resumption's under `<id>.<n>`.
pub(crate) struct Export {
    pub(crate) worker: Worker,
}

/// What a run waits for.
enum Event {
    /// A segment has listed its part: the next begins here.
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
        ctx.service_client::<ExportSegmentClient<'_>>().estimate(Json(run)).send();

        let mut done = Commit { run: run.number, segments: 0, position: from.clone(), totals, ended: None };
        let mut next = (!from.done).then_some(from);
        let (mut begun, mut ended) = (0, 0);
        let mut under_way = Vec::new();
        let mut prefix = Prefix::starting_at(0);
        let (mut stopped, mut is_halting) = (None, false);
        let mut awaited = DurableFuturesUnordered::<Awaited<'_>>::new();
        loop {
            if !is_halting
                && begun - ended < SEGMENTS
                && let Some(from) = next.take()
            {
                let (listed, is_listed) = ctx.awakeable::<Json<Position>>();
                let segment = begun;
                let request = SegmentRequest { run, segment, from: from.clone(), plan: plan.clone(), listed };
                let call = ctx.service_client::<ExportSegmentClient<'_>>().run(Json(request)).call();
                under_way.push((segment, call.invocation_handle().await));
                awaited.push(Box::pin(is_listed.map_ok(|Json(position)| Event::Listed(position))));
                awaited.push(Box::pin(call.map(move |outcome| {
                    let outcome = outcome.map_or_else(|error| lost(from, &error), Json::into_inner);
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
                    under_way.retain(|(number, _)| *number != segment);
                    if outcome.stopped.is_some() && !is_halting {
                        is_halting = true;
                        // What comes after it counts for nothing: a resumption begins before it.
                        for handle in under_way.iter().filter(|(number, _)| *number > segment) {
                            if let Ok(handle) = &handle.1 {
                                handle.cancel();
                            }
                        }
                    }
                    prefix.finish(segment, outcome);
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
                // The segments are canceled with the workflow, and wind down.
                Ok(Some((_, Err(error)))) | Err(error) => {
                    is_halting = true;
                    tracing::debug!(code = error.code(), "winding down");
                }
                Ok(None) => break,
            }
        }
        if is_halting && stopped.is_none() {
            stopped = Some(Stopped::Canceled);
        }

        let was_stopped = stopped.is_some();
        let finish = || async move { self.worker.finish(run, was_stopped).await.map(Json) };
        let mut finished = ctx.run(finish).name("finish").await;
        if finished.is_err() {
            // Canceled at the last moment: that comes once.
            finished = ctx.run(finish).name("finish").await;
        }
        let failed = match finished {
            Ok(Json(failed)) => failed,
            Err(error) => Some(Stopped::from_terminal(&error)),
        };
        done.ended = Some(ended_by(stopped.or(failed)));
        let forget = || async move {
            self.worker.forget(run).await;
            Ok(())
        };
        _ = ctx.run(forget).name("forget").await;
        if operation().commit(Json(done.clone())).call().await.is_err() {
            operation().commit(Json(done)).call().await?;
        }
        Ok(())
    }
}

fn ended_by(stopped: Option<Stopped>) -> Ended {
    match stopped {
        None => Ended { status: OperationStatus::Completed, error: None },
        Some(Stopped::Canceled) => Ended { status: OperationStatus::Canceled, error: None },
        Some(Stopped::Failed(note)) => Ended { status: OperationStatus::Failed, error: Some(note) },
    }
}

/// A segment that Restate gave up: nothing of it counts.
fn lost(from: Position, error: &TerminalError) -> SegmentOutcome {
    SegmentOutcome { totals: Default::default(), end: from, stopped: Some(Stopped::from_terminal(error)) }
}
