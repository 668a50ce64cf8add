//! [`LogParts`]: a log that is written in parts and joined when a run ends.

use std::sync::Arc;

use ::object_store::path::Path;
use ::object_store::{Error as StoreError, ObjectStoreExt, UpdateVersion};
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::error::store_error;
use super::objects::{Expected, Kind, Objects};

use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::UploadContext;
use crate::object_store_error::{SanitizedError, error_kind};
use crate::sink::LogKey;

/// How often joining starts again because another runner joins the same log.
const MAX_JOIN_ATTEMPTS: usize = 5;

/// The name of an empty object in the folder of a log's parts that is created and deleted to prove permissions.
const PROBE: &str = "probe";

/// A log and the folder of its parts. A part is named `<run>-<batch>`, so that a runner that has lost its lease cannot
/// replace a part of its successor.
pub(super) struct LogParts {
    objects: Objects,
    log: Path,
    folder: Path,
}

impl LogParts {
    pub(super) fn new(objects: &Objects, log: Path, folder: Path) -> Self {
        Self { objects: objects.clone(), log, folder }
    }

    /// Creates the log if it does not exist, and proves that parts can be joined at the end. Returns whether it existed.
    pub(super) async fn create(&self) -> Result<bool> {
        // Asked first, because some stores ignore the condition of the write and would empty the log.
        let mut existed = self.objects.store.head(&self.log).await.is_ok();
        if !existed {
            match self.objects.put(&self.log, Bytes::new().into(), Kind::Log, &Expected::Nothing).await {
                Ok(_) => {}
                Err(StoreError::AlreadyExists { .. }) => existed = true,
                Err(error) => return Err(store_error(error)),
            }
        }
        let (store, probe) = (&self.objects.store, self.folder.clone().join(PROBE));
        let put = self.objects.put(&probe, Bytes::new().into(), Kind::Log, &Expected::Anything).await;
        put.map_err(store_error)?;
        store.list(Some(&self.folder)).try_next().await.map_err(denied("list"))?;
        store.head(&self.log).await.map_err(denied("read"))?;
        match store.delete(&probe).await {
            // Another runner has deleted it.
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(existed),
            Err(error) => Err(denied("delete")(error)),
        }
    }

    pub(super) async fn append(&self, key: LogKey, lines: Bytes) -> Result<()> {
        let part = self.folder.clone().join(key.to_string());
        let put = self.objects.put(&part, lines.into(), Kind::Log, &Expected::Anything).await;
        put.map(|_| ()).map_err(store_error)
    }

    /// Appends the parts to the log, by run and batch, and deletes them.
    ///
    /// A runner that has lost its lease may do the same at the same time. The log is therefore only replaced if it has not
    /// changed since it was read.
    pub(super) async fn join(&self, upload: &UploadContext) -> Result<()> {
        let mut attempt = 1;
        loop {
            match self.try_join(upload).await {
                // The log has changed, or a part was deleted.
                Err(error)
                    if matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound)
                        && attempt < MAX_JOIN_ATTEMPTS =>
                {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_join(&self, upload: &UploadContext) -> Result<()> {
        let store = &self.objects.store;
        let objects = store.list(Some(&self.folder)).map_ok(|object| object.location);
        let objects: Vec<Path> = objects.try_collect().await.map_err(store_error)?;
        let mut parts: Vec<_> =
            objects.into_iter().filter_map(|path| Some((position(&path)?, path))).collect();
        if parts.is_empty() {
            return Ok(());
        }
        parts.sort_unstable();
        let parts: Vec<Path> = parts.into_iter().map(|(_, path)| path).collect();
        let (expected, earlier) = match store.get(&self.log).await {
            Ok(log) => {
                let version =
                    UpdateVersion { e_tag: log.meta.e_tag.clone(), version: log.meta.version.clone() };
                let expected = match version {
                    UpdateVersion { e_tag: None, version: None } => Expected::Anything,
                    version => Expected::Version(version),
                };
                (expected, log.into_stream().map_err(store_error).boxed())
            }
            Err(StoreError::NotFound { .. }) => (Expected::Nothing, stream::empty().boxed()),
            Err(error) => return Err(store_error(error)),
        };
        let added = stream::iter(parts.clone()).then({
            let store = Arc::clone(store);
            move |part| {
                let store = Arc::clone(&store);
                async move {
                    let part = store.get(&part).await.map_err(store_error)?;
                    Ok::<_, Error>(part.into_stream().map_err(store_error))
                }
            }
        });
        let joined = Content::from_stream(None, earlier.chain(added.try_flatten()));
        self.objects.write(&self.log, joined, Kind::Log, &expected, upload).await?;
        // Deleted last: after a failure before this line, the next call joins them, possibly for the second time.
        let deleted = store.delete_stream(stream::iter(parts.into_iter().map(Ok)).boxed());
        deleted
            .map(|deleted| match deleted {
                Err(StoreError::NotFound { .. }) => Ok(()),
                deleted => deleted.map(|_| ()).map_err(store_error),
            })
            .try_for_each(|()| async { Ok(()) })
            .await
    }
}

/// Converts an error of a request that [`LogParts::create`] makes to prove a permission.
fn denied(action: &'static str) -> impl Fn(StoreError) -> Error {
    move |cause| match error_kind(&cause) {
        ErrorKind::Unauthorized => {
            let message = format!(
                "the destination's credential may not {action} objects, which completing the logs requires"
            );
            Error::new(ErrorKind::Unauthorized, message).with_source(SanitizedError::of(&cause))
        }
        _ => store_error(cause),
    }
}

/// The run and the batch of a part, or `None` for an object that is not a part. A name without a run was written before
/// keys had one.
fn position(part: &Path) -> Option<(u64, u64)> {
    let name = part.filename()?;
    match name.split_once('-') {
        Some((run, batch)) => Some((run.parse().ok()?, batch.parse().ok()?)),
        None => Some((0, name.parse().ok()?)),
    }
}
