//! The operation's logs, `errors.log` and `manifest.jsonl`: [`LogBuffer`] and [`LogWriter`].

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::limits::Retrier;
use crate::model::{BlobPath, OperationSpec};
use crate::pipeline::open::OpenedOperation;
use crate::sink::{AppendLimits, LogKey};

/// Lines of `errors.log`, in bytes, that may wait for the next checkpoint; more bring the checkpoint forward.
const MAX_BUFFERED_ERRORS: usize = 1 << 20;

/// Lines of `manifest.jsonl`, in bytes, that may wait for the next checkpoint. The manifest has a line for each
/// instance, so its appends should be as large as most destinations allow (4 MiB), less what the batches that finish at
/// the same time may add.
const MAX_BUFFERED_MANIFEST: usize = 3 << 20;

/// Complete lines for an operation's logs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogBuffer {
    /// For `errors.log`.
    pub(crate) errors: String,
    /// For `manifest.jsonl`.
    #[serde(default, alias = "receipts", skip_serializing_if = "String::is_empty")]
    pub(crate) manifest: String,
}

impl LogBuffer {
    pub(crate) fn extend(&mut self, other: &Self) {
        self.errors.push_str(&other.errors);
        self.manifest.push_str(&other.manifest);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.manifest.is_empty()
    }

    /// Returns whether the lines should be written without waiting for the next checkpoint.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() > MAX_BUFFERED_ERRORS || self.manifest.len() > MAX_BUFFERED_MANIFEST
    }
}

/// Returns the logs of an operation.
pub(crate) fn log_paths(spec: &OperationSpec) -> impl Iterator<Item = BlobPath> + use<> {
    let manifest = spec.manifest.then(|| BlobPath::manifest(spec.id));
    [BlobPath::error_log(spec.id)].into_iter().chain(manifest)
}

/// Writes the logs of one operation.
pub(crate) struct LogWriter {
    operation: OpenedOperation,
    retry: Arc<Retrier>,
    limits: AppendLimits,
}

impl LogWriter {
    pub(crate) fn new(operation: &OpenedOperation, retry: Arc<Retrier>) -> Self {
        Self { limits: operation.sink.append_limits(), operation: operation.clone(), retry }
    }

    /// Makes lines durable, and removes those that are from the buffer: after a failure the rest can be tried again.
    ///
    /// # Errors
    /// Errors that fail the operation.
    ///
    /// # Retry and idempotence
    /// After a failure or a crash, lines may be in the log twice. None is lost.
    pub(crate) async fn append(&self, key: LogKey, lines: &mut LogBuffer) -> Result<()> {
        let id = self.operation.spec.id;
        let logs =
            [(BlobPath::error_log(id), &mut lines.errors), (BlobPath::manifest(id), &mut lines.manifest)];
        for (log, lines) in logs {
            if !lines.is_empty() {
                let bytes = Bytes::copy_from_slice(lines.as_bytes());
                self.retry.run(|| self.operation.sink.append(&log, key, bytes.clone())).await?;
                lines.clear();
            }
        }
        Ok(())
    }

    /// The step `finish`: completes the logs.
    ///
    /// # Errors
    /// Errors that fail the operation.
    pub(crate) async fn finish(&self) -> Result<()> {
        for log in log_paths(&self.operation.spec) {
            self.retry.run(|| self.operation.sink.finish(&log)).await?;
        }
        Ok(())
    }

    /// Returns the number of requests that appending these lines takes, for the log that takes more.
    pub(crate) fn appends(&self, lines: &LogBuffer) -> u32 {
        let longest = lines.errors.len().max(lines.manifest.len()) as u64;
        u32::try_from(longest.div_ceil(self.limits.max_bytes.max(1))).unwrap_or(u32::MAX)
    }

    /// Returns the factor by which the checkpoint interval grows after `appends` appends in one run, so that a log with
    /// a limited number of appends is not used up: it doubles after each tenth of the limit.
    pub(crate) fn interval_factor(&self, appends: u32) -> u32 {
        match self.limits.max_appends {
            Some(max) => 1 << (appends / (max / 10).max(1)).min(9),
            None => 1,
        }
    }
}
