//! [`ExportObserver`]: audit records and metrics for the host.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::ErrorLogEntry;
use crate::model::InstanceIdentifier;
use crate::model::OperationSpec;
use crate::sink::PutResult;

/// Told of every batch.
#[async_trait]
pub trait ExportObserver: Send + Sync + 'static {
    /// A batch is done: its instances are in the container or about to be logged. It comes at least once for each
    /// batch, before the operation's checkpoint passes it, and again when a crash repeats the batch; batches come in
    /// any order, several at once.
    ///
    /// # Errors
    /// [`Throttled`](crate::ErrorKind::Throttled) and [`Unavailable`](crate::ErrorKind::Unavailable) are repeated
    /// within the retry budget; any other fails the operation, which can be resumed.
    async fn batch_done(&self, batch: BatchDone<'_>) -> Result<()>;
}

#[async_trait]
impl<O: ExportObserver + ?Sized> ExportObserver for Arc<O> {
    async fn batch_done(&self, batch: BatchDone<'_>) -> Result<()> {
        (**self).batch_done(batch).await
    }
}

/// What became of a batch.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BatchDone<'a> {
    /// The operation.
    pub operation: &'a OperationSpec,
    /// The batch's number, from 0; a repeated batch may hold other instances than before.
    pub number: u64,
    /// What is in the container now.
    pub exported: &'a [(InstanceIdentifier, PutResult)],
    /// What is not.
    pub skipped: &'a [ErrorLogEntry],
}
