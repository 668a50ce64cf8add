//! A thin client of Restate's ingress and admin APIs.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Retrier, RetryPolicy};

/// Calls are small and quick; what is larger is cut in pieces.
const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a call is repeated while Restate does not answer: it restarts within seconds.
const BUDGET: Duration = Duration::from_secs(5);

/// Restate's ingress, or its admin API.
#[derive(Clone)]
pub(crate) struct Door {
    http: reqwest::Client,
    /// Without a slash at its end.
    base: String,
}

impl Door {
    /// # Errors
    /// [`ErrorKind::Invalid`] for a URL that is none.
    pub(crate) fn new(url: &str) -> Result<Self> {
        let invalid = || Error::new(ErrorKind::Invalid, "Restate's URL is not an http or https URL");
        let parsed = reqwest::Url::parse(url).map_err(|_| invalid())?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.query().is_some() {
            return Err(invalid());
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|cause| Error::new(ErrorKind::Internal, "no HTTP client").with_source(cause))?;
        Ok(Self { http, base: parsed.as_str().trim_end_matches('/').to_owned() })
    }

    /// Calls a handler of an object, and waits for what it returns.
    pub(crate) async fn call<T: DeserializeOwned>(
        &self,
        service: &str,
        key: &str,
        handler: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T> {
        let body = serde_json::to_vec(body).map_err(|cause| unreadable().with_source(cause))?;
        let path = format!("/restate/call/{service}/{key}/{handler}");
        let answer = self.post(&path, Some("application/json"), body.into()).await?;
        serde_json::from_slice(&answer).map_err(|cause| unreadable().with_source(cause))
    }

    /// Calls a handler that takes nothing.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        service: &str,
        key: &str,
        handler: &str,
    ) -> Result<T> {
        let answer = self.bytes(service, key, handler, Bytes::new()).await?;
        serde_json::from_slice(&answer).map_err(|cause| unreadable().with_source(cause))
    }

    /// Calls a handler of bytes.
    pub(crate) async fn bytes(&self, service: &str, key: &str, handler: &str, body: Bytes) -> Result<Bytes> {
        let kind = (!body.is_empty()).then_some("application/octet-stream");
        self.post(&format!("/restate/call/{service}/{key}/{handler}"), kind, body).await
    }

    /// The rows that an SQL query of the admin API gives.
    pub(crate) async fn query<T: DeserializeOwned>(&self, sql: &str) -> Result<Vec<T>> {
        let body = json!({ "query": sql }).to_string();
        let answer = self.post("/query", Some("application/json"), body.into()).await?;
        let answer: Value =
            serde_json::from_slice(&answer).map_err(|cause| unreadable().with_source(cause))?;
        let rows = answer.get("rows").cloned().unwrap_or_default();
        serde_json::from_value(rows).map_err(|cause| unreadable().with_source(cause))
    }

    async fn post(&self, path: &str, content_type: Option<&str>, body: Bytes) -> Result<Bytes> {
        let retrier = Retrier::new(RetryPolicy::with_budget(BUDGET));
        retrier.run(|| self.post_once(path, content_type, body.clone())).await
    }

    async fn post_once(&self, path: &str, content_type: Option<&str>, body: Bytes) -> Result<Bytes> {
        let mut request = self.http.post(format!("{}{path}", self.base)).header("accept", "application/json");
        if let Some(kind) = content_type {
            request = request.header("content-type", kind);
        }
        let unanswered = |cause: reqwest::Error| {
            Error::new(ErrorKind::Unavailable, "Restate does not answer").with_source(cause.without_url())
        };
        let answer = request.body(body).send().await.map_err(unanswered)?;
        let status = answer.status();
        let body = answer.bytes().await.map_err(unanswered)?;
        match status {
            status if status.is_success() => Ok(body),
            // The services are not registered, or not yet.
            StatusCode::NOT_FOUND => {
                Err(Error::new(ErrorKind::Unavailable, "Restate does not know the export's services"))
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Err(Error::new(
                ErrorKind::Unavailable,
                format!("Restate answers with status {}", status.as_u16()),
            )),
            status => Err(Error::new(
                ErrorKind::Internal,
                format!("Restate answers with status {}", status.as_u16()),
            )),
        }
    }
}

fn unreadable() -> Error {
    Error::new(ErrorKind::Internal, "Restate's answer cannot be read")
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Door")
    }
}
