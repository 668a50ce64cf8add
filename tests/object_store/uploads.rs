//! Multipart uploads: none is left behind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{Instance, ListRequest, Page};
use dicom_export::testing::fixtures;
use dicom_export::{
    BlobPath, BlobSink, Content, Error, ErrorKind, ExportEngine, ExportSource, InstanceSource, NewOperation,
    ObjectStoreSink, OperationId, OperationStatus, RetryPolicy, UploadContext,
};
use futures::future::FutureExt;
use futures::stream::{self, StreamExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::hooked::{HookedStore, Request};
use crate::responder::{Reply, Responder};
use crate::statuses::s3_store;

const PART: usize = 5 << 20;

fn sink(store: &HookedStore) -> ObjectStoreSink {
    ObjectStoreSink::new(Arc::new(store.clone()), "https://bucket.example")
}

fn path() -> BlobPath {
    BlobPath::instance(OperationId::random(), &fixtures::instance(1, 1, 1))
}

fn context() -> UploadContext {
    UploadContext::new(4 * PART as u64, RetryPolicy::none(), 8)
}

/// `parts` chunks of the size of a part, and then `end`.
fn content(
    parts: usize,
    end: impl futures::Stream<Item = dicom_export::Result<Bytes>> + Send + 'static,
) -> Content {
    let chunks = stream::iter((0..parts).map(|_| Ok(Bytes::from(vec![7; PART]))));
    Content::from_stream(None, chunks.chain(end))
}

#[tokio::test]
async fn a_failed_put_aborts_its_upload() {
    let store = HookedStore::new(|_, _| async { Ok(()) }.boxed());
    let failing = stream::iter([Err(Error::new(ErrorKind::Unreadable, "planned failure"))]);
    sink(&store).put(&path(), content(3, failing), &context()).await.unwrap_err();
    assert_eq!(store.pending_uploads(), 0);

    let store = HookedStore::new(|request, _| {
        let refused = object_store::Error::Generic { store: "test", source: "planned failure".into() };
        async move { if request == Request::Complete { Err(refused) } else { Ok(()) } }.boxed()
    });
    sink(&store).put(&path(), content(3, stream::empty()), &context()).await.unwrap_err();
    assert_eq!(store.pending_uploads(), 0);
}

/// A store that signals when an upload is aborted.
fn signaling_store() -> (HookedStore, Arc<Semaphore>) {
    let aborted = Arc::new(Semaphore::new(0));
    let signal = Arc::clone(&aborted);
    let store = HookedStore::new(move |request, _| {
        if request == Request::Abort {
            signal.add_permits(1);
        }
        async { Ok(()) }.boxed()
    });
    (store, aborted)
}

/// Waits until no upload is left; each abort is signaled just before it happens.
async fn wait_until_aborted(store: &HookedStore, aborted: &Semaphore) {
    timeout(Duration::from_secs(30), aborted.acquire())
        .await
        .expect("no upload is aborted")
        .unwrap()
        .forget();
    while store.pending_uploads() > 0 {
        tokio::task::yield_now().await;
    }
}

/// A canceled put left its upload at the store, where its parts cost money until somebody deletes them.
#[tokio::test]
async fn guarantee_8_a_dropped_put_aborts_its_upload() {
    let (store, aborted) = signaling_store();
    let (sent, is_sent) = tokio::sync::oneshot::channel();
    let endless = stream::once(async {
        let _ = sent.send(());
        std::future::pending().await
    });
    let (sink, path, context) = (sink(&store), path(), context());
    tokio::select! {
        outcome = sink.put(&path, content(3, endless), &context) => panic!("put returned: {outcome:?}"),
        sent = is_sent => sent.unwrap(),
    }
    assert_eq!(store.pending_uploads(), 1);
    wait_until_aborted(&store, &aborted).await;
}

/// The store creates an upload although the future of the request is dropped, so the response must still be received.
#[tokio::test]
async fn a_put_that_is_dropped_while_it_creates_its_upload_aborts_it() {
    let (base, aborted) = signaling_store();
    let (gate, reached) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (held, arrived, signal) = (Arc::clone(&gate), Arc::clone(&reached), Arc::clone(&aborted));
    let store = base.with_hook(move |request, _| {
        let (held, arrived, signal) = (Arc::clone(&held), Arc::clone(&arrived), Arc::clone(&signal));
        async move {
            match request {
                Request::CreateUpload => {
                    arrived.add_permits(1);
                    held.acquire().await.unwrap().forget();
                }
                Request::Abort => signal.add_permits(1),
                _ => {}
            }
            Ok(())
        }
        .boxed()
    });
    let (sink, path, context) = (sink(&store), path(), context());
    tokio::select! {
        outcome = sink.put(&path, content(3, stream::empty()), &context) => panic!("put returned: {outcome:?}"),
        permit = reached.acquire() => permit.unwrap().forget(),
    }
    gate.add_permits(1);
    wait_until_aborted(&store, &aborted).await;
}

/// The store that refuses a put may refuse the abort too.
#[tokio::test(start_paused = true)]
async fn a_failed_abort_is_retried() {
    let refusals = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refusals);
    let store = HookedStore::new(move |request, _| {
        let refuse = match request {
            Request::PutPart => true,
            Request::Abort => count.fetch_add(1, Ordering::SeqCst) < 3,
            _ => false,
        };
        let refused = object_store::Error::Generic { store: "test", source: "planned failure".into() };
        async move { if refuse { Err(refused) } else { Ok(()) } }.boxed()
    });
    sink(&store).put(&path(), content(3, stream::empty()), &context()).await.unwrap_err();
    // The clock is paused, so that the pauses between the attempts pass at once.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((store.pending_uploads(), refusals.load(Ordering::SeqCst)), (0, 4));
}

#[tokio::test]
async fn guarantee_8_a_canceled_export_leaves_no_upload() {
    let (store, aborted) = signaling_store();
    let started = Arc::new(Semaphore::new(0));
    let engine = ExportEngine::builder(Endless(Arc::clone(&started))).build().unwrap();
    let target: Arc<dyn BlobSink> = Arc::new(sink(&store));
    let operation = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap();
    started.acquire().await.unwrap().forget();
    engine.cancel(operation.operation_id).await.unwrap();
    wait_until_aborted(&store, &aborted).await;
    assert_eq!(engine.wait(operation.operation_id).await.unwrap().status, OperationStatus::Canceled);
}

/// One instance whose content never ends; it signals when it has yielded two parts.
struct Endless(Arc<Semaphore>);

#[async_trait]
impl InstanceSource for Endless {
    async fn list(&self, _: ListRequest<'_>) -> dicom_export::Result<Page> {
        Ok(Page::last(vec![Instance::new(fixtures::instance(1, 1, 1))]))
    }

    async fn open(&self, _: &Instance) -> dicom_export::Result<Content> {
        let started = Arc::clone(&self.0);
        let pending = stream::once(async move {
            started.add_permits(1);
            std::future::pending().await
        });
        Ok(content(2, pending))
    }
}

/// An S3 server that refuses each part once.
#[tokio::test]
async fn a_failed_part_is_sent_again_without_the_others() {
    let parts: Arc<Mutex<Vec<(String, u16)>>> = Arc::default();
    let sent = Arc::clone(&parts);
    let server = Responder::start(move |request| {
        let query = |name: &str| request.query.get(name).cloned();
        if query("uploads").is_some() {
            let id = "<UploadId>id</UploadId>";
            return Reply::status(200)
                .body(format!("<InitiateMultipartUploadResult>{id}</InitiateMultipartUploadResult>"));
        }
        let Some(number) = query("partNumber") else {
            let result =
                "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>";
            return Reply::status(200).body(result);
        };
        let mut sent = sent.lock().unwrap();
        let status = if sent.iter().any(|(earlier, _)| *earlier == number) { 200 } else { 503 };
        sent.push((number, status));
        Reply::status(status).header("etag", "\"part\"")
    })
    .await;
    let sink = ObjectStoreSink::new(s3_store(&server), &server.url());
    let retry =
        RetryPolicy::with_budget(Duration::from_secs(60)).with_initial_backoff(Duration::from_millis(1));
    let context = UploadContext::new(4 * PART as u64, retry, 8);
    let result = sink.put(&path(), content(3, stream::empty()), &context).await.unwrap();
    assert_eq!(result.size, 3 * PART as u64);
    let mut sent = parts.lock().unwrap().clone();
    sent.sort();
    let twice = |number: &str| [(number.to_owned(), 200), (number.to_owned(), 503)];
    assert_eq!(sent, ["1", "2", "3"].map(twice).concat());

    // Without a budget, the put fails.
    parts.lock().unwrap().clear();
    let context = UploadContext::new(4 * PART as u64, RetryPolicy::none(), 8);
    let error = sink.put(&path(), content(3, stream::empty()), &context).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
