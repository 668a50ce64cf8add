//! Scopes are listed while the transfers of earlier scopes are still running.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use async_trait::async_trait;
use dicom_export::source::{Instance, ListRequest, Page, Scope};
use dicom_export::{
    BlobSink, Concurrency, Content, DicomIdentifier, Error, ErrorKind, ExportEngine, ExportSource,
    InstanceSource, MemorySource, NewOperation, OperationStatus, Result, RetryPolicy,
};
use tokio::time::sleep;

use crate::support::{FaultySink, archive, assert_exported};

/// A source in which the first two listings of one identifier fail.
struct FlakyListing {
    inner: Arc<MemorySource>,
    identifier: DicomIdentifier,
    attempts: AtomicUsize,
}

#[async_trait]
impl InstanceSource for FlakyListing {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        if request.scope == Scope::Identifier(&self.identifier) && self.attempts.fetch_add(1, SeqCst) < 2 {
            return Err(Error::new(ErrorKind::Unavailable, "the archive is busy"));
        }
        // The other identifier is listed in the meantime.
        sleep(Duration::from_millis(1)).await;
        self.inner.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.inner.open(instance).await
    }
}

/// The second attempt used to wait until the transfers reached the identifier. By then the retry budget was exhausted, and
/// the operation failed.
#[tokio::test(start_paused = true)]
async fn a_failed_listing_is_retried_without_waiting_for_earlier_transfers() {
    let inner = Arc::new(archive(80));
    let identifiers: [DicomIdentifier; 2] = ["1.2.0".parse().unwrap(), "1.2.1".parse().unwrap()];
    let source = FlakyListing {
        inner: Arc::clone(&inner),
        identifier: identifiers[1].clone(),
        attempts: AtomicUsize::new(0),
    };
    let engine = ExportEngine::builder(source)
        .batch_size(4)
        .concurrency(Concurrency::Fixed(1))
        .retry(RetryPolicy::with_budget(Duration::from_secs(20)))
        .build()
        .unwrap();
    let sink = FaultySink::with_latency(Duration::from_secs(60));
    let target: Arc<dyn BlobSink> = Arc::new(sink.clone());
    let new = NewOperation::new(ExportSource::identifiers(identifiers).unwrap(), target);
    let started = engine.start(new).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 80), "{ended:?}");
    assert_eq!(assert_exported(&inner, &sink.inner, &ended).await, 80);
}
