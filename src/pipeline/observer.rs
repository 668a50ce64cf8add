//! [`ExportObserver`]: lets the host follow exports, for audit records, notifications and metrics.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{ErrorKind, Result};
use crate::limits::Side;
use crate::model::{ErrorLogEntry, InstanceIdentifier, OperationContext, OperationId, OperationSpec};
use crate::service::OperationRecord;
use crate::sink::PutResult;

/// Is called when something happens to an operation. Every method has a default implementation that does nothing.
///
/// # Cancellation
/// A call is dropped if the operation is canceled or the engine is shut down meanwhile. A panic is logged and ignored in
/// methods without a result, and is an error in the others.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use dicom_export::{BatchDone, ExportEngine, ExportObserver, MemorySource, OperationRecord, Result};
///
/// #[derive(Default)]
/// struct Audit {
///     exported: AtomicUsize,
/// }
///
/// #[async_trait::async_trait]
/// impl ExportObserver for Audit {
///     async fn batch_done(&self, batch: BatchDone<'_>) -> Result<()> {
///         self.exported.fetch_add(batch.exported.len(), Ordering::Relaxed);
///         Ok(())
///     }
///
///     async fn operation_ended(&self, record: &OperationRecord) -> Result<()> {
///         println!("{} is {}", record.operation.operation_id, record.operation.status);
///         Ok(())
///     }
/// }
///
/// let engine = ExportEngine::builder(MemorySource::new()).observer(Audit::default()).build()?;
/// # Ok::<(), dicom_export::Error>(())
/// ```
#[async_trait]
pub trait ExportObserver: Send + Sync + 'static {
    /// Is called when the instances of a batch are in the container, or are about to be logged as skipped.
    ///
    /// It is called at least once for each batch, before the operation's checkpoint moves past the batch, and again when a
    /// batch is repeated after a crash. Batches are reported in any order, several concurrently.
    ///
    /// # Errors
    /// [`Throttled`](crate::ErrorKind::Throttled) and [`Unavailable`](crate::ErrorKind::Unavailable) are retried within
    /// the retry budget. Any other error fails the operation, which can be resumed.
    async fn batch_done(&self, _batch: BatchDone<'_>) -> Result<()> {
        Ok(())
    }

    /// Is called when an operation runs for the first time. The export waits until the call returns.
    async fn operation_started(&self, _record: &OperationRecord) {}

    /// Is called when an operation has been paused.
    async fn operation_paused(&self, _record: &OperationRecord) {}

    /// Is called when an operation runs again after a failure, a pause, a restart or a takeover. The export waits until the call
    /// returns.
    async fn operation_resumed(&self, _record: &OperationRecord, _resumption: Resumption) {}

    /// Is called when an operation has ended. The record has the final status and counts.
    ///
    /// It is called at least once for each end. That it is still to be called is stored with the end, so that an end whose
    /// call failed, or whose process was killed, is delivered by any engine that shares the store, including the same one
    /// after its restart. Exceptions: an operation that failed and is resumed before its end was delivered has not ended
    /// any more, and an operation that is deleted after its retention is forgotten.
    ///
    /// # Errors
    /// After any error the call is repeated when an engine next looks for operations to take over: after
    /// [`takeover_interval`](crate::ExportEngineBuilder::takeover_interval). A call that takes longer than 30 seconds is
    /// dropped, and repeated too.
    async fn operation_ended(&self, _record: &OperationRecord) -> Result<()> {
        Ok(())
    }

    /// Is called when a side of an operation has failed for 30 seconds without a success, and again when the time has
    /// doubled, as long as the operation runs. It is called at most once for each time.
    async fn side_failing(&self, _failing: SideFailing<'_>) {}

    /// Is called when a side works again for which [`side_failing`](Self::side_failing) was called.
    async fn side_recovered(&self, _recovered: SideRecovered<'_>) {}
}

macro_rules! delegate {
    ($pointer:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<O: ExportObserver + ?Sized> ExportObserver for $pointer<O> {
            async fn batch_done(&self, batch: BatchDone<'_>) -> Result<()> {
                (**self).batch_done(batch).await
            }

            async fn operation_started(&self, record: &OperationRecord) {
                (**self).operation_started(record).await;
            }

            async fn operation_paused(&self, record: &OperationRecord) {
                (**self).operation_paused(record).await;
            }

            async fn operation_resumed(&self, record: &OperationRecord, resumption: Resumption) {
                (**self).operation_resumed(record, resumption).await;
            }

            async fn operation_ended(&self, record: &OperationRecord) -> Result<()> {
                (**self).operation_ended(record).await
            }

            async fn side_failing(&self, failing: SideFailing<'_>) {
                (**self).side_failing(failing).await;
            }

            async fn side_recovered(&self, recovered: SideRecovered<'_>) {
                (**self).side_recovered(recovered).await;
            }
        }
    };
}

delegate!(Arc);
delegate!(Box);

/// A batch that is done.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct BatchDone<'a> {
    /// The operation.
    pub operation: &'a OperationSpec,
    /// The batch's number, from 0. A batch that is repeated after a crash may contain other instances.
    pub number: u64,
    /// The instances that are in the container.
    pub exported: &'a [(InstanceIdentifier, PutResult)],
    /// The entries for `errors.log`.
    pub skipped: &'a [ErrorLogEntry],
}

/// Why an operation runs again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resumption {
    /// It was resumed by a call.
    Requested,
    /// It had not ended, and no runner held it any more.
    TakenOver,
}

/// A side of an operation that fails without a success in between.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SideFailing<'a> {
    /// The operation.
    pub operation_id: OperationId,
    /// What the host stored with the operation.
    pub context: &'a OperationContext,
    /// The side.
    pub side: Side,
    /// The kind of the latest failure.
    pub kind: ErrorKind,
    /// The message of the latest failure and those of its causes, as [`Error::report`](crate::Error::report) returns them.
    pub error: &'a str,
    /// The time since the first failure.
    pub failing_for: Duration,
    /// The number of failures in this time.
    pub failures: u64,
    /// How long the side may still fail before the operation does.
    pub budget_left: Duration,
}

/// A side of an operation that works again.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SideRecovered<'a> {
    /// The operation.
    pub operation_id: OperationId,
    /// What the host stored with the operation.
    pub context: &'a OperationContext,
    /// The side.
    pub side: Side,
    /// The time that the side failed for, to within a second.
    pub failed_for: Duration,
}
