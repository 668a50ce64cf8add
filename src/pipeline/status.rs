//! [`status_document`]: from a checkpoint to the status document.

use crate::model::Checkpoint;
use crate::model::{ExportResults, Operation, OperationId, OperationIssue, OperationStatus, OperationType};

/// Returns the status document of an operation.
pub(crate) fn status_document(id: OperationId, checkpoint: &Checkpoint) -> Operation {
    let totals = &checkpoint.totals;
    let listed = totals
        .warnings
        .iter()
        .map(|(code, (message, count))| OperationIssue::new(code, format!("{message}: {count}")));
    Operation {
        operation_id: id,
        r#type: OperationType::Export,
        created_time: checkpoint.created_time,
        last_updated_time: checkpoint.last_updated_time,
        last_progress_time: checkpoint.last_progress_time,
        bytes: totals.bytes,
        runner: checkpoint.runner.clone(),
        status: checkpoint.status,
        results: ExportResults {
            error_href: checkpoint.error_href.clone(),
            exported: totals.exported,
            skipped: totals.skipped,
        },
        bytes_per_second: checkpoint.bytes_per_second,
        percent_complete: percent_complete(checkpoint),
        error: checkpoint.error.clone(),
        warnings: checkpoint.warnings.iter().cloned().chain(listed).collect(),
    }
}

/// Returns the percentage of the estimate. The estimate may be too low, so 100 means that the operation completed.
fn percent_complete(checkpoint: &Checkpoint) -> Option<u8> {
    let estimate = checkpoint.estimate?;
    if checkpoint.status == OperationStatus::Completed {
        return Some(100);
    }
    let done = checkpoint.totals.exported + checkpoint.totals.skipped;
    let percent = u128::from(done) * 100 / u128::from(estimate.max(1));
    Some(percent.min(99) as u8)
}
