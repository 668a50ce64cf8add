//! [`BlobClient`]: signed requests towards one container.
//!
//! object_store has the credentials and the signatures. The requests are sent from here, since its errors keep back
//! the status, the error code and `Retry-After`, and its multipart upload cannot repeat one block.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use object_store::PutPayload;
use object_store::client::{HttpClient, HttpRequest, HttpResponseBody};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use super::answer::{Answer, unreachable};
use super::connections::Connections;
use super::container::AzureContainer;
use super::identity::Signer;
use crate::error::{Error, ErrorKind, Result};
use crate::model::BlobPath;

/// How long a request may take besides its body.
const PATIENCE: Duration = Duration::from_secs(60);

/// The slowest link a body is waited for, in bytes a second.
const SLOWEST: u64 = 64 << 10;

/// How much of an answer's body is read so that its connection can be used again.
const BODY_LIMIT: usize = 64 << 10;

pub(super) const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
pub(super) const BLOB_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-content-type");

/// Sends requests for blobs of one container. Follows no redirect and repeats nothing.
pub(super) struct BlobClient {
    http: HttpClient,
    signer: Signer,
    container: AzureContainer,
}

/// A `PUT`; Azure writes with no other method.
#[derive(Debug)]
pub(super) struct Put<'a> {
    path: &'a BlobPath,
    query: String,
    headers: HeaderMap,
    body: PutPayload,
    /// How many bytes Azure fetches from elsewhere before it answers.
    fetched: u64,
}

impl<'a> Put<'a> {
    pub(super) fn new(path: &'a BlobPath, body: PutPayload) -> Self {
        Self { path, query: String::new(), headers: HeaderMap::new(), body, fetched: 0 }
    }

    /// With this query, which needs no escaping.
    pub(super) fn query(mut self, query: impl Into<String>) -> Self {
        self.query = query.into();
        self
    }

    pub(super) fn header(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    /// Azure fetches so many bytes from elsewhere before it answers, which is waited for as for a body.
    pub(super) fn fetching(mut self, bytes: u64) -> Self {
        self.fetched = bytes;
        self
    }
}

impl BlobClient {
    /// # Errors
    /// [`ErrorKind::Invalid`] when the policy or the credential cannot be used as they are.
    pub(super) fn new(container: AzureContainer, connections: &Arc<Connections>) -> Result<Self> {
        let signer = Signer::new(&container, connections)?;
        Ok(Self { http: HttpClient::new(connections.blobs()?), signer, container })
    }

    pub(super) fn container(&self) -> &AzureContainer {
        &self.container
    }

    /// The blob's URL, without a credential.
    pub(super) fn url(&self, path: &BlobPath) -> String {
        // A blob's name needs no escaping: see `BlobPath`.
        format!("{}/{path}", self.container.url())
    }

    /// Sends it once and gives whatever was answered.
    ///
    /// # Errors
    /// When there is no answer: the credential cannot be had, or [`ErrorKind::Unavailable`].
    pub(super) async fn send(&self, put: Put<'_>) -> Result<Answer> {
        let length = put.body.content_length() as u64;
        let moved = length + put.fetched;
        let mut url = self.url(put.path);
        if !put.query.is_empty() {
            url.push('?');
            url.push_str(&put.query);
        }
        let mut request = HttpRequest::new(put.body.into());
        *request.method_mut() = Method::PUT;
        *request.uri_mut() =
            url.parse().map_err(|_| Error::new(ErrorKind::Invalid, "the container's URI is not one"))?;
        *request.headers_mut() = put.headers;
        // Signed, and needed: a body of several chunks has no length of its own.
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
        self.signer.sign(&mut request, &self.container.account).await?;

        let exchange = async {
            let answer = self.http.execute(request).await?;
            let (parts, body) = answer.into_parts();
            drain(body).await;
            Ok(Answer::new(parts.status, parts.headers))
        };
        let patience = PATIENCE + Duration::from_secs(moved / SLOWEST);
        let answer = match tokio::time::timeout(patience, exchange).await {
            Ok(outcome) => outcome.map_err(unreachable)?,
            Err(_) => {
                return Err(Error::new(ErrorKind::Unavailable, "the destination did not answer in time"));
            }
        };
        if answer.is_unauthorized() {
            self.signer.refused();
        }
        Ok(answer)
    }
}

impl fmt::Debug for BlobClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobClient").field("container", &self.container).finish_non_exhaustive()
    }
}

/// Reads what is left of a body, so that the connection can be used again. Everything that matters is in the head.
async fn drain(body: HttpResponseBody) {
    let mut chunks = body.bytes_stream();
    let mut read = 0;
    while let Some(Ok(chunk)) = chunks.next().await {
        read += chunk.len();
        if read > BODY_LIMIT {
            return;
        }
    }
}
