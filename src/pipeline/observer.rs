//! [`ExportObserver`]: lets the host follow exports, for audit records and metrics.

use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::{ErrorLogEntry, InstanceIdentifier, OperationSpec};
use crate::sink::PutResult;

/// Is called after each batch.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// use dicom_export::{BatchDone, ExportEngine, ExportObserver, MemorySource, Result};
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
    async fn batch_done(&self, batch: BatchDone<'_>) -> Result<()>;
}

macro_rules! delegate {
    ($pointer:ident) => {
        #[async_trait]
        impl<O: ExportObserver + ?Sized> ExportObserver for $pointer<O> {
            async fn batch_done(&self, batch: BatchDone<'_>) -> Result<()> {
                (**self).batch_done(batch).await
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
