//! [`CloudEvents`]: sends the end of each operation to a URL, as a signed CloudEvent.

use std::error::Error as StdError;
use std::fmt;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use dicom_export::{Error, ErrorKind, ExportObserver, OperationRecord, Result};
use serde_json::json;

/// How long the receiver may take. The engine drops a call after 30 seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// The type of the events.
const EVENT_TYPE: &str = "dicom-export.operation.ended.v1";

/// Sends an event for each operation that ends: CloudEvents 1.0 in the binary mode of its HTTP binding, signed as the
/// Standard Webhooks specification describes.
///
/// The body is `{"operation": …, "partition": …, "caller": …}`, with the status document. An event that the receiver has not
/// accepted with a 2xx status is sent again, also after a restart: the engine repeats the call. Its `ce-id` stays the same,
/// so that the receiver can ignore repetitions.
pub struct CloudEvents {
    http: reqwest::Client,
    url: reqwest::Url,
    /// The `ce-source` of the events.
    source: String,
    key: hmac::Key,
}

impl CloudEvents {
    /// Creates the sender of events to `url`, signed with a shared key of at least 24 bytes. `source` identifies this server
    /// to the receiver, for example by its public URL.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a URL that is not http or https, or a key that is too short. The message contains neither.
    pub fn new(url: &str, source: impl Into<String>, key: &[u8]) -> Result<Self> {
        let invalid = |message: &'static str| Error::new(ErrorKind::Invalid, message);
        let url = reqwest::Url::parse(url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| invalid("the URL for events is not an http or https URL"))?;
        if key.len() < 24 {
            return Err(invalid("the key for events has fewer than 24 bytes"));
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|cause| invalid("cannot create an HTTP client").with_source(cause))?;
        Ok(Self { http, url, source: source.into(), key: hmac::Key::new(hmac::HMAC_SHA256, key) })
    }

    /// Creates the sender with the key in the environment variable `EVENTS_KEY`, in base64.
    ///
    /// # Errors
    /// As [`new`](Self::new); also if the variable is missing or is not base64.
    pub fn with_key_from_env(url: &str, source: impl Into<String>) -> Result<Self, Box<dyn StdError>> {
        let key = std::env::var("EVENTS_KEY").map_err(|_| "EVENTS_KEY is missing")?;
        let key = BASE64_STANDARD.decode(key.trim()).map_err(|_| "EVENTS_KEY is not base64")?;
        Ok(Self::new(url, source, &key)?)
    }

    /// The signature of an event: base64 of the HMAC-SHA-256 of its id, the time of the request, and its body.
    fn sign(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

#[async_trait]
impl ExportObserver for CloudEvents {
    async fn operation_ended(&self, record: &OperationRecord) -> Result<()> {
        let (operation, context) = (&record.operation, &record.context);
        // A failed operation that was resumed ends again, at another time.
        let id = format!("{}.{}", operation.operation_id, operation.last_updated_time);
        let body =
            json!({ "operation": operation, "partition": context.partition, "caller": context.caller });
        let body = body.to_string();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = self
            .http
            .post(self.url.clone())
            .header("content-type", "application/json")
            .header("ce-specversion", "1.0")
            .header("ce-type", EVENT_TYPE)
            .header("ce-source", &self.source)
            .header("ce-id", &id)
            .header("ce-subject", operation.operation_id.to_string())
            .header("ce-time", operation.last_updated_time.to_string())
            .header("webhook-id", &id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.sign(&id, now, body.as_bytes()));
        // The URL may contain a token.
        let response = request.body(body).send().await.map_err(|cause| {
            Error::new(ErrorKind::Unavailable, "the receiver of events cannot be reached")
                .with_source(cause.without_url())
        })?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the receiver of events responded with status {}", status.as_u16()),
            )),
        }
    }
}

impl fmt::Debug for CloudEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudEvents").field("source", &self.source).finish_non_exhaustive()
    }
}
