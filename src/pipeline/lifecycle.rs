//! What the log says about an operation: accepted, started, resumed, ended.

use tracing::field::{Empty, display};
use tracing::{Span, info_span};

use crate::error::Error;
use crate::model::{Checkpoint, OperationContext, OperationId, OperationIssue, OperationSpec, Timestamp};

/// Why an operation runs that has run before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resumption {
    /// Somebody asked for it.
    Requested,
    /// No runner held it any more.
    TakenOver,
}

/// Returns the span of everything that concerns an operation. [`describe`] sets the fields that are not known yet.
pub(crate) fn operation_span(id: OperationId) -> Span {
    info_span!("export", operation = %id, partition = Empty, caller = Empty, destination = Empty)
}

/// Sets the fields of the current operation's span: its partition, its caller, and the location of its destination.
pub(crate) fn describe(span: &Span, context: &OperationContext, location: Option<&str>) {
    if let Some(partition) = &context.partition {
        span.record("partition", display(partition));
    }
    if let Some(caller) = &context.caller {
        span.record("caller", display(caller));
    }
    if let Some(location) = location {
        // The log contains no path.
        let location = if location.starts_with("file:") { "file:" } else { location };
        span.record("destination", display(location));
    }
}

/// Logs that an operation was stored and will run.
pub(crate) fn log_accepted(spec: &OperationSpec) {
    let span = operation_span(spec.id);
    describe(&span, &spec.context, Some(&spec.destination.location));
    span.in_scope(|| tracing::info!("the operation was accepted"));
}

/// Logs that an operation begins to run, in the current span.
pub(crate) fn log_started(checkpoint: &Checkpoint, resumption: Option<Resumption>) {
    let totals = &checkpoint.totals;
    let (exported, skipped) = (totals.exported, totals.skipped);
    let runner = checkpoint.runner.as_deref();
    match resumption {
        None => tracing::info!(runner, "the operation started"),
        Some(Resumption::Requested) => tracing::info!(runner, exported, skipped, "the operation was resumed"),
        Some(Resumption::TakenOver) => {
            tracing::info!(runner, exported, skipped, "the operation was taken over");
        }
    }
}

/// Logs the error that fails an operation, with all its causes, and returns the part of it that is public.
pub(crate) fn log_failure(error: &Error) -> OperationIssue {
    tracing::warn!(kind = error.kind().as_str(), error = %error.report(), "the operation failed");
    OperationIssue::from(error)
}

/// Logs that an operation has ended, in the current span.
pub(crate) fn log_ended(checkpoint: &Checkpoint) {
    let totals = &checkpoint.totals;
    let duration = Timestamp::now().to_utc() - checkpoint.created_time.to_utc();
    tracing::info!(
        status = checkpoint.status.as_str(),
        exported = totals.exported,
        skipped = totals.skipped,
        bytes = totals.bytes,
        duration = ?duration.to_std().unwrap_or_default(),
        "the operation ended",
    );
}
