//! [`AzureBlobSink`]: a container of Azure Blob Storage.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;

use super::append::{self, AppendLog};
use super::blocks;
use super::client::BlobClient;
use super::connections::Connections;
use super::container::AzureContainer;
use super::copy;
use super::fresh::FreshOperations;
use super::policy::AzureBlobPolicy;
use super::settings::read_settings;
use super::writer::BlobWriter;
use crate::content::{Content, CopySource};
use crate::error::Result;
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::{AppendLimits, BlobSink, LogKey, PutResult};
use crate::sync::lock;

/// A container of Azure Blob Storage.
///
/// A credential that may write blobs is sufficient: the sink never reads or lists blobs, and requests nothing of the
/// container itself.
///
/// - **Instances** up to 8 MiB are written with one Put Blob. Larger ones are written in blocks of 8 MiB, four at once.
///   Blocks are larger above 390 GiB, because a blob has at most 50,000 of them, and smaller if the buffer limit is small.
///   Blocks of a content of unknown length have half the size of its buffer limit, later the whole size. No block is larger
///   than the buffer limit, so that a content ends at 50,000 blocks of that size: with the default limits at 6.1 TiB, and at
///   359 GiB if its length is unknown. A longer one fails with [`Unsupported`](crate::ErrorKind::Unsupported).
/// - **Copies**: if the source provides a URL of an instance, Azure copies it in blocks of at least 64 MiB, four at once.
///   The URL is sent to Azure only. An instance that Azure permanently refuses to copy is streamed.
/// - **Checksums**: requests contain the CRC64 of their body, and the checksum in the response is verified, unless the
///   [`UploadContext`] turns that off. On a service that does not verify checksums itself, a small blob that was stored
///   incorrectly is visible until it is sent again; a block is not.
/// - **Immutable containers**: if the container's policy refuses to replace a blob of an operation that is retried or
///   resumed, the blob was stored before and counts as exported. A log can only be appended to if the policy allows it.
/// - **Logs** are append blobs. One task per log and process appends, so that no line is cut or mixed with others, and an
///   append whose response was lost is not repeated. Azure allows 50,000 appends to a blob. A full log fails the operation
///   with [`Unsupported`](crate::ErrorKind::Unsupported).
/// - **Requests** follow no redirects. Each has a timeout of one minute, plus the time that its body or the copied range
///   takes at 64 KiB/s.
///
/// ```
/// use dicom_export::BlobSink;
/// use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobSink};
/// use serde_json::json;
///
/// let settings = json!({
///     "blobContainerUri": "https://account.blob.core.windows.net/exports?sv=2022-11-02&sr=c&sp=w&sig=c2lnbmF0dXJl",
/// });
/// let sink = AzureBlobSink::from_settings(&settings, &AzureBlobPolicy::new())?;
/// assert_eq!(sink.location(), "https://account.blob.core.windows.net/exports");
/// # Ok::<_, dicom_export::Error>(())
/// ```
pub struct AzureBlobSink {
    client: Arc<BlobClient>,
    fresh: FreshOperations,
    /// Keeps the state of each log from its first use to `finish`.
    logs: Mutex<HashMap<BlobPath, Arc<AppendLog>>>,
}

impl AzureBlobSink {
    /// Creates a sink for the container that the settings name, for hosts that do not use
    /// [`AzureBlobProvider`](super::AzureBlobProvider), which documents the settings. Sends no request.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), with a JSON pointer if a setting is at fault.
    pub fn from_settings(settings: &Value, policy: &AzureBlobPolicy) -> Result<Self> {
        Self::new(read_settings(settings, policy)?, &Arc::new(Connections::new(policy.clone())))
    }

    /// Creates a sink for a container that the policy has admitted.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a certificate of the policy or the SAS is invalid.
    pub(super) fn new(container: AzureContainer, connections: &Arc<Connections>) -> Result<Self> {
        let client = Arc::new(BlobClient::new(container, connections)?);
        Ok(Self { client, fresh: FreshOperations::default(), logs: Mutex::default() })
    }

    fn writer<'a>(&'a self, path: &'a BlobPath, upload: &'a UploadContext) -> BlobWriter<'a> {
        BlobWriter { client: &self.client, fresh: &self.fresh, path, upload }
    }

    fn log(&self, path: &BlobPath) -> Arc<AppendLog> {
        let mut logs = lock(&self.logs);
        Arc::clone(logs.entry(path.clone()).or_insert_with(|| AppendLog::shared(self.client.url(path), path)))
    }
}

#[async_trait]
impl BlobSink for AzureBlobSink {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        if append::create(&self.client, log).await? {
            self.log(log).created();
            self.fresh.insert(log);
        }
        Ok(())
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        blocks::put(self.writer(path, upload), content).await
    }

    async fn copy_from(
        &self,
        path: &BlobPath,
        source: &CopySource,
        upload: &UploadContext,
    ) -> Result<Option<PutResult>> {
        copy::copy(self.writer(path, upload), source).await
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.log(log).append(&self.client, key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        lock(&self.logs).remove(log);
        self.fresh.remove(log);
        Ok(())
    }

    fn url(&self, path: &BlobPath) -> String {
        self.client.url(path)
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        blocks::buffer_size(length)
    }

    fn location(&self) -> String {
        self.client.container().url()
    }

    fn throttle_key(&self) -> String {
        let AzureContainer { account, endpoint, .. } = self.client.container();
        // The endpoints of an account's routing preferences share its limits: only what follows the account's label counts.
        let host = endpoint.authority();
        let suffix = host.strip_prefix(account.as_str()).and_then(|rest| rest.split_once('.'));
        format!("azure:{account}:{}", suffix.map_or(host, |(_, suffix)| suffix))
    }

    fn append_limits(&self) -> AppendLimits {
        append::limits()
    }
}

impl fmt::Debug for AzureBlobSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureBlobSink").field("container", self.client.container()).finish_non_exhaustive()
    }
}
