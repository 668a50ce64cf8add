//! Destinations of several kinds, whose contents are read without the sink.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::{LogKey, PutResult, Secret, SinkProvider, ValidatedSettings};
use dicom_export::source::CopySource;
use dicom_export::testing::{FaultPlan, FaultySink};
use dicom_export::{
    BlobPath, BlobSink, Content, DirectorySink, Error, ErrorKind, MemorySink, ObjectStoreSink, OperationSpec,
    Result, UploadContext,
};
use fastrand::Rng;
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use tempfile::TempDir;

use crate::archive::{Archive, URL};

pub(crate) enum Container {
    Memory(MemorySink),
    ObjectStore(Arc<InMemory>),
    Folder(TempDir),
}

impl Container {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        match rng.u8(..8) {
            0..4 => Self::Memory(MemorySink::new()),
            4..7 => Self::ObjectStore(Arc::new(InMemory::new())),
            _ => Self::Folder(TempDir::new().unwrap()),
        }
    }

    fn sink(&self) -> Arc<dyn BlobSink> {
        match self {
            Self::Memory(sink) => Arc::new(sink.clone()),
            Self::ObjectStore(store) => Arc::new(ObjectStoreSink::new(Arc::clone(store) as _, "memory://")),
            Self::Folder(folder) => Arc::new(DirectorySink::open(folder.path()).unwrap()),
        }
    }

    /// Every visible blob.
    pub(crate) async fn blobs(&self) -> BTreeMap<String, Bytes> {
        let mut blobs = BTreeMap::new();
        match self {
            Self::Memory(sink) => {
                blobs.extend(sink.names().into_iter().map(|name| (name.clone(), sink.get(&name).unwrap())));
            }
            Self::ObjectStore(store) => {
                let found: Vec<_> = store.list(None).try_collect().await.unwrap();
                for meta in found {
                    let bytes = store.get(&meta.location).await.unwrap().bytes().await.unwrap();
                    blobs.insert(meta.location.to_string(), bytes);
                }
            }
            Self::Folder(folder) => collect(folder.path(), folder.path(), &mut blobs),
        }
        blobs
    }
}

fn collect(root: &Path, folder: &Path, blobs: &mut BTreeMap<String, Bytes>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(root, &path, blobs),
            false => {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                blobs.insert(name, std::fs::read(&path).unwrap().into());
            }
        }
    }
}

/// Opens the container, with faults.
pub(crate) struct Provider {
    pub(crate) container: Arc<Container>,
    pub(crate) archive: Arc<Archive>,
    pub(crate) plan: FaultPlan,
    pub(crate) has_secret: bool,
}

#[async_trait]
impl SinkProvider for Provider {
    fn validate(&self, _: &serde_json::Value) -> Result<ValidatedSettings> {
        let checked = ValidatedSettings::new("here", serde_json::Value::Null);
        Ok(if self.has_secret { checked.with_secret(Secret::new("a secret")) } else { checked })
    }

    async fn open(&self, _: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        if secret.is_some() != self.has_secret {
            return Err(Error::new(ErrorKind::Unauthorized, "the secret is wrong"));
        }
        let copying = Copying { inner: self.container.sink(), archive: Arc::clone(&self.archive) };
        Ok(Arc::new(FaultySink::new(copying, self.plan.clone())))
    }
}

/// Copies readable instances directly from the archive.
struct Copying {
    inner: Arc<dyn BlobSink>,
    archive: Arc<Archive>,
}

#[async_trait]
impl BlobSink for Copying {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.inner.prepare(log).await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        self.inner.put(path, content, upload).await
    }

    async fn copy_from(
        &self,
        path: &BlobPath,
        source: &CopySource,
        _: &UploadContext,
    ) -> Result<Option<PutResult>> {
        let id = source.expose_url().strip_prefix(URL).unwrap().parse().unwrap();
        let Some(held) = self.archive.held(&id).filter(|held| held.bad.is_none()) else { return Ok(None) };
        let whole = UploadContext::new(u64::MAX, dicom_export::RetryPolicy::none(), 1);
        self.inner.put(path, Content::from_bytes(held.bytes.clone()), &whole).await.map(Some)
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.inner.append(log, key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        self.inner.finish(log).await
    }

    fn url(&self, path: &BlobPath) -> String {
        self.inner.url(path)
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        self.inner.buffer_size(length)
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
