//! The object `ExportOperation`: what is known of an operation, and the only one that changes it.

use bytes::Bytes;
use restate_sdk::prelude::*;

use crate::error::Error;
use crate::model::Timestamp;
use crate::model::{OperationId, OperationStatus};
use crate::restate::specs::{self, ExportSpecClient};
use crate::restate::wire::{Answer, Commit, Create, Report, Resume, Run, RunRequest, State, View};
use crate::restate::workflow::ExportClient;

/// The key of its state that everything but a listing reads.
const STATE: &str = "operation";

/// The key of its state that a listing sorts by: the time it was accepted, and its id.
pub(crate) const LISTED: &str = "listed";

pub(crate) const SERVICE: &str = "ExportOperation";

/// An operation, by its id.
pub(crate) struct ExportOperation;

#[restate_sdk::object(client_visibility = "pub(crate)")]
impl ExportOperation {
    /// Accepts it and starts its first run. Again with the same spec: nothing happens.
    #[handler]
    async fn create(&self, ctx: ObjectContext<'_>, new: Json<Create>) -> HandlerResult<Json<Answer<View>>> {
        let Json(Create { checkpoint, destination, spec, plan }) = new;
        if let Some(there) = load(&ctx).await? {
            return Ok(Json(match there.spec == spec {
                true => Answer::Done(there.view()),
                false => Answer::Conflict("there is an operation of this id".to_owned()),
            }));
        }
        let created = checkpoint.created_time;
        let mut state = State {
            checkpoint,
            destination,
            spec,
            plan,
            run: 0,
            invocation: String::new(),
            segments: 0,
            under_way: Default::default(),
        };
        start(&ctx, &mut state).await?;
        ctx.set(LISTED, Bytes::from(format!("{created} {}", ctx.key())));
        let view = state.view();
        ctx.set(STATE, Json(state));
        Ok(Json(Answer::Done(view)))
    }

    #[handler]
    async fn view(&self, ctx: SharedObjectContext<'_>) -> HandlerResult<Json<Answer<View>>> {
        let state = ctx.get::<Json<State>>(STATE).await?;
        Ok(Json(state.map_or(Answer::Unknown, |Json(state)| Answer::Done(state.view()))))
    }

    /// Notes the wish to cancel, which workers look for, and cancels the workflow, which winds down.
    #[handler]
    async fn cancel(&self, ctx: ObjectContext<'_>, is_abandoned: bool) -> HandlerResult<Json<Answer<()>>> {
        let Some(mut state) = load(&ctx).await? else { return Ok(Json(Answer::Unknown)) };
        if state.checkpoint.status.is_ended() {
            return Ok(Json(Answer::Conflict("the operation has ended".to_owned())));
        }
        if is_abandoned {
            // Nobody is there to wind down.
            state.checkpoint.cancel_requested = true;
            state.checkpoint.status = OperationStatus::Canceled;
            forget_later(&ctx, &state);
            save(&ctx, state).await?;
        } else if !state.checkpoint.cancel_requested {
            // Once: a second signal would disturb the winding down.
            state.checkpoint.cancel_requested = true;
            ctx.invocation_handle(state.invocation.clone()).cancel();
            save(&ctx, state).await?;
        }
        Ok(Json(Answer::Done(())))
    }

    /// Starts another run, from the stored prefix.
    #[handler]
    async fn resume(&self, ctx: ObjectContext<'_>, wish: Json<Resume>) -> HandlerResult<Json<Answer<View>>> {
        let Json(Resume { reopened, run, is_abandoned }) = wish;
        let Some(mut state) = load(&ctx).await? else { return Ok(Json(Answer::Unknown)) };
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
            return Ok(Json(Answer::Conflict(conflict.to_owned())));
        }
        state.run += 1;
        state.segments = 0;
        state.under_way.clear();
        state.checkpoint.status = reopened.status;
        state.checkpoint.error = reopened.error;
        state.checkpoint.warnings = reopened.warnings;
        state.checkpoint.destination = reopened.destination;
        start(&ctx, &mut state).await?;
        let view = state.view();
        save(&ctx, state).await?;
        Ok(Json(Answer::Done(view)))
    }

    /// A run is on its way.
    #[handler(ingress_private)]
    async fn begun(&self, ctx: ObjectContext<'_>, run: u64) -> HandlerResult<()> {
        if let Some(mut state) = running(&ctx, run).await? {
            state.checkpoint.status = OperationStatus::Running;
            save(&ctx, state).await?;
        }
        Ok(())
    }

    /// How many instances there may be.
    #[handler(ingress_private)]
    async fn estimated(&self, ctx: ObjectContext<'_>, estimate: Json<(u64, u64)>) -> HandlerResult<()> {
        let Json((run, instances)) = estimate;
        if let Some(mut state) = running(&ctx, run).await? {
            state.checkpoint.estimate = Some(instances);
            save(&ctx, state).await?;
        }
        Ok(())
    }

    /// Reports may come late, and out of order.
    #[handler(ingress_private)]
    async fn report(&self, ctx: ObjectContext<'_>, report: Json<Report>) -> HandlerResult<()> {
        let Json(Report { run, segment, batches, totals }) = report;
        let Some(mut state) = running(&ctx, run).await? else { return Ok(()) };
        let known = state.under_way.get(&segment).map_or(0, |(batches, _)| *batches);
        if segment >= state.segments && batches > known {
            state.under_way.insert(segment, (batches, totals));
            save(&ctx, state).await?;
        }
        Ok(())
    }

    /// The prefix that is done has grown; or the run has ended.
    #[handler(ingress_private)]
    async fn commit(&self, ctx: ObjectContext<'_>, commit: Json<Commit>) -> HandlerResult<()> {
        let Json(Commit { run, segments, position, totals, ended }) = commit;
        let Some(mut state) = running(&ctx, run).await? else { return Ok(()) };
        if segments < state.segments {
            return Ok(());
        }
        state.segments = segments;
        state.under_way = state.under_way.split_off(&segments);
        (state.checkpoint.position, state.checkpoint.totals) = (position, totals);
        if let Some(ended) = ended {
            state.under_way.clear();
            (state.checkpoint.status, state.checkpoint.error) = (ended.status, ended.error);
            forget_later(&ctx, &state);
        }
        save(&ctx, state).await
    }

    /// Some time after a run's end: drops everything that is known, unless there was another run since.
    #[handler(ingress_private)]
    async fn forget(&self, ctx: ObjectContext<'_>, run: u64) -> HandlerResult<()> {
        let Some(state) = load(&ctx).await? else { return Ok(()) };
        if state.run == run && state.checkpoint.status.is_ended() {
            for key in specs::keys(id_of(&ctx)?, &state.spec) {
                ctx.object_client::<ExportSpecClient<'_>>(key).clear().send();
            }
            ctx.clear_all();
        }
        Ok(())
    }

    /// Whether this is its spec.
    #[handler(ingress_private)]
    async fn refers_to(&self, ctx: SharedObjectContext<'_>, spec: String) -> HandlerResult<bool> {
        let state = ctx.get::<Json<State>>(STATE).await?;
        Ok(state.is_some_and(|Json(state)| state.spec.name.to_string() == spec))
    }
}

/// # Errors
/// For good, when it is called by somebody who is no client.
fn id_of(ctx: &ObjectContext<'_>) -> Result<OperationId, TerminalError> {
    ctx.key().parse().map_err(|error: Error| TerminalError::new_with_code(400, error.message()))
}

async fn load(ctx: &ObjectContext<'_>) -> Result<Option<State>, TerminalError> {
    Ok(ctx.get::<Json<State>>(STATE).await?.map(Json::into_inner))
}

/// The state, if this run is the newest and has not ended.
async fn running(ctx: &ObjectContext<'_>, run: u64) -> Result<Option<State>, TerminalError> {
    let state = load(ctx).await?;
    Ok(state.filter(|state| state.run == run && !state.checkpoint.status.is_ended()))
}

async fn save(ctx: &ObjectContext<'_>, mut state: State) -> HandlerResult<()> {
    // A replay has to find the same time.
    let now = ctx.run(|| async { Ok(Json(Timestamp::now())) }).name("now").await?;
    state.checkpoint.last_updated_time = now.into_inner();
    ctx.set(STATE, Json(state));
    Ok(())
}

fn forget_later(ctx: &ObjectContext<'_>, state: &State) {
    let this = ctx.object_client::<ExportOperationClient<'_>>(ctx.key());
    this.forget(state.run).send_after(state.plan.retention);
}

/// Starts the run that the state is about, in a workflow of its own.
async fn start(ctx: &ObjectContext<'_>, state: &mut State) -> HandlerResult<()> {
    let run = Run { id: id_of(ctx)?, number: state.run };
    let request = RunRequest {
        run,
        from: state.checkpoint.position.clone(),
        totals: state.checkpoint.totals.clone(),
        plan: state.plan.clone(),
    };
    let workflow = ctx.workflow_client::<ExportClient<'_>>(run.key()).run(Json(request)).send().await?;
    workflow.invocation_id().clone_into(&mut state.invocation);
    Ok(())
}
