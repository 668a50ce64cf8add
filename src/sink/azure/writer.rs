//! [`BlobWriter`]: the requests that write one blob.
//!
//! A blob has at most 50,000 blocks, and Put Block List makes it visible as a whole.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use object_store::PutPayload;
use reqwest::header::HeaderValue;

use super::checksum::Checksum;
use super::client::{BLOB_CONTENT_TYPE, BLOB_TYPE, BlobClient, BlobRequest};
use super::fresh::FreshOperations;
use super::response::{IMMUTABLE, Response};
use crate::error::Result;
use crate::limits::UploadContext;
use crate::model::BlobPath;
use crate::sink::PutResult;

pub(super) const MIB: u64 = 1 << 20;

/// Azure's limit on the number of blocks of a blob.
pub(super) const MAX_BLOCKS: u64 = 50_000;

/// How many blocks of a blob are sent at once, if the buffer limit allows it.
pub(super) const MAX_PARALLEL_BLOCKS: u64 = 4;

const DICOM: HeaderValue = HeaderValue::from_static("application/dicom");

/// Writes one blob.
#[derive(Clone, Copy)]
pub(super) struct BlobWriter<'a> {
    pub(super) client: &'a BlobClient,
    pub(super) fresh: &'a FreshOperations,
    pub(super) path: &'a BlobPath,
    pub(super) upload: &'a UploadContext,
}

/// The outcome of a request.
pub(super) enum Outcome {
    /// The request was carried out.
    Done(Response),
    /// The operation stored the whole blob before, and the container's policy does not allow replacing it.
    AlreadyStored,
    Failed(Response),
}

impl BlobWriter<'_> {
    pub(super) fn buffer_limit(self) -> u64 {
        self.upload.buffer_limit()
    }

    /// Put Blob.
    pub(super) async fn put_blob(self, payload: PutPayload, size: u64) -> Result<PutResult> {
        let response = self.send_with_retry(&payload, || {
            BlobRequest::put(self.path, payload.clone())
                .header(BLOB_TYPE, HeaderValue::from_static("BlockBlob"))
                .header(BLOB_CONTENT_TYPE, DICOM)
        });
        Ok(put_result(size, response.await?))
    }

    /// Put Block. Returns `None` if the blob is already stored.
    pub(super) async fn put_block(self, id: String, payload: PutPayload) -> Result<Option<Response>> {
        let query = format!("comp=block&blockid={id}");
        let request = || BlobRequest::put(self.path, payload.clone()).query(query.as_str());
        self.send_with_retry(&payload, request).await
    }

    /// Put Block List. `Latest` also matches a committed block, so the request can be repeated if its response was lost.
    pub(super) async fn put_block_list(self, attempt: u64, blocks: u64, size: u64) -> Result<PutResult> {
        let mut list = String::from(r#"<?xml version="1.0" encoding="utf-8"?><BlockList>"#);
        for number in 0..blocks {
            list.extend(["<Latest>", &block_id(attempt, number), "</Latest>"]);
        }
        list.push_str("</BlockList>");
        let payload = PutPayload::from(list);
        let checksum = self.checksum(&payload);
        let is_damaged = AtomicBool::new(false);
        // A retry does not restore lost blocks, so the error ends the retries, and the engine puts the blob again.
        let response = self.upload.send_with_retry(async || {
            let request = BlobRequest::put(self.path, payload.clone())
                .query("comp=blocklist")
                .header(BLOB_CONTENT_TYPE, DICOM);
            match self.send(request, checksum.as_ref(), &is_damaged).await? {
                Outcome::Done(response) => Ok(Ok(Some(response))),
                Outcome::AlreadyStored => Ok(Ok(None)),
                Outcome::Failed(response) if response.is(400, "InvalidBlockList") => {
                    Ok(Err(response.error()))
                }
                Outcome::Failed(response) => Err(response.error()),
            }
        });
        Ok(put_result(size, response.await??))
    }

    /// Sends a request until its body is stored unchanged. Returns `None` if the blob is already stored.
    async fn send_with_retry<'p>(
        self,
        body: &PutPayload,
        request: impl Fn() -> BlobRequest<'p> + Send + Sync,
    ) -> Result<Option<Response>> {
        let checksum = self.checksum(body);
        let is_damaged = AtomicBool::new(false);
        let send = async || match self.send(request(), checksum.as_ref(), &is_damaged).await? {
            Outcome::Done(response) => Ok(Some(response)),
            Outcome::AlreadyStored => Ok(None),
            Outcome::Failed(response) => Err(response.error()),
        };
        self.upload.send_with_retry(send).await
    }

    /// Sends a request once. `is_damaged` records that an earlier attempt was stored with another checksum.
    ///
    /// # Errors
    /// Those of [`BlobClient::send`], and [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) for a checksum mismatch.
    pub(super) async fn send(
        self,
        request: BlobRequest<'_>,
        checksum: Option<&Checksum<'_>>,
        is_damaged: &AtomicBool,
    ) -> Result<Outcome> {
        let pending = self.fresh.start_request(self.path);
        let request = match checksum {
            Some(checksum) => checksum.add_to(request),
            None => request,
        };
        let response = self.client.send(request).await?;
        if response.is_success() {
            if let Some(checksum) = checksum {
                checksum.verify(&response).inspect_err(|_| is_damaged.store(true, Relaxed))?;
            }
            pending.clear();
            return Ok(Outcome::Done(response));
        }
        let can_exist = !self.fresh.contains(self.path) && !is_damaged.load(Relaxed);
        if !response.error().kind().is_transient() {
            pending.clear();
        }
        let is_stored = can_exist && response.is(409, IMMUTABLE);
        Ok(if is_stored { Outcome::AlreadyStored } else { Outcome::Failed(response) })
    }

    /// `None` if checksums are off or the body is empty.
    fn checksum(self, body: &PutPayload) -> Option<Checksum<'_>> {
        (self.upload.checksums() && body.content_length() > 0).then(|| Checksum::new(body))
    }
}

/// A block id: 24 characters that are valid base64. All ids of a blob must have the same length.
pub(super) fn block_id(attempt: u64, number: u64) -> String {
    format!("{attempt:016x}{number:08x}")
}

fn put_result(size: u64, response: Option<Response>) -> PutResult {
    let result = PutResult::new(size);
    match response.as_ref().and_then(Response::etag) {
        Some(etag) => result.with_etag(etag),
        None => result,
    }
}
