//! What the log and the observer are told about an operation: accepted, started, resumed, ended.

use std::time::Duration;

use tokio::time::timeout;
use tracing::field::{Empty, display};
use tracing::{Span, info_span};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Checkpoint, ExportResults, Operation, OperationContext, OperationId, OperationIssue, OperationSpec,
    Timestamp,
};
use crate::pipeline::metrics;
use crate::pipeline::observer::{ExportObserver, Resumption};
use crate::pipeline::status::status_document;
use crate::service::OperationRecord;
use crate::sync::catch_panic;

/// How long the delivery of an end may take.
pub(crate) const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

const OBSERVER_PANICKED: &str = "the observer panicked";

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
    metrics::operation_accepted();
}

/// Logs that an operation begins to run, in the current span.
fn log_started(operation: &Operation, resumption: Option<Resumption>) {
    let ExportResults { exported, skipped, .. } = operation.results;
    let runner = operation.runner.as_deref();
    match resumption {
        None => tracing::info!(runner, "the operation started"),
        Some(Resumption::Requested) => tracing::info!(runner, exported, skipped, "the operation was resumed"),
        Some(Resumption::TakenOver) => {
            tracing::info!(runner, exported, skipped, "the operation was taken over");
        }
    }
}

/// Logs that an operation begins to run, in the current span, and tells the observer.
pub(crate) async fn announce_start(
    observer: Option<&dyn ExportObserver>,
    record: &OperationRecord,
    resumption: Option<Resumption>,
) {
    log_started(&record.operation, resumption);
    metrics::operation_started(resumption);
    notify(observer, async |observer| match resumption {
        None => observer.operation_started(record).await,
        Some(resumption) => observer.operation_resumed(record, resumption).await,
    })
    .await;
}

/// Logs that an operation was paused, and tells the observer.
pub(crate) async fn announce_pause(observer: Option<&dyn ExportObserver>, record: &OperationRecord) {
    let ExportResults { exported, skipped, .. } = record.operation.results;
    let operation = record.operation.operation_id;
    tracing::info!(%operation, exported, skipped, "the operation was paused");
    metrics::operation_paused();
    notify(observer, async |observer| observer.operation_paused(record).await).await;
}

/// Calls a method of the observer that returns nothing. A panic is logged.
pub(crate) async fn notify<'a, F: Future<Output = ()>>(
    observer: Option<&'a dyn ExportObserver>,
    call: impl FnOnce(&'a dyn ExportObserver) -> F,
) {
    let Some(observer) = observer else { return };
    let call = call(observer);
    let call = async {
        call.await;
        Ok(())
    };
    if catch_panic(call, OBSERVER_PANICKED).await.is_err() {
        tracing::error!("{OBSERVER_PANICKED}");
    }
}

/// Tells the observer that an operation has ended.
///
/// # Errors
/// The observer's; [`ErrorKind::Internal`] if it panics, [`ErrorKind::Unavailable`] if it takes too long.
pub(crate) async fn announce_end(observer: &dyn ExportObserver, record: &OperationRecord) -> Result<()> {
    let call = catch_panic(observer.operation_ended(record), OBSERVER_PANICKED);
    timeout(DELIVERY_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Unavailable, "the observer did not respond")))
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
    metrics::operation_ended(checkpoint.status);
}

/// Returns an operation as the host sees it.
pub(crate) fn record(id: OperationId, checkpoint: Checkpoint) -> OperationRecord {
    OperationRecord { operation: status_document(id, &checkpoint), context: checkpoint.context }
}
