//! [`InstanceTransfer`]: one instance from the source to the destination: open → verify → put, or a copy.

use std::sync::Arc;

use futures::FutureExt;
use tokio::time::sleep;

use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Limiter, MemoryShare, RateLimit, Retrier, UploadContext};
use crate::model::{BlobPath, Instance};
use crate::pipeline::config::ExportConfig;
use crate::pipeline::copy::{Copier, CopyOutcome};
use crate::pipeline::length::{check_length, enforce_length};
use crate::pipeline::metrics::TransferMetrics;
use crate::pipeline::open::OpenedOperation;
use crate::pipeline::rates::ByteRates;
use crate::pipeline::retry::{AttemptTracker, RetryDecision};
use crate::pipeline::sides::Sides;
use crate::pipeline::source_health::SourceHealth;
use crate::pipeline::verify::{Checksums, VerificationReport, VerifyConfig};
use crate::sink::PutResult;
use crate::sync::catch_panic;

/// The memory that is reserved while an instance is opened whose size is not listed, in bytes: what arrives ahead of its
/// first read. The content usually states its length, which decides how much more is needed.
const OPENING_SIZE: u64 = 256 << 10;

/// Transfers the instances of one operation, many concurrently.
pub(crate) struct InstanceTransfer {
    operation: OpenedOperation,
    source_retry: Arc<Retrier>,
    sink_retry: Arc<Retrier>,
    /// Limits requests and instances towards the destination.
    limiter: Arc<Limiter>,
    rates: ByteRates,
    /// The operation's share of the memory budget.
    memory: MemoryShare,
    verify: VerifyConfig,
    metrics: Arc<TransferMetrics>,
    copier: Copier,
    health: SourceHealth,
}

/// The outcome of a transfer that does not fail the operation.
pub(crate) enum TransferOutcome {
    Exported(PutResult, Option<Box<VerificationReport>>),
    Skipped(Error),
}

/// The outcome of one attempt to stream an instance.
enum Attempt {
    Done(TransferOutcome),
    Failed(RetryDecision, Error),
}

impl InstanceTransfer {
    pub(crate) fn new(
        config: &ExportConfig,
        operation: &OpenedOperation,
        sides: &Sides,
        bytes: Arc<RateLimit>,
        metrics: Arc<TransferMetrics>,
    ) -> Self {
        let limiter = config.limiter(&operation.sink.throttle_key());
        Self {
            copier: Copier::new(operation.clone(), sides, Arc::clone(&limiter)),
            operation: operation.clone(),
            source_retry: Arc::clone(&sides.source),
            sink_retry: Arc::clone(&sides.destination),
            rates: ByteRates::new(bytes, config, &limiter),
            limiter,
            memory: config.memory.share(),
            verify: config.options.verify.clone(),
            metrics,
            health: SourceHealth::default(),
        }
    }

    /// Copies the instance, or opens and puts it, until it is stored, is skipped, or fails the operation. Waits for a
    /// concurrency permit first.
    ///
    /// # Errors
    /// Errors that fail the operation.
    ///
    /// # Cancellation
    /// Dropping the future leaves the whole blob or none.
    pub(crate) async fn transfer(&self, instance: &Instance) -> Result<TransferOutcome> {
        let _permit = self.limiter.acquire_instance().await;
        let timer = self.metrics.start();
        let outcome = self.transfer_now(instance).await;
        self.metrics.instance_finished(timer);
        outcome
    }

    async fn transfer_now(&self, instance: &Instance) -> Result<TransferOutcome> {
        let spec = &self.operation.spec;
        let path = BlobPath::instance(spec.id, instance.identifier());
        if spec.manifest || self.verify.requires_streaming() {
            return self.stream(instance, &path).await;
        }
        match self.copier.copy(instance, &path).await? {
            CopyOutcome::Copied(result) => {
                self.health.exported(instance, result.size);
                Ok(TransferOutcome::Exported(result, None))
            }
            CopyOutcome::NotTried => self.stream(instance, &path).await,
            CopyOutcome::Refused => {
                let outcome = self.stream(instance, &path).await?;
                if matches!(outcome, TransferOutcome::Exported(..)) {
                    self.copier.refused();
                }
                Ok(outcome)
            }
        }
    }

    /// Confirms that instances that were skipped since the last success are not refused by the source as a whole.
    ///
    /// # Errors
    /// Errors that fail the operation.
    pub(crate) async fn confirm_refusals(&self) -> Result<()> {
        self.health.confirm(&self.operation.source, &self.source_retry, &self.memory).await
    }

    /// Opens and puts the instance, with retries.
    async fn stream(&self, instance: &Instance, path: &BlobPath) -> Result<TransferOutcome> {
        let sink = &self.operation.sink;
        let mut attempts = AttemptTracker::default();
        let opening = || OPENING_SIZE.min(sink.buffer_size(None));
        let mut reserved = instance.size().map_or_else(opening, |size| sink.buffer_size(Some(size)));
        loop {
            let mut memory = self.memory.acquire(reserved).await;
            let opened = tokio::select! {
                biased;
                opened = self.open(instance, &mut attempts) => opened,
                // Another operation gets no memory because this one makes no progress.
                () = memory.revoked() => continue,
            };
            let attempt = match opened {
                Err(failed) => failed,
                Ok(content) => {
                    let needed =
                        instance.size().map_or_else(|| sink.buffer_size(content.length()), |_| reserved);
                    if needed > reserved {
                        reserved = needed;
                        drop(memory);
                        match self.memory.acquire(needed).now_or_never() {
                            Some(enough) => memory = enough,
                            // The source may not wait as long as the memory takes.
                            None => continue,
                        }
                    }
                    let buffer_limit = memory.bytes();
                    tokio::select! {
                        biased;
                        attempt = self.put(instance, path, content, buffer_limit, &mut attempts) => attempt?,
                        () = memory.revoked() => continue,
                    }
                }
            };
            // Not held during a pause.
            drop(memory);
            let (decision, error) = match attempt {
                Attempt::Done(outcome) => return Ok(outcome),
                Attempt::Failed(decision, error) => (decision, error),
            };
            match decision {
                RetryDecision::Retry(pause) => {
                    tracing::debug!(kind = error.kind().as_str(), ?pause, "retrying an instance");
                    sleep(pause).await;
                    if attempts.needs_probe(&self.source_retry) {
                        self.health.probe(&self.operation.source, &self.source_retry, &self.memory).await;
                    }
                }
                RetryDecision::Skip => {
                    // An instance may also be too large for the destination.
                    if !error.kind().is_transient() && error.kind() != ErrorKind::TooLarge {
                        self.health.refused(&error);
                    }
                    return Ok(TransferOutcome::Skipped(error));
                }
                RetryDecision::Fail => return Err(error),
            }
        }
    }

    /// Opens the instance once.
    ///
    /// # Errors
    /// The failed attempt.
    async fn open(&self, instance: &Instance, attempts: &mut AttemptTracker) -> Result<Content, Attempt> {
        match catch_panic(self.operation.source.open(instance), "the source panicked").await {
            Ok(content) => {
                self.source_retry.succeeded();
                Ok(content)
            }
            Err(error) => Err(Attempt::Failed(attempts.source_failed(&self.source_retry, &error), error)),
        }
    }

    /// Verifies and puts the content of the instance.
    async fn put(
        &self,
        instance: &Instance,
        path: &BlobPath,
        content: Content,
        buffer_limit: u64,
        attempts: &mut AttemptTracker,
    ) -> Result<Attempt> {
        let OpenedOperation { spec, source, sink } = &self.operation;
        let (content, source_error) = enforce_length(content, instance.size(), source.limit());
        let content = self.rates.limit(content).await;
        let length = content.length();
        let (content, verification) = match self.verify.begin(instance, content, spec.manifest).await {
            Ok(begun) => begun,
            Err(error) => return Ok(Attempt::Done(TransferOutcome::Skipped(error))),
        };
        let upload =
            UploadContext::shared(buffer_limit, Arc::clone(&self.sink_retry), Arc::clone(&self.limiter))
                .with_checksums(self.verify.checksums != Checksums::Off);
        let put = sink.put(path, content, &upload).await;
        match (source_error.take(), put) {
            (Some(error), _) => {
                Ok(Attempt::Failed(attempts.source_failed(&self.source_retry, &error), error))
            }
            (None, Ok(result)) => {
                self.sink_retry.succeeded();
                self.source_retry.completed();
                self.health.exported(instance, result.size);
                check_length(&result, length)?;
                let report = verification
                    .map(|verification| verification.finish(instance, path, &result))
                    .transpose()?;
                Ok(Attempt::Done(TransferOutcome::Exported(result, report.map(Box::new))))
            }
            (None, Err(error)) => {
                Ok(Attempt::Failed(attempts.destination_failed(&self.sink_retry, &error), error))
            }
        }
    }
}
