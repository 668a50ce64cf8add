//! Copies at the destination: before an instance is streamed, and only as long as they work.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use tokio::time::sleep;

use crate::content::CopySource;
use crate::engine::transfer::{Transfers, check_length};
use crate::engine::verdict::{Trials, Verdict};
use crate::error::{Error, Result};
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::model::Instance;
use crate::sink::PutResult;

/// After so many instances in a row that could be streamed and not copied, the rest of the run is streamed.
const REFUSALS: u32 = 3;

/// Whether copying is worth another try in this run.
#[derive(Debug, Default)]
pub(crate) struct Copies {
    refused: AtomicU32,
}

impl Copies {
    fn are_tried(&self) -> bool {
        self.refused.load(Relaxed) < REFUSALS
    }

    fn passed(&self) {
        self.refused.store(0, Relaxed);
    }

    /// Notes an instance that was streamed after its copy had been refused. One that could not be streamed either
    /// counts for nothing: a study that was deleted meanwhile says nothing about the next.
    pub(crate) fn refused(&self) {
        if self.refused.fetch_add(1, Relaxed) + 1 == REFUSALS {
            tracing::info!("the destination does not copy from this source: instances are streamed");
        }
    }
}

/// What became of an instance before anything of it was opened.
pub(crate) enum Copied {
    Done(PutResult),
    /// To be streamed: no copy was offered, or none is tried any more.
    NotTried,
    /// To be streamed: the copy was refused.
    Refused,
}

impl Transfers {
    /// Lets the destination fetch the instance itself, if both sides can. It holds no bytes, so it takes none of the
    /// budget.
    ///
    /// # Errors
    /// Those that fail the operation.
    pub(crate) async fn copy(&self, instance: &Instance, path: &BlobPath) -> Result<Copied> {
        let mut trials = Trials::default();
        while self.copies.are_tried() {
            let (verdict, error) = match self.source.copy_url(instance).await {
                Ok(None) => return Ok(Copied::NotTried),
                Err(error) if error.kind().is_transient() => (trials.source(&self.reading, &error), error),
                Err(error) => return Ok(refused(&error)),
                Ok(Some(source)) => match self.copy_now(path, &source).await {
                    Ok(Some(stored)) => {
                        self.writing.succeeded();
                        self.reading.succeeded();
                        self.copies.passed();
                        check_length(&stored, Some(source.length()))?;
                        return Ok(Copied::Done(stored));
                    }
                    Ok(None) => return Ok(Copied::Refused),
                    Err(error) => (trials.destination(&self.writing, &error), error),
                },
            };
            let Verdict::Again(pause) = verdict else { return Err(error) };
            tracing::debug!(kind = error.kind().as_str(), ?pause, "copy repeated");
            sleep(pause).await;
        }
        Ok(Copied::NotTried)
    }

    async fn copy_now(&self, path: &BlobPath, source: &CopySource) -> Result<Option<PutResult>> {
        let upload = UploadContext::shared(0, Arc::clone(&self.writing), Arc::clone(&self.limiter));
        self.sink.copy_from(path, source, &upload).await
    }
}

fn refused(error: &Error) -> Copied {
    tracing::debug!(kind = error.kind().as_str(), "no copy is offered");
    Copied::Refused
}
