//! [`Copier`]: has instances copied at the destination, as long as that works.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::time::sleep;

use crate::content::CopySource;
use crate::error::Result;
use crate::limits::{Limiter, Retrier, UploadContext};
use crate::model::{BlobPath, Instance};
use crate::pipeline::length::check_length;
use crate::pipeline::open::OpenedOperation;
use crate::pipeline::retry::{AttemptTracker, RetryDecision};
use crate::pipeline::sides::Sides;
use crate::sink::PutResult;

/// After this many consecutive instances that could be streamed but not copied, the run copies no more.
const MAX_REFUSALS: u32 = 3;

/// Copies instances from the source to the destination without reading them.
pub(crate) struct Copier {
    operation: OpenedOperation,
    source_retry: Arc<Retrier>,
    sink_retry: Arc<Retrier>,
    limiter: Arc<Limiter>,
    /// Consecutive instances that the destination refused to copy.
    refusals: AtomicU32,
}

/// The outcome of an attempt to copy an instance.
pub(crate) enum CopyOutcome {
    Copied(PutResult),
    /// No copy was offered, or none is tried any more: the instance is to be streamed.
    NotTried,
    /// The copy was refused: the instance is to be streamed.
    Refused,
}

impl Copier {
    pub(crate) fn new(operation: OpenedOperation, sides: &Sides, limiter: Arc<Limiter>) -> Self {
        Self {
            operation,
            source_retry: Arc::clone(&sides.source),
            sink_retry: Arc::clone(&sides.destination),
            limiter,
            refusals: AtomicU32::new(0),
        }
    }

    /// Lets the destination fetch the instance itself, if both sides can. It holds no bytes, so it needs no memory
    /// permit.
    ///
    /// # Errors
    /// Errors that fail the operation.
    pub(crate) async fn copy(&self, instance: &Instance, path: &BlobPath) -> Result<CopyOutcome> {
        let mut attempts = AttemptTracker::default();
        while self.refusals.load(Relaxed) < MAX_REFUSALS {
            let (decision, error) = match self.operation.source.copy_url(instance).await {
                Ok(None) => return Ok(CopyOutcome::NotTried),
                Err(error) if error.kind().is_transient() => {
                    (attempts.source_failed(&self.source_retry, &error), error)
                }
                Err(error) => {
                    tracing::debug!(kind = error.kind().as_str(), "the source offers no copy");
                    return Ok(CopyOutcome::Refused);
                }
                Ok(Some(source)) => match self.try_copy(path, &source).await {
                    Ok(Some(result)) => {
                        self.sink_retry.succeeded();
                        self.source_retry.completed();
                        self.refusals.store(0, Relaxed);
                        check_length(&result, Some(source.length()))?;
                        return Ok(CopyOutcome::Copied(result));
                    }
                    Ok(None) => return Ok(CopyOutcome::Refused),
                    Err(error) => (attempts.destination_failed(&self.sink_retry, &error), error),
                },
            };
            let RetryDecision::Retry(pause) = decision else { return Err(error) };
            tracing::debug!(kind = error.kind().as_str(), ?pause, "retrying a copy");
            sleep(pause).await;
        }
        Ok(CopyOutcome::NotTried)
    }

    /// Records an instance that was streamed after its copy had been refused. One that could not be streamed either does
    /// not count: a study that was deleted meanwhile says nothing about the next one.
    pub(crate) fn refused(&self) {
        if self.refusals.fetch_add(1, Relaxed) + 1 == MAX_REFUSALS {
            tracing::info!("the destination cannot copy from this source: instances are streamed");
        }
    }

    async fn try_copy(&self, path: &BlobPath, source: &CopySource) -> Result<Option<PutResult>> {
        let upload = UploadContext::shared(0, Arc::clone(&self.sink_retry), Arc::clone(&self.limiter));
        self.operation.sink.copy_from(path, source, &upload).await
    }
}
