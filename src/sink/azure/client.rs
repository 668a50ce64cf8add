//! [`BlobClient`]: signed requests to one container.
//!
//! object_store provides credentials and signatures. Requests are sent from here because object_store's errors hide the
//! status, the error code and `Retry-After`, and because its multipart upload cannot retry a single block.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use object_store::PutPayload;
use object_store::azure::AzureCredentialProvider;
use object_store::client::{HttpClient, HttpRequest, HttpResponseBody};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RANGE};

use super::connections::Connections;
use super::container::AzureContainer;
use super::response::{Response, unreachable};
use super::signer::Signer;
use crate::error::{Error, ErrorKind, Result};
use crate::model::BlobPath;

/// How long a request may take, without the time to transfer its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The lowest transfer rate that is waited for, in bytes per second.
const MIN_TRANSFER_RATE: u64 = 64 << 10;

/// How much of a response's body is read so that the connection can be reused.
const MAX_DRAINED_BYTES: usize = 64 << 10;

pub(super) const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
pub(super) const BLOB_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-content-type");

/// Sends requests for the blobs of one container. It follows no redirects and leaves retries to its callers.
pub(super) struct BlobClient {
    http: HttpClient,
    signer: Signer,
    container: AzureContainer,
}

/// A request for a blob.
#[derive(Debug)]
pub(super) struct BlobRequest<'a> {
    method: Method,
    path: &'a BlobPath,
    query: String,
    headers: HeaderMap,
    body: PutPayload,
    /// How many bytes Azure fetches from elsewhere before it responds.
    copied: u64,
    /// How many bytes of the response's body are kept.
    kept: usize,
}

impl<'a> BlobRequest<'a> {
    /// Creates a `PUT` request. Every write to Azure is one.
    pub(super) fn put(path: &'a BlobPath, body: PutPayload) -> Self {
        Self::new(Method::PUT, path, body)
    }

    /// Creates a request for `length` bytes of a blob.
    pub(super) fn get(path: &'a BlobPath, start: u64, length: usize) -> Self {
        let last = (start + length as u64).saturating_sub(1);
        let request = Self { kept: length, ..Self::new(Method::GET, path, PutPayload::new()) };
        match HeaderValue::try_from(format!("bytes={start}-{last}")) {
            Ok(range) => request.header(RANGE, range),
            Err(_) => request,
        }
    }

    fn new(method: Method, path: &'a BlobPath, body: PutPayload) -> Self {
        Self { method, path, query: String::new(), headers: HeaderMap::new(), body, copied: 0, kept: 0 }
    }

    /// Sets the query, which must not need escaping.
    pub(super) fn query(mut self, query: impl Into<String>) -> Self {
        self.query = query.into();
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    /// Sets how many bytes Azure copies from elsewhere before it responds. They extend the timeout as a body does.
    pub(super) fn copying(mut self, bytes: u64) -> Self {
        self.copied = bytes;
        self
    }
}

impl BlobClient {
    /// # Errors
    /// [`ErrorKind::Invalid`] if the policy or the credential cannot be used.
    pub(super) fn new(container: AzureContainer, connections: &Arc<Connections>) -> Result<Self> {
        let signer = Signer::new(&container, connections)?;
        let http = HttpClient::new(connections.client(container.endpoint.scheme())?);
        Ok(Self { http, signer, container })
    }

    pub(super) fn container(&self) -> &AzureContainer {
        &self.container
    }

    /// The blob's URL, without a credential.
    pub(super) fn url(&self, path: &BlobPath) -> String {
        // A blob's name needs no escaping: see `BlobPath`.
        format!("{}/{path}", self.container.url())
    }

    /// Sends a request and returns the response, whatever its status. If the destination refuses a token of the server's
    /// identity as invalid (401), the request is sent once more with a new token.
    ///
    /// # Errors
    /// If there is no response: the error of [`Signer::sign`], or [`ErrorKind::Unavailable`].
    pub(super) async fn send(&self, request: BlobRequest<'_>) -> Result<Response> {
        let mut can_renew = true;
        loop {
            let (response, tokens) = self.send_once(&request).await?;
            if let Some(tokens) = tokens.filter(|_| response.has_status(401) || response.has_status(403)) {
                self.signer.discard(&tokens);
                if response.has_status(401) && std::mem::take(&mut can_renew) {
                    continue;
                }
            }
            return Ok(response);
        }
    }

    async fn send_once(&self, blob: &BlobRequest<'_>) -> Result<(Response, Option<AzureCredentialProvider>)> {
        let length = blob.body.content_length() as u64;
        let timeout = REQUEST_TIMEOUT
            + Duration::from_secs((length + blob.copied + blob.kept as u64) / MIN_TRANSFER_RATE);
        let mut url = self.url(blob.path);
        if !blob.query.is_empty() {
            url.push('?');
            url.push_str(&blob.query);
        }
        let mut request = HttpRequest::new(blob.body.clone().into());
        *request.method_mut() = blob.method.clone();
        *request.uri_mut() =
            url.parse().map_err(|_| Error::new(ErrorKind::Invalid, "the container's URI is invalid"))?;
        *request.headers_mut() = blob.headers.clone();
        if blob.method == Method::PUT {
            // It is part of the signature, and reqwest does not know the length of a body of several chunks.
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        }
        let tokens = self.signer.sign(&mut request, &self.container.account).await?;

        let exchange = async {
            let (parts, body) = self.http.execute(request).await?.into_parts();
            let body = read(body, blob.kept).await;
            Ok(Response::new(parts.status, parts.headers, body))
        };
        match tokio::time::timeout(timeout, exchange).await {
            Ok(outcome) => Ok((outcome.map_err(unreachable)?, tokens)),
            Err(_) => Err(Error::new(ErrorKind::Unavailable, "the destination timed out")),
        }
    }
}

impl fmt::Debug for BlobClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobClient").field("container", &self.container).finish_non_exhaustive()
    }
}

/// Reads a body and returns its first `kept` bytes, or fewer if the connection fails. The rest is read only so that the
/// connection can be reused.
async fn read(body: HttpResponseBody, kept: usize) -> Bytes {
    let mut chunks = body.bytes_stream();
    let (mut start, mut read) = (BytesMut::new(), 0);
    while read <= kept.max(MAX_DRAINED_BYTES)
        && let Some(Ok(chunk)) = chunks.next().await
    {
        read += chunk.len();
        start.extend_from_slice(&chunk[..chunk.len().min(kept - start.len())]);
    }
    start.freeze()
}
