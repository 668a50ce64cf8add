//! [`Objects`]: conditional and multipart writes to a store.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::object_store::multipart::MultipartStore;
use ::object_store::path::Path;
use ::object_store::{
    Attribute, Attributes, Error as StoreError, MultipartId, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, UpdateVersion,
};

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::error::store_error;
use super::multipart::{PartRetry, PartSizes, Upload};
use crate::content::{ChunkReader, Content};
use crate::error::{ErrorKind, Result};
use crate::limits::UploadContext;
use crate::object_store_error::error_kind;
use crate::sink::PutResult;
use crate::sync::detached;

/// What must be at a path for a write to succeed.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    Anything,
    Nothing,
    Version(UpdateVersion),
}

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Instance,
    Log,
}

/// Lists the multipart uploads below a path, as their paths and ids.
pub(super) type ListUploads =
    dyn Fn(Path) -> BoxFuture<'static, Result<Vec<(Path, MultipartId)>, StoreError>> + Send + Sync;

/// How many uploads are aborted at once.
const MAX_PARALLEL_ABORTS: usize = 8;

/// A store, and what is known about its capabilities. Clones share it.
#[derive(Clone)]
pub(super) struct Objects {
    pub(super) store: Arc<dyn ObjectStore>,
    /// Sends the parts of uploads, if the store has this interface.
    pub(super) parts: Option<Arc<dyn MultipartStore>>,
    /// Lists the uploads below a path, if the store can.
    pub(super) list_uploads: Option<Arc<ListUploads>>,
    /// The storage class of instances.
    pub(super) storage_class: Option<String>,
    /// Whether the store has refused content types.
    without_content_types: Arc<AtomicBool>,
}

impl Objects {
    pub(super) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            parts: None,
            list_uploads: None,
            storage_class: None,
            without_content_types: Arc::default(),
        }
    }

    /// Writes an object with one request.
    ///
    /// # Errors
    /// [`StoreError::AlreadyExists`] or [`StoreError::Precondition`] if the path does not contain what is expected.
    pub(super) async fn put(
        &self,
        path: &Path,
        payload: PutPayload,
        kind: Kind,
        expected: &Expected,
    ) -> Result<::object_store::PutResult, StoreError> {
        let mut mode = match expected {
            Expected::Anything => PutMode::Overwrite,
            Expected::Nothing => PutMode::Create,
            Expected::Version(version) => PutMode::Update(version.clone()),
        };
        loop {
            let attributes = self.attributes(kind);
            let options =
                PutOptions { mode: mode.clone(), attributes: attributes.clone(), ..PutOptions::default() };
            match self.store.put_opts(path, payload.clone(), options).await {
                // Either the condition or the content type.
                Err(error) if is_unsupported(&error) && mode != PutMode::Overwrite => {
                    self.check(path, expected).await?;
                    mode = PutMode::Overwrite;
                }
                Err(error) if self.refuses_attributes(&attributes, &error) => {}
                outcome => return outcome,
            }
        }
    }

    /// Writes an object with one request, or with a multipart upload if its content exceeds the size of a part.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict) if the path does not contain what is expected. For a
    /// multipart upload, this is checked shortly before the object becomes visible.
    pub(super) async fn write(
        &self,
        path: &Path,
        content: Content,
        kind: Kind,
        expected: &Expected,
        upload: &UploadContext,
    ) -> Result<PutResult> {
        let mut sizes = PartSizes::new(content.length());
        let mut chunks = ChunkReader::new(content);
        let first = chunks.next(sizes.next_size()).await?;
        if first.is_last {
            let payload: PutPayload = first.parts.into_iter().collect();
            let put = async || self.put(path, payload.clone(), kind, expected).await.map_err(store_error);
            return Ok(put_result(first.len, upload.send_with_retry(put).await?));
        }
        let create = || detached(self.clone().create_upload(path.clone(), kind, upload.clone()));
        let mut parts = upload.send_with_retry(create).await?;
        let completed = async {
            let size = parts.send(first, chunks, sizes, upload).await?;
            self.check(path, expected).await.map_err(store_error)?;
            Ok(put_result(size, parts.complete(upload).await?))
        }
        .await;
        if completed.is_err() {
            parts.abort().await;
        }
        completed
    }

    /// Creates a multipart upload. The caller must await this in a task of its own: if the response were not received, the
    /// upload could not be aborted.
    async fn create_upload(self, path: Path, kind: Kind, context: UploadContext) -> Result<Upload> {
        let retry = Arc::new(PartRetry(context));
        loop {
            let attributes = self.attributes(kind);
            let options =
                PutMultipartOptions { attributes: attributes.clone(), ..PutMultipartOptions::default() };
            let created = match &self.parts {
                Some(parts) => {
                    let id = parts.create_multipart_opts(&path, options).await;
                    id.map(|id| Upload::of_parts(Arc::clone(parts), path.clone(), id))
                }
                None => {
                    let options = options.with_retry_policy(Arc::clone(&retry) as _);
                    self.store.put_multipart_opts(&path, options).await.map(Upload::new)
                }
            };
            match created {
                Err(error) if self.refuses_attributes(&attributes, &error) => {}
                outcome => return outcome.map_err(store_error),
            }
        }
    }

    /// Checks what is at a path, for stores that cannot do that together with the write.
    async fn check(&self, path: &Path, expected: &Expected) -> Result<(), StoreError> {
        let found = match expected {
            Expected::Anything => return Ok(()),
            _ => self.store.head(path).await,
        };
        match (expected, found) {
            (Expected::Nothing, Err(StoreError::NotFound { .. })) => Ok(()),
            (Expected::Nothing, Ok(_)) => {
                Err(StoreError::AlreadyExists { path: path.to_string(), source: "the object exists".into() })
            }
            (Expected::Version(version), Ok(meta))
                if (&meta.e_tag, &meta.version) == (&version.e_tag, &version.version) =>
            {
                Ok(())
            }
            (Expected::Version(_), Ok(_) | Err(StoreError::NotFound { .. })) => {
                Err(StoreError::Precondition {
                    path: path.to_string(),
                    source: "the object has changed".into(),
                })
            }
            (_, Err(error)) => Err(error),
            (Expected::Anything, Ok(_)) => Ok(()),
        }
    }

    /// Aborts the uploads below a path, which earlier runs have left. A store that does not list uploads, or not for this
    /// credential, has a lifecycle rule for them.
    pub(super) async fn abort_leftovers(&self, folder: &Path) -> Result<()> {
        let (Some(list), Some(parts)) = (&self.list_uploads, &self.parts) else { return Ok(()) };
        let uploads = match list(folder.clone()).await.map_err(store_error) {
            Err(error) if error.kind().is_transient() => return Err(error),
            Err(error) => {
                tracing::debug!(kind = error.kind().as_str(), "multipart uploads cannot be listed");
                return Ok(());
            }
            Ok(uploads) => uploads,
        };
        stream::iter(uploads)
            .map(async |(path, id)| match parts.abort_multipart(&path, &id).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
                Err(cause) => Err(store_error(cause)),
            })
            .buffer_unordered(MAX_PARALLEL_ABORTS)
            .try_collect()
            .await
    }

    fn attributes(&self, kind: Kind) -> Attributes {
        if self.without_content_types.load(Ordering::Relaxed) {
            return Attributes::new();
        }
        let content_type = match kind {
            Kind::Instance => "application/dicom",
            Kind::Log => "application/x-ndjson",
        };
        let mut attributes = Attributes::from_iter([(Attribute::ContentType, content_type)]);
        if let Some(class) = self.storage_class.as_ref().filter(|_| kind == Kind::Instance) {
            attributes.insert(Attribute::StorageClass, class.clone().into());
        }
        attributes
    }

    /// Whether a call failed because of these attributes, and must be repeated without attributes.
    fn refuses_attributes(&self, attributes: &Attributes, error: &StoreError) -> bool {
        let refuses = !attributes.is_empty() && is_unsupported(error);
        if refuses {
            self.without_content_types.store(true, Ordering::Relaxed);
        }
        refuses
    }
}

fn is_unsupported(error: &StoreError) -> bool {
    error_kind(error) == ErrorKind::Unsupported
}

fn put_result(size: u64, stored: ::object_store::PutResult) -> PutResult {
    let result = PutResult::new(size);
    match stored.e_tag {
        Some(etag) => result.with_etag(etag),
        None => result,
    }
}
