//! [`Client`]: requests towards one DICOMweb server.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderValue, LOCATION};
use reqwest::{StatusCode, Url};

use super::answer::{Answer, refusal};
use super::credentials::DicomWebCredentials;
use super::lane::Lane;
use crate::error::{Error, ErrorKind, Result};

/// How many redirects one request follows.
const MOST_REDIRECTS: usize = 5;

/// What a request is for; each kind has a limit of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Listing,
    Reading,
}

/// Sends `GET` requests below one service root. It repeats nothing but a request whose token was refused.
#[derive(Clone)]
pub(super) struct Client(Arc<Inner>);

struct Inner {
    http: reqwest::Client,
    /// The service root, without a slash at its end.
    root: Url,
    credentials: DicomWebCredentials,
    /// Extra headers, as secret as the credentials.
    headers: HeaderMap,
    listing: Lane,
    reading: Lane,
    patience: Duration,
}

/// What a [`Client`] is made of.
pub(super) struct Parts {
    pub(super) http: reqwest::Client,
    pub(super) root: Url,
    pub(super) credentials: DicomWebCredentials,
    pub(super) headers: HeaderMap,
    pub(super) listing: usize,
    pub(super) reading: usize,
    pub(super) patience: Duration,
}

impl Client {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { http, root, credentials, headers, listing, reading, patience } = parts;
        let (listing, reading) = (Lane::new(listing), Lane::new(reading));
        Self(Arc::new(Inner { http, root, credentials, headers, listing, reading, patience }))
    }

    pub(super) fn root(&self) -> &Url {
        &self.0.root
    }

    /// Waits for a turn and asks for what lies at this path below the service root.
    ///
    /// # Errors
    /// What the status means, unless it is 2xx; [`ErrorKind::Unavailable`] when there is no answer; those of the
    /// credentials.
    pub(super) async fn get(
        &self,
        kind: Kind,
        path: &str,
        query: Option<&str>,
        accept: &'static str,
    ) -> Result<Answer> {
        let lane = match kind {
            Kind::Listing => &self.0.listing,
            Kind::Reading => &self.0.reading,
        };
        let mut url = self.0.root.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        url.set_query(query);
        let place = lane.enter().await;
        let response = self.follow(url, accept).await?;
        if response.status().is_success() {
            return Ok(Answer::new(response, place, self.0.patience));
        }
        let error = refusal(response.status(), response.headers());
        if let Some(wait) = error.retry_after() {
            lane.pause(wait);
        }
        Err(error)
    }

    /// Sends a request to where it is redirected. Only requests to the source's own server carry anything that is
    /// secret.
    async fn follow(&self, mut url: Url, accept: &'static str) -> Result<reqwest::Response> {
        let (mut redirects, mut renewed) = (0, false);
        loop {
            let headers = HeaderMap::from_iter([
                (ACCEPT, HeaderValue::from_static(accept)),
                // A compressed body would be no stored bytes, and reqwest must not ask for one by itself.
                (ACCEPT_ENCODING, HeaderValue::from_static("identity")),
            ]);
            let mut request = self.0.http.get(url.clone()).headers(headers);
            let mut token = None;
            if url.origin() == self.0.root.origin() {
                request = request.headers(self.0.headers.clone());
                (request, token) = self.0.credentials.put_on(request).await?;
            }
            let response = match tokio::time::timeout(self.0.patience, request.send()).await {
                Ok(response) => response.map_err(unreachable)?,
                Err(_) => {
                    return Err(Error::new(ErrorKind::Unavailable, "the server did not answer in time"));
                }
            };
            match (response.status(), token) {
                (StatusCode::UNAUTHORIZED, Some(token)) => {
                    self.0.credentials.refused(token).await;
                    if renewed {
                        return Ok(response);
                    }
                    renewed = true;
                }
                (status, _) if is_redirect(status) && response.headers().contains_key(LOCATION) => {
                    redirects += 1;
                    url = target(&url, response.headers(), redirects)?;
                }
                _ => return Ok(response),
            }
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads.
fn target(from: &Url, headers: &HeaderMap, redirects: usize) -> Result<Url> {
    let refused = |message| Error::new(ErrorKind::Unsupported, message);
    if redirects > MOST_REDIRECTS {
        return Err(refused("the server redirects without end"));
    }
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let mut to = location
        .and_then(|location| from.join(location).ok())
        .filter(|to| matches!(to.scheme(), "http" | "https"))
        .ok_or_else(|| refused("the server answered with a redirect that leads nowhere"))?;
    if from.scheme() == "https" && to.scheme() == "http" {
        return Err(refused("the server redirects from https to http, which is not followed"));
    }
    // A user in a URL would become a credential.
    if !to.username().is_empty() || to.password().is_some() {
        _ = (to.set_username(""), to.set_password(None));
    }
    Ok(to)
}

/// The error when there is no answer.
fn unreachable(cause: reqwest::Error) -> Error {
    let cause = cause.without_url();
    if cause.is_builder() {
        return Error::new(ErrorKind::Internal, "a request to the server cannot be made").with_source(cause);
    }
    Error::new(ErrorKind::Unavailable, "the server cannot be reached").with_source(cause)
}
