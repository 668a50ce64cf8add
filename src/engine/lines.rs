//! [`Lines`]: what batches leave for an operation's logs, and how it gets there.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::engine::transfer::Transfers;
use crate::error::Result;
use crate::model::BlobPath;
use crate::model::OperationSpec;
use crate::sink::LogKey;

/// Lines of `errors.log` that wait for the next checkpoint at most; more of them bring it forward.
const MAX_ERROR_BYTES: usize = 1 << 20;

/// The same for `manifest.jsonl`, which gets a line an instance: as large as one append takes on Azure (4 MiB), less
/// what the batches that finish at once may add. So its 50,000 appends hold some 150 GB.
const MAX_MANIFEST_BYTES: usize = 3 << 20;

/// How much goes into one append: see `sink/azure/append.rs`.
const APPEND: usize = 4 << 20;

/// Whole lines for an operation's logs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Lines {
    /// For `errors.log`.
    pub(crate) errors: String,
    /// For `manifest.jsonl`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) manifest: String,
}

impl Lines {
    pub(crate) fn add(&mut self, more: &Self) {
        self.errors.push_str(&more.errors);
        self.manifest.push_str(&more.manifest);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.manifest.is_empty()
    }

    /// Whether they are too many to wait for longer.
    pub(crate) fn are_many(&self) -> bool {
        self.errors.len() > MAX_ERROR_BYTES || self.manifest.len() > MAX_MANIFEST_BYTES
    }

    /// How many appends they take: of the log that takes more.
    pub(crate) fn appends(&self) -> u32 {
        let longest = self.errors.len().max(self.manifest.len());
        u32::try_from(longest.div_ceil(APPEND)).unwrap_or(u32::MAX)
    }
}

/// The logs of an operation.
pub(crate) fn logs(operation: &OperationSpec) -> impl Iterator<Item = BlobPath> + use<> {
    let manifest = operation.manifest.then(|| BlobPath::manifest(operation.id));
    [BlobPath::error_log(operation.id)].into_iter().chain(manifest)
}

impl Transfers {
    /// Makes lines durable, and takes away those that are: after a failure the rest can be tried again.
    ///
    /// # Errors
    /// Those that fail the operation.
    ///
    /// # Retry and idempotence
    /// Lines may be there twice after a failure or a crash; none is lost.
    pub(crate) async fn append(&self, key: LogKey, lines: &mut Lines) -> Result<()> {
        let id = self.operation.id;
        let logs =
            [(BlobPath::error_log(id), &mut lines.errors), (BlobPath::manifest(id), &mut lines.manifest)];
        for (log, lines) in logs {
            if !lines.is_empty() {
                let bytes = Bytes::copy_from_slice(lines.as_bytes());
                self.writing.run(|| self.sink.append(&log, key, bytes.clone())).await?;
                lines.clear();
            }
        }
        Ok(())
    }

    /// The `finish` step: the logs are made whole.
    ///
    /// # Errors
    /// Those that fail the operation.
    pub(crate) async fn finish(&self) -> Result<()> {
        for log in logs(&self.operation) {
            self.writing.run(|| self.sink.finish(&log)).await?;
        }
        Ok(())
    }
}
