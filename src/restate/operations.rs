//! The object `ExportOperation`: the state of an operation. Only it changes the state.

use bytes::Bytes;
use restate_sdk::prelude::*;
use tracing::Span;

use crate::error::Error;
use crate::model::Timestamp;
use crate::model::{OperationId, OperationStatus};
use crate::pipeline::{describe, log_ended, operation_span};
use crate::restate::messages::{
    Commit, Create, LISTED_KEY, OperationState, Reply, Report, Resume, Run, RunRequest, View,
};
use crate::restate::specs::ExportSpecClient;
use crate::restate::workflow::ExportClient;

/// The state key of the operation.
const STATE_KEY: &str = "operation";

/// An operation; the key is its id.
pub(crate) struct ExportOperation;

#[restate_sdk::object(client_visibility = "pub(crate)")]
impl ExportOperation {
    /// Creates the operation and starts its first run. A repeated call with the same spec does nothing.
    #[handler]
    async fn create(&self, ctx: ObjectContext<'_>, new: Json<Create>) -> HandlerResult<Json<Reply<View>>> {
        let Json(Create { checkpoint, destination, spec, plan }) = new;
        if let Some(existing) = load(&ctx).await? {
            return Ok(Json(match existing.spec == spec {
                true => Reply::Done(existing.view()),
                false => Reply::Conflict("an operation with this id already exists".to_owned()),
            }));
        }
        let created = checkpoint.created_time;
        let mut state = OperationState {
            checkpoint,
            destination,
            spec,
            plan,
            run: 0,
            invocation: String::new(),
            has_begun: false,
            segments: 0,
            in_progress: Default::default(),
        };
        ctx.set(LISTED_KEY, Bytes::from(format!("{created} {}", ctx.key())));
        start(&ctx, &mut state).await?;
        Ok(Json(Reply::Done(state.view())))
    }

    /// Returns the operation.
    #[handler]
    async fn view(&self, ctx: SharedObjectContext<'_>) -> HandlerResult<Json<Reply<View>>> {
        let state = ctx.get::<Json<OperationState>>(STATE_KEY).await?;
        Ok(Json(state.map_or(Reply::Unknown, |Json(state)| Reply::Done(state.view()))))
    }

    /// Records the request to cancel, which workers poll, and cancels the workflow, which then stops.
    #[handler]
    async fn cancel(&self, ctx: ObjectContext<'_>, is_abandoned: bool) -> HandlerResult<Json<Reply<()>>> {
        let Some(mut state) = load(&ctx).await? else { return Ok(Json(Reply::Unknown)) };
        if state.checkpoint.status.is_ended() {
            return Ok(Json(Reply::Conflict("the operation has ended".to_owned())));
        }
        if is_abandoned {
            // There is no workflow that could stop.
            state.checkpoint.cancel_requested = true;
            state.checkpoint.status = OperationStatus::Canceled;
            schedule_purge(&ctx, &state);
            span(&ctx, &state)?.in_scope(|| log_ended(&state.checkpoint));
            save(&ctx, state).await?;
        } else if !state.checkpoint.cancel_requested {
            // Only once: a second signal would interrupt the workflow while it stops.
            state.checkpoint.cancel_requested = true;
            ctx.invocation_handle(state.invocation.clone()).cancel();
            save(&ctx, state).await?;
        }
        Ok(Json(Reply::Done(())))
    }

    /// Starts another run from the stored position.
    #[handler]
    async fn resume(
        &self,
        ctx: ObjectContext<'_>,
        request: Json<Resume>,
    ) -> HandlerResult<Json<Reply<View>>> {
        let Json(Resume { reopened, run, is_abandoned }) = request;
        let Some(mut state) = load(&ctx).await? else { return Ok(Json(Reply::Unknown)) };
        let conflict = match state.checkpoint.status {
            OperationStatus::Completed | OperationStatus::Canceled => {
                Some("the operation has ended: there is nothing to resume")
            }
            _ if state.run != run => Some("the operation is running"),
            OperationStatus::Failed => None,
            _ if is_abandoned => None,
            _ => Some("the operation is running"),
        };
        if let Some(conflict) = conflict {
            return Ok(Json(Reply::Conflict(conflict.to_owned())));
        }
        state.run += 1;
        state.segments = 0;
        state.in_progress.clear();
        state.checkpoint.status = reopened.status;
        state.checkpoint.error = reopened.error;
        state.checkpoint.warnings = reopened.warnings;
        state.checkpoint.destination = reopened.destination;
        state.checkpoint.last_updated_time = now(&ctx).await?;
        start(&ctx, &mut state).await?;
        Ok(Json(Reply::Done(state.view())))
    }

    /// A run has started.
    #[handler(ingress_private)]
    async fn begun(&self, ctx: ObjectContext<'_>, run: u64) -> HandlerResult<()> {
        if let Some(mut state) = running(&ctx, run).await? {
            state.checkpoint.status = OperationStatus::Running;
            state.has_begun = true;
            save(&ctx, state).await?;
        }
        Ok(())
    }

    /// The source has estimated the number of instances.
    #[handler(ingress_private)]
    async fn estimated(&self, ctx: ObjectContext<'_>, estimate: Json<(u64, u64)>) -> HandlerResult<()> {
        let Json((run, instances)) = estimate;
        if let Some(mut state) = running(&ctx, run).await? {
            state.checkpoint.estimate = Some(instances);
            save(&ctx, state).await?;
        }
        Ok(())
    }

    /// A segment reports its progress. Reports may arrive late and out of order.
    #[handler(ingress_private)]
    async fn report(&self, ctx: ObjectContext<'_>, report: Json<Report>) -> HandlerResult<()> {
        let Json(Report { run, segment, batches, totals }) = report;
        let Some(mut state) = running(&ctx, run).await? else { return Ok(()) };
        let known = state.in_progress.get(&segment).map_or(0, |(batches, _)| *batches);
        if segment >= state.segments && batches > known {
            state.checkpoint.last_progress_time = Some(now(&ctx).await?);
            state.in_progress.insert(segment, (batches, totals));
            save(&ctx, state).await?;
        }
        Ok(())
    }

    /// The finished prefix has grown, or the run has ended.
    #[handler(ingress_private)]
    async fn commit(&self, ctx: ObjectContext<'_>, commit: Json<Commit>) -> HandlerResult<()> {
        let Json(Commit { run, segments, position, totals, ended }) = commit;
        let Some(mut state) = running(&ctx, run).await? else { return Ok(()) };
        if segments < state.segments {
            return Ok(());
        }
        state.segments = segments;
        state.in_progress = state.in_progress.split_off(&segments);
        if state.checkpoint.position != position {
            state.checkpoint.last_progress_time = Some(now(&ctx).await?);
        }
        (state.checkpoint.position, state.checkpoint.totals) = (position, totals);
        if let Some(ended) = ended {
            state.in_progress.clear();
            (state.checkpoint.status, state.checkpoint.error) = (ended.status, ended.error);
            schedule_purge(&ctx, &state);
            span(&ctx, &state)?.in_scope(|| log_ended(&state.checkpoint));
        }
        save(&ctx, state).await
    }

    /// Deletes the operation some time after a run's end, unless it was resumed since.
    #[handler(ingress_private)]
    async fn purge(&self, ctx: ObjectContext<'_>, run: u64) -> HandlerResult<()> {
        let Some(state) = load(&ctx).await? else { return Ok(()) };
        if state.run == run && state.checkpoint.status.is_ended() {
            for key in state.spec.keys(id_of(&ctx)?) {
                ctx.object_client::<ExportSpecClient<'_>>(key).clear().send();
            }
            ctx.clear_all();
        }
        Ok(())
    }

    /// Returns whether the operation refers to a spec.
    #[handler(ingress_private)]
    async fn refers_to(&self, ctx: SharedObjectContext<'_>, spec: String) -> HandlerResult<bool> {
        let state = ctx.get::<Json<OperationState>>(STATE_KEY).await?;
        Ok(state.is_some_and(|Json(state)| state.spec.name.to_string() == spec))
    }
}

/// # Errors
/// A terminal error if the key is not an operation id.
fn id_of(ctx: &ObjectContext<'_>) -> Result<OperationId, TerminalError> {
    ctx.key().parse().map_err(|error: Error| TerminalError::new_with_code(400, error.message()))
}

/// Returns the span for the log of an operation.
fn span(ctx: &ObjectContext<'_>, state: &OperationState) -> Result<Span, TerminalError> {
    let span = operation_span(id_of(ctx)?);
    let destination = state.checkpoint.destination.as_ref().unwrap_or(&state.destination);
    describe(&span, &state.checkpoint.context, Some(&destination.location));
    Ok(span)
}

async fn load(ctx: &ObjectContext<'_>) -> Result<Option<OperationState>, TerminalError> {
    Ok(ctx.get::<Json<OperationState>>(STATE_KEY).await?.map(Json::into_inner))
}

/// Returns the state if this run is the newest and has not ended.
async fn running(ctx: &ObjectContext<'_>, run: u64) -> Result<Option<OperationState>, TerminalError> {
    let state = load(ctx).await?;
    Ok(state.filter(|state| state.run == run && !state.checkpoint.status.is_ended()))
}

async fn save(ctx: &ObjectContext<'_>, mut state: OperationState) -> HandlerResult<()> {
    state.checkpoint.last_updated_time = now(ctx).await?;
    ctx.set(STATE_KEY, Json(state));
    Ok(())
}

/// The current time, from the journal: a replay must see the same time.
async fn now(ctx: &ObjectContext<'_>) -> HandlerResult<Timestamp> {
    Ok(ctx.run(|| async { Ok(Json(Timestamp::now())) }).name("now").await?.into_inner())
}

fn schedule_purge(ctx: &ObjectContext<'_>, state: &OperationState) {
    let this = ctx.object_client::<ExportOperationClient<'_>>(ctx.key());
    this.purge(state.run).send_after(state.plan.retention);
}

/// Stores the state, and starts the current run's workflow.
async fn start(ctx: &ObjectContext<'_>, state: &mut OperationState) -> HandlerResult<()> {
    state.invocation.clear();
    state.has_begun = false;
    // Before the workflow: a worker that reads the state of the previous run treats the new one as canceled.
    ctx.set(STATE_KEY, Json(state.clone()));
    let run = Run { id: id_of(ctx)?, number: state.run };
    let request = RunRequest {
        run,
        from: state.checkpoint.position.clone(),
        totals: state.checkpoint.totals.clone(),
        plan: state.plan.clone(),
    };
    let workflow = ctx.workflow_client::<ExportClient<'_>>(run.key()).run(Json(request)).send().await?;
    workflow.invocation_id().clone_into(&mut state.invocation);
    ctx.set(STATE_KEY, Json(state.clone()));
    Ok(())
}
