//! [`StoreConnector`]: sends the requests of a client of the crate `object_store`.
//!
//! The errors of `object_store` hide the code and `Retry-After` of a response. The service returns an [`Error`] of this crate
//! in place of a response that `object_store` need not see, which `object_store_error` finds among the causes of an error.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use object_store::ClientConfigKey;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{Method, StatusCode};

use crate::error::{Error, ErrorKind};
use crate::limits::with_retry_after;
use crate::object_store_error::{CREDENTIAL_CODES, THROTTLING_CODES};

/// How long a request may take until the head of its response, without the time to transfer its body.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The lowest transfer rate that is waited for, in bytes per second.
const MIN_TRANSFER_RATE: u64 = 64 << 10;

/// The longest body of an error that is read.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// The longest response of an identity service that is read. A usual one has 2 KiB.
const MAX_CREDENTIAL_BYTES: usize = 256 << 10;

/// The longest error code that is repeated in a message.
const MAX_CODE_LENGTH: usize = 64;

/// Codes of responses to a request whose body was damaged on the way.
const DAMAGED_CODES: [&str; 6] = [
    "BadDigest",
    "CrcMismatch",
    "InvalidDigest",
    "XAmzContentSHA256Mismatch",
    "XAmzContentChecksumMismatch",
    "IncompleteBody",
];

/// Codes of responses with status 409 to requests that may succeed if they are repeated.
const RACE_CODES: [&str; 2] = ["ConditionalRequestConflict", "OperationAborted"];

/// The checksums of the bodies of requests.
#[async_trait]
pub(crate) trait BodyChecksum: Debug + Send + Sync + 'static {
    /// Returns the checksum in a request, and adds it unless `object_store` does.
    async fn sent(&self, request: &mut HttpRequest) -> Option<String>;

    /// Returns the checksum that a response states for what has been stored.
    fn stored(&self, headers: &HeaderMap) -> Option<String>;
}

/// Gives a client of `object_store` one HTTP client for all its requests.
#[derive(Debug)]
pub(crate) struct StoreConnector(StoreService);

impl StoreConnector {
    pub(crate) fn new(client: reqwest::Client, checksum: impl BodyChecksum) -> Self {
        Self(StoreService { client, checksum: Arc::new(checksum) })
    }

    pub(crate) fn client(&self) -> HttpClient {
        HttpClient::new(self.0.clone())
    }
}

impl HttpConnector for StoreConnector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.client())
    }
}

#[derive(Debug, Clone)]
struct StoreService {
    client: reqwest::Client,
    checksum: Arc<dyn BodyChecksum>,
}

#[async_trait]
impl HttpService for StoreService {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        mark_secrets(request.headers_mut());
        let method = request.method().clone();
        let sent = self.checksum.sent(&mut request).await;
        let length = request.body().content_length() as u64;
        let limit = REQUEST_TIMEOUT + Duration::from_secs(length / MIN_TRANSFER_RATE);
        let exchange = async {
            let response = check(&method, self.client.call(request).await?).await?;
            match (sent, self.checksum.stored(response.headers())) {
                (Some(sent), Some(stored)) if sent != stored => {
                    let message =
                        "checksum mismatch: the store reports another checksum than that of the data sent";
                    Err(failed(Error::new(ErrorKind::Unavailable, message)))
                }
                _ => Ok(response),
            }
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(failed(Error::new(ErrorKind::Unavailable, "the store timed out"))),
        }
    }
}

/// `Debug` of the headers then prints `Sensitive`, in every crate.
fn mark_secrets(headers: &mut HeaderMap) {
    for name in [AUTHORIZATION, HeaderName::from_static("x-amz-security-token")] {
        if let Some(credential) = headers.get_mut(name) {
            credential.set_sensitive(true);
        }
    }
}

/// A failure that `object_store` neither retries nor interprets.
fn failed(error: Error) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

async fn check(method: &Method, response: HttpResponse) -> Result<HttpResponse, HttpError> {
    let status = response.status();
    if is_success(method, status) {
        if *method != Method::GET && is_web_page(response.headers()) {
            return Err(failed(gateway()));
        }
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = read(body, MAX_ERROR_BYTES).await;
    match refusal(status, code(&body), &parts.headers) {
        Some(error) => Err(failed(with_retry_after(error, &parts.headers))),
        None => Ok(HttpResponse::from_parts(parts, body.into())),
    }
}

/// Whether this is the documented status of a request that succeeded. Others come from something in front of the store.
fn is_success(method: &Method, status: StatusCode) -> bool {
    match *method {
        Method::GET => matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT),
        Method::DELETE => matches!(status, StatusCode::OK | StatusCode::NO_CONTENT),
        _ => status == StatusCode::OK,
    }
}

/// Whether a body is a web page, which no store sends.
fn is_web_page(headers: &HeaderMap) -> bool {
    let is_html = headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    is_html && headers.get(CONTENT_LENGTH).is_none_or(|length| length != "0")
}

fn gateway() -> Error {
    Error::new(ErrorKind::Unavailable, "a gateway responded with a web page in place of the store")
}

/// The error for a response without success. Returns `None` if `object_store` must interpret the response itself.
fn refusal(status: StatusCode, code: &str, headers: &HeaderMap) -> Option<Error> {
    let (kind, message) = match (status.as_u16(), code) {
        (304 | 412, _) => return None,
        (429 | 503, _) => (ErrorKind::Throttled, "the store asks for fewer requests"),
        (500.., code) if THROTTLING_CODES.contains(&code) => {
            (ErrorKind::Throttled, "the store asks for fewer requests")
        }
        // Some stores set this type for XML too.
        _ if code.is_empty() && is_web_page(headers) => return Some(gateway()),
        (404, "NoSuchBucket") => (ErrorKind::NotFound, "the bucket does not exist"),
        (404, _) => return None,
        (400, code) if DAMAGED_CODES.contains(&code) => {
            (ErrorKind::Unavailable, "checksum mismatch: the request was damaged on the way")
        }
        (400 | 408, "RequestTimeout") | (408, _) => {
            (ErrorKind::Unavailable, "the store waited for the request")
        }
        (400, code) if CREDENTIAL_CODES.contains(&code) => {
            (ErrorKind::Unauthorized, "the store refused the credential")
        }
        (401 | 403, _) => (ErrorKind::Unauthorized, "the store refused the credential or the permission"),
        (409, code) if RACE_CODES.contains(&code) => {
            (ErrorKind::Unavailable, "the store was changing the object")
        }
        (409, _) => return None,
        (407, _) => (ErrorKind::Unavailable, "a proxy in front of the store requires authentication"),
        (301 | 308, _) => (
            ErrorKind::Invalid,
            "the store responded with a redirect, which is not followed: the bucket may be in another region",
        ),
        (300..=399, _) => {
            (ErrorKind::Unavailable, "the store responded with a redirect, and redirects are not followed")
        }
        (501 | 505, _) => (ErrorKind::Unsupported, "the store does not support the request"),
        (500.., _) => (ErrorKind::Unavailable, "the store failed"),
        (400..=499, _) => (ErrorKind::Invalid, "the store refused the request"),
        _ => (ErrorKind::Unavailable, "the store responded with an unexpected status"),
    };
    let separator = if code.is_empty() { "" } else { " " };
    Some(Error::new(kind, format!("{message} ({}{separator}{code})", status.as_u16())))
}

/// The error code in the XML or JSON of a response; `""` if there is none, or if it is not a name.
fn code(body: &[u8]) -> &str {
    let text = str::from_utf8(body).unwrap_or_default();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
    let code = code.map_or("", |(code, _)| code);
    let is_name = code.len() <= MAX_CODE_LENGTH && code.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_name { code } else { "" }
}

/// Reads a body up to a size. A body that ends early is returned as far as it was received.
async fn read(body: HttpResponseBody, max: usize) -> Vec<u8> {
    let (mut chunks, mut read) = (body.bytes_stream(), Vec::new());
    while let Some(Ok(chunk)) = chunks.next().await {
        let rest = max - read.len();
        read.extend_from_slice(&chunk[..chunk.len().min(rest)]);
        if read.len() == max {
            break;
        }
    }
    read
}

/// Gives `object_store` the clients for requests of credentials.
#[derive(Debug)]
pub(crate) struct CredentialConnector {
    metadata: reqwest::Client,
    https: reqwest::Client,
}

impl CredentialConnector {
    /// `metadata` is for the services of the machine, `https` for those of the cloud.
    pub(crate) fn new(metadata: reqwest::Client, https: reqwest::Client) -> Self {
        Self { metadata, https }
    }
}

impl HttpConnector for CredentialConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // object_store allows http for the services of the machine only.
        let is_metadata =
            options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|allowed| allowed == "true");
        let client = if is_metadata { &self.metadata } else { &self.https };
        Ok(HttpClient::new(CredentialService(client.clone())))
    }
}

/// Sends requests of credentials. It keeps the status of a failed request, and bounds the size of a response.
#[derive(Debug)]
struct CredentialService(reqwest::Client);

#[async_trait]
impl HttpService for CredentialService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let exchange = async {
            let (parts, body) = self.0.call(request).await?.into_parts();
            Ok::<_, HttpError>((parts, read(body, MAX_CREDENTIAL_BYTES).await))
        };
        let Ok(response) = tokio::time::timeout(REQUEST_TIMEOUT, exchange).await else {
            return Err(failed(Error::new(ErrorKind::Unavailable, "the identity service timed out")));
        };
        let (parts, body) = response?;
        if parts.status == StatusCode::OK {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        let (kind, message) = match parts.status.as_u16() {
            400..=404 => (ErrorKind::Unauthorized, "the identity service refused the credentials"),
            429 | 503 => (ErrorKind::Throttled, "the identity service is busy"),
            300..=399 => (ErrorKind::Unsupported, "the identity service responded with a redirect"),
            _ => (ErrorKind::Unavailable, "the identity service failed"),
        };
        let error = Error::new(kind, format!("{message} ({})", parts.status.as_u16()));
        Err(failed(with_retry_after(error, &parts.headers)))
    }
}
