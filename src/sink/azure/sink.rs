//! [`AzureBlobSink`]: a container of Azure Blob Storage.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

use super::append::{self, Log};
use super::blocks;
use super::client::BlobClient;
use super::connections::Connections;
use super::container::AzureContainer;
use super::copy;
use super::policy::AzureBlobPolicy;
use super::settings::read_settings;
use crate::content::{Content, CopySource};
use crate::error::Result;
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::{BlobSink, LogKey, PutResult};
use crate::sync::lock;

/// A container of Azure Blob Storage.
///
/// A credential that may write blobs is enough: nothing is read, listed or asked of the container.
///
/// - Instances up to 8 MiB are one Put Blob, with the content's chunks as they are. Larger ones are blocks of 8 MiB,
///   four at once; larger blocks past 390 GiB, so that there are never more than 50,000, and smaller ones where the
///   byte budget is small. A content of unknown length is sent in blocks of half its window, then of all of it, and
///   must end before 50,000: at 359 GiB with the window of 8 MiB that it gets by default. Past that it is
///   [`Unsupported`](crate::ErrorKind::Unsupported).
/// - An instance that its source has a URL of is copied by Azure itself, in blocks of 64 MiB or more, four at once.
///   Azure gets the URL and nothing else does. Whatever it refuses to copy for a reason that lasts is streamed instead.
/// - What is sent goes with its CRC64, and the checksum in the answer is compared with it, unless the
///   [`UploadContext`] says otherwise. A small blob that was stored wrong, by a service that does not check what arrives, can
///   be seen until it has been sent again; a block cannot.
/// - The log is an append blob, written by one task in a process, whatever the number of sinks: so no line is cut or
///   mixed with another, and one whose answer was lost is not appended again. Azure takes 50,000 appends to a blob;
///   past that the log is full, which fails the operation with [`Unsupported`](crate::ErrorKind::Unsupported).
/// - Requests follow no redirect. Each has a minute, and the time that its body, or what it copies, takes at 64 KiB/s.
pub struct AzureBlobSink {
    client: Arc<BlobClient>,
    /// Held so that what is known of a log outlives a single append.
    logs: Mutex<HashMap<BlobPath, Arc<Log>>>,
}

impl AzureBlobSink {
    /// The sink of the container that a request's settings name, for hosts that open it themselves; see
    /// [`AzureBlobProvider`](super::AzureBlobProvider) for what they are. No request is made yet.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), with the JSON pointer where it is a setting that is wrong.
    pub fn from_settings(settings: &Value, policy: &AzureBlobPolicy) -> Result<Self> {
        Self::new(read_settings(settings, policy)?, &Arc::new(Connections::new(policy.clone())))
    }

    /// The sink of a container that the policy has admitted.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when a certificate of the policy cannot be read or the SAS
    /// is none.
    pub(super) fn new(container: AzureContainer, connections: &Arc<Connections>) -> Result<Self> {
        Ok(Self { client: Arc::new(BlobClient::new(container, connections)?), logs: Mutex::default() })
    }

    fn log(&self, path: &BlobPath) -> Arc<Log> {
        let mut logs = lock(&self.logs);
        Arc::clone(logs.entry(path.clone()).or_insert_with(|| Log::of(self.client.url(path), path)))
    }
}

#[async_trait]
impl BlobSink for AzureBlobSink {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        if append::create(&self.client, log).await? {
            self.log(log).created();
        }
        Ok(())
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        blocks::put(&self.client, path, content, upload).await
    }

    async fn copy_from(
        &self,
        path: &BlobPath,
        source: &CopySource,
        upload: &UploadContext,
    ) -> Result<Option<PutResult>> {
        copy::copy(&self.client, path, source, upload).await
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.log(log).append(&self.client, key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        lock(&self.logs).remove(log);
        Ok(())
    }

    fn url(&self, path: &BlobPath) -> String {
        self.client.url(path)
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        blocks::window(length)
    }

    fn location(&self) -> String {
        self.client.container().url()
    }

    fn throttle_key(&self) -> String {
        let container = self.client.container();
        format!("azure:{}:{}", container.endpoint.authority(), container.account)
    }
}

impl fmt::Debug for AzureBlobSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureBlobSink").field("container", self.client.container()).finish_non_exhaustive()
    }
}
