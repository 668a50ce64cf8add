//! [`HttpClient`]: calls Restate's ingress and admin APIs.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, InvalidJson, Result};
use crate::limits::{Retrier, RetryPolicy, Side};

/// Calls are small and fast; larger data is sent in pieces.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a call is retried while Restate does not respond. A restart takes seconds.
const RETRY_BUDGET: Duration = Duration::from_secs(5);

/// A client of Restate's ingress, or of its admin API.
#[derive(Clone)]
pub(crate) struct HttpClient {
    http: reqwest::Client,
    /// Without a trailing slash.
    base: String,
}

impl HttpClient {
    /// # Errors
    /// [`ErrorKind::Invalid`] if `url` is not an http or https URL.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let invalid = || Error::new(ErrorKind::Invalid, "Restate's URL is not an http or https URL");
        let parsed = reqwest::Url::parse(url).map_err(|_| invalid())?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.query().is_some() {
            return Err(invalid());
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|cause| {
                Error::new(ErrorKind::Internal, "cannot create an HTTP client").with_source(cause)
            })?;
        Ok(Self { http, base: parsed.as_str().trim_end_matches('/').to_owned() })
    }

    /// Calls a handler of an object with a JSON body, and returns its result.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        service: &str,
        key: &str,
        handler: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|cause| {
            Error::new(ErrorKind::Internal, "a request to Restate cannot be serialized").with_source(cause)
        })?;
        let path = format!("/restate/call/{service}/{key}/{handler}");
        parse(&self.post(&path, Some("application/json"), body.into()).await?)
    }

    /// Calls a handler without a body, and returns its result.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        service: &str,
        key: &str,
        handler: &str,
    ) -> Result<T> {
        parse(&self.call_bytes(service, key, handler, Bytes::new()).await?)
    }

    /// Calls a handler that takes and returns bytes.
    pub(crate) async fn call_bytes(
        &self,
        service: &str,
        key: &str,
        handler: &str,
        body: Bytes,
    ) -> Result<Bytes> {
        let content_type = (!body.is_empty()).then_some("application/octet-stream");
        self.post(&format!("/restate/call/{service}/{key}/{handler}"), content_type, body).await
    }

    /// Returns the rows of an SQL query of the admin API.
    pub(crate) async fn query<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>> {
        let body = json!({ "query": sql }).to_string();
        let response: Value = parse(&self.post("/query", Some("application/json"), body.into()).await?)?;
        let rows = response.get("rows").cloned().unwrap_or_default();
        serde_json::from_value(rows).map_err(unreadable)
    }

    async fn post(&self, path: &str, content_type: Option<&str>, body: Bytes) -> Result<Bytes> {
        let retrier = Retrier::new(Side::OperationStore, RetryPolicy::with_budget(RETRY_BUDGET));
        retrier.run(|| self.post_once(path, content_type, body.clone())).await
    }

    async fn post_once(&self, path: &str, content_type: Option<&str>, body: Bytes) -> Result<Bytes> {
        let mut request = self.http.post(format!("{}{path}", self.base)).header("accept", "application/json");
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let unreachable = |cause: reqwest::Error| {
            Error::new(ErrorKind::Unavailable, "Restate does not respond").with_source(cause.without_url())
        };
        let response = request.body(body).send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        let unexpected_status =
            |kind| Err(Error::new(kind, format!("Restate responded with status {}", status.as_u16())));
        match status {
            status if status.is_success() => Ok(body),
            // The services are not registered, or not yet.
            StatusCode::NOT_FOUND => {
                Err(Error::new(ErrorKind::Unavailable, "the export services are not registered at Restate"))
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                unexpected_status(ErrorKind::Unavailable)
            }
            _ => unexpected_status(ErrorKind::Internal),
        }
    }
}

fn parse<T: DeserializeOwned>(response: &[u8]) -> Result<T> {
    serde_json::from_slice(response).map_err(unreadable)
}

fn unreadable(cause: serde_json::Error) -> Error {
    Error::new(ErrorKind::Internal, "Restate's response cannot be read").with_source(InvalidJson::from(cause))
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpClient")
    }
}
