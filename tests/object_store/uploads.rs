//! Multipart uploads: none is left behind.

use std::sync::Arc;

use bytes::Bytes;
use dicom_export::testing::fixtures;
use dicom_export::{
    BlobPath, BlobSink, Content, Error, ErrorKind, ObjectStoreSink, OperationId, RetryPolicy, UploadContext,
};
use futures::future::FutureExt;
use futures::stream::{self, StreamExt};

use crate::hooked::{HookedStore, Request};

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
