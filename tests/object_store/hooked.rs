//! [`HookedStore`]: a store that calls a function before each request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// A kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    Put,
    CreateUpload,
    PutPart,
    Complete,
    Abort,
    Get,
    Delete,
    List,
}

type Hook = dyn Fn(Request, &Path) -> BoxFuture<'static, Result<()>> + Send + Sync;

/// A store in memory that calls a hook before each request and fails with the hook's error. It counts the multipart
/// uploads that are neither completed nor aborted.
#[derive(Clone)]
pub(crate) struct HookedStore {
    pub(crate) inner: Arc<InMemory>,
    hook: Arc<Hook>,
    pending_uploads: Arc<AtomicUsize>,
    read_limit: Option<usize>,
}

impl HookedStore {
    pub(crate) fn new(
        hook: impl Fn(Request, &Path) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: Arc::default(),
            hook: Arc::new(hook),
            pending_uploads: Arc::default(),
            read_limit: None,
        }
    }

    /// The same objects with another hook.
    pub(crate) fn with_hook(
        &self,
        hook: impl Fn(Request, &Path) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self { hook: Arc::new(hook), ..self.clone() }
    }

    /// The same objects in a store that closes its connection after this many bytes of an object, sent in small chunks.
    pub(crate) fn with_read_limit(&self, bytes: usize) -> Self {
        Self { read_limit: Some(bytes), ..self.clone() }
    }

    pub(crate) fn pending_uploads(&self) -> usize {
        self.pending_uploads.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for HookedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedStore")
    }
}

impl fmt::Display for HookedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HookedStore")
    }
}

#[async_trait]
impl ObjectStore for HookedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        (self.hook)(Request::Put, path).await?;
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // Counted before the hook, which may hold the response back.
        self.pending_uploads.fetch_add(1, Ordering::SeqCst);
        let inner = self.inner.put_multipart_opts(path, options).await?;
        (self.hook)(Request::CreateUpload, path).await?;
        Ok(Box::new(HookedUpload { inner, path: path.clone(), store: self.clone() }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        (self.hook)(Request::Get, path).await?;
        let mut found = self.inner.get_opts(path, options.clone()).await?;
        if let Some(limit) = self.read_limit.filter(|_| !options.head) {
            let bytes = self.inner.get_opts(path, options).await?.bytes().await?;
            let mut chunks: Vec<_> =
                bytes[..limit.min(bytes.len())].chunks(7).map(|chunk| Ok(chunk.to_vec().into())).collect();
            if limit < bytes.len() {
                chunks
                    .push(Err(Error::Generic { store: "test", source: "the connection was closed".into() }));
            }
            found.payload = GetResultPayload::Stream(stream::iter(chunks).boxed());
        }
        Ok(found)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let hook = Arc::clone(&self.hook);
        let hooked = paths.and_then(move |path| {
            let allowed = hook(Request::Delete, &path);
            async move { allowed.await.map(|()| path) }
        });
        self.inner.delete_stream(hooked.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let allowed = (self.hook)(Request::List, prefix.unwrap_or(&Path::default()));
        let inner = self.inner.list(prefix);
        stream::once(async move { allowed.await.map(|()| inner) }).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        (self.hook)(Request::List, prefix.unwrap_or(&Path::default())).await?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct HookedUpload {
    inner: Box<dyn MultipartUpload>,
    path: Path,
    store: HookedStore,
}

impl HookedUpload {
    fn finished(&self) {
        self.store.pending_uploads.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl MultipartUpload for HookedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let allowed = (self.store.hook)(Request::PutPart, &self.path);
        let put = self.inner.put_part(data);
        Box::pin(async move {
            allowed.await?;
            put.await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        (self.store.hook)(Request::Complete, &self.path).await?;
        let result = self.inner.complete().await?;
        self.finished();
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        (self.store.hook)(Request::Abort, &self.path).await?;
        self.inner.abort().await?;
        self.finished();
        Ok(())
    }
}
