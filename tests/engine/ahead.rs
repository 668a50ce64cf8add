//! Scopes that are listed ahead of the transfers.

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

/// What lies under one identifier can be listed at the third try.
struct Flaky {
    inner: Arc<MemorySource>,
    identifier: DicomIdentifier,
    tries: AtomicUsize,
}

#[async_trait]
impl InstanceSource for Flaky {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        if request.scope == Scope::Identifier(&self.identifier) && self.tries.fetch_add(1, SeqCst) < 2 {
            return Err(Error::new(ErrorKind::Unavailable, "not now"));
        }
        // Long enough for the other to be looked up meanwhile.
        sleep(Duration::from_millis(1)).await;
        self.inner.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.inner.open(instance).await
    }
}

/// The second of two failures once came when the transfers had got as far as that identifier, and that was longer after
/// the first than anything is repeated for: the operation failed.
#[tokio::test(start_paused = true)]
async fn a_listing_is_repeated_in_time_however_long_the_transfers_before_it_take() {
    let inner = Arc::new(archive(80));
    let identifiers: [DicomIdentifier; 2] = ["1.2.0".parse().unwrap(), "1.2.1".parse().unwrap()];
    let source =
        Flaky { inner: Arc::clone(&inner), identifier: identifiers[1].clone(), tries: AtomicUsize::new(0) };
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
