//! [`Client`]: sends requests to one DICOMweb server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{StatusCode, Url};

use super::credentials::DicomWebCredentials;
use super::request_limiter::RequestLimiter;
use super::response::{Response, status_error};
use crate::error::{Error, ErrorKind, Result};

/// The maximum number of redirects that one request follows.
const MAX_REDIRECTS: usize = 5;

/// The kind of a request. Each kind has its own concurrency limit.
#[derive(Debug, Clone, Copy)]
pub(super) enum RequestKind {
    /// QIDO-RS.
    Query,
    /// WADO-RS.
    Retrieve,
}

/// Sends `GET` requests below one service root. It retries only a request whose token was rejected.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    clients: HttpClients,
    /// The service root; its path may end with a slash.
    root: Url,
    credentials: DicomWebCredentials,
    /// Extra headers, as secret as the credentials.
    headers: HeaderMap,
    queries: RequestLimiter,
    retrievals: RequestLimiter,
    timeout: Duration,
    returns_single_parts: AtomicBool,
}

/// The HTTP clients for the two schemes: a server for one of them may redirect to the other.
pub(super) struct HttpClients {
    /// Uses the proxies of the environment, through a tunnel.
    pub(super) https: reqwest::Client,
    /// Uses no proxy, which would receive credentials and instances in the clear.
    pub(super) http: reqwest::Client,
}

/// The parts of a [`Client`].
pub(super) struct ClientConfig {
    pub(super) clients: HttpClients,
    pub(super) root: Url,
    pub(super) credentials: DicomWebCredentials,
    pub(super) headers: HeaderMap,
    pub(super) max_queries: usize,
    pub(super) max_retrievals: usize,
    pub(super) timeout: Duration,
}

impl Client {
    pub(super) fn new(config: ClientConfig) -> Self {
        let ClientConfig { clients, root, credentials, headers, max_queries, max_retrievals, timeout } =
            config;
        let (queries, retrievals) = (RequestLimiter::new(max_queries), RequestLimiter::new(max_retrievals));
        let returns_single_parts = AtomicBool::new(false);
        Self(Arc::new(Inner {
            clients,
            root,
            credentials,
            headers,
            queries,
            retrievals,
            timeout,
            returns_single_parts,
        }))
    }

    pub(super) fn root(&self) -> &Url {
        &self.0.root
    }

    /// Whether the server returned a single part after it had rejected a request for a multipart response.
    pub(super) fn returns_single_parts(&self) -> bool {
        self.0.returns_single_parts.load(Relaxed)
    }

    pub(super) fn set_returns_single_parts(&self) {
        self.0.returns_single_parts.store(true, Relaxed);
    }

    /// Waits for a permit and gets the resource at this path below the service root.
    ///
    /// # Errors
    /// [`status_error`] unless the status is 2xx; [`ErrorKind::Unavailable`] without a response; those of the
    /// credentials.
    pub(super) async fn get(
        &self,
        kind: RequestKind,
        path: &str,
        query: Option<&str>,
        accept: &'static str,
    ) -> Result<Response> {
        let limiter = match kind {
            RequestKind::Query => &self.0.queries,
            RequestKind::Retrieve => &self.0.retrievals,
        };
        let mut url = self.0.root.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        url.set_query(query);
        let permit = limiter.acquire().await;
        let response = self.send(url, accept).await?;
        if response.status().is_success() {
            return Ok(Response::new(response, permit, self.0.timeout));
        }
        let error = status_error(response.status(), response.headers());
        if let Some(wait) = error.retry_after() {
            limiter.pause(wait);
        }
        Err(error)
    }

    /// Sends a request and follows redirects. Only requests to the source's own server carry secrets.
    async fn send(&self, mut url: Url, accept: &'static str) -> Result<reqwest::Response> {
        let (mut redirects, mut token_renewed) = (0, false);
        loop {
            let headers = HeaderMap::from_iter([
                (ACCEPT, HeaderValue::from_static(accept)),
                // A compressed body would not be the stored bytes. Without this header reqwest could ask for one.
                (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            ]);
            let client = match url.scheme() {
                "https" => &self.0.clients.https,
                _ => &self.0.clients.http,
            };
            let mut request = client.get(url.clone()).headers(headers);
            let mut token = None;
            if url.origin() == self.0.root.origin() {
                request = request.headers(self.0.headers.clone());
                (request, token) = self.0.credentials.apply(request).await?;
            }
            let Ok(response) = tokio::time::timeout(self.0.timeout, request.send()).await else {
                return Err(Error::new(ErrorKind::Unavailable, "the server did not respond in time"));
            };
            let response = response.map_err(connection_error)?;
            match (response.status(), token) {
                (StatusCode::UNAUTHORIZED, Some(token)) => {
                    self.0.credentials.invalidate(token).await;
                    if token_renewed {
                        return Ok(response);
                    }
                    token_renewed = true;
                }
                (status, _) if is_redirect(status) && response.headers().contains_key(LOCATION) => {
                    redirects += 1;
                    url = redirect_target(&url, response.headers(), redirects)?;
                }
                _ => return Ok(response),
            }
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn redirect_target(from: &Url, headers: &HeaderMap, redirects: usize) -> Result<Url> {
    // These concern the server, not what was requested, and may be temporary.
    let unusable = |message| Error::new(ErrorKind::Unavailable, message);
    if redirects > MAX_REDIRECTS {
        return Err(unusable("the server redirects too many times"));
    }
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let mut to = location
        .and_then(|location| from.join(location).ok())
        .filter(|to| matches!(to.scheme(), "http" | "https"))
        .ok_or_else(|| unusable("the server returned a redirect without a usable target"))?;
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(unusable("the server redirects from https to http, which is not followed"));
    }
    // The HTTP client would send a user in the URL as a credential.
    if !to.username().is_empty() || to.password().is_some() {
        _ = (to.set_username(""), to.set_password(None));
    }
    Ok(to)
}

/// The error for a request without a response.
fn connection_error(cause: reqwest::Error) -> Error {
    let cause = cause.without_url();
    if cause.is_builder() {
        return Error::new(ErrorKind::Internal, "the request to the server is invalid").with_source(cause);
    }
    Error::new(ErrorKind::Unavailable, "the server cannot be reached").with_source(cause)
}
