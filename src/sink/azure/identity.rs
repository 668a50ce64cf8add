//! Tokens for the server's identity, from the metadata service or Entra ID.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Timelike, Utc};
use futures::StreamExt;
use object_store::azure::{AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
    HttpService,
};
use object_store::{ClientConfigKey, ClientOptions, RetryConfig};
use reqwest::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::policy::{AzureBlobPolicy, Identity};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::retry_after;

/// The longest lifetime of a token. Those of managed identities are valid for up to 24 hours.
const MAX_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// The lifetime of a token whose response contains none.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// The largest response that is read. A usual one has 2 KiB.
const MAX_RESPONSE_BYTES: usize = 256 << 10;

/// Creates the provider of tokens for the policy's identity. It caches a token and renews it before it expires. A token is
/// valid for every storage account.
///
/// # Errors
/// [`ErrorKind::Invalid`] if the policy's identity cannot be used.
pub(super) fn tokens(
    policy: &AzureBlobPolicy,
    metadata: reqwest::Client,
    http: reqwest::Client,
) -> Result<AzureCredentialProvider> {
    let builder = MicrosoftAzureBuilder::new()
        // The builder requires a container, although it sends no requests to it.
        .with_account("account")
        .with_container_name("container")
        .with_http_connector(TokenConnector { metadata, http })
        // The engine retries.
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
    let builder = match policy.identity() {
        Identity::SystemAssigned => builder.with_credential_type("managed_identity"),
        Identity::UserAssigned { client_id } => {
            builder.with_credential_type("managed_identity").with_client_id(client_id)
        }
        Identity::Workload { tenant_id, client_id, token_file } => builder
            .with_credential_type("workload_identity")
            .with_tenant_id(tenant_id)
            .with_client_id(client_id)
            .with_federated_token_file(token_file.to_string_lossy()),
    };
    let builder = match policy.identity_endpoint() {
        Some(endpoint) => builder.with_msi_endpoint(endpoint),
        None => builder,
    };
    let builder = match policy.authority_host() {
        Some(host) => builder.with_authority_host(host.trim_end_matches('/')),
        None => builder,
    };
    let unusable = |_| Error::new(ErrorKind::Invalid, "the policy's identity cannot be used");
    Ok(Arc::clone(builder.build().map_err(unusable)?.credentials()))
}

/// Gives object_store the clients for token requests.
#[derive(Debug)]
struct TokenConnector {
    metadata: reqwest::Client,
    http: reqwest::Client,
}

impl HttpConnector for TokenConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // object_store allows http for the metadata endpoint only.
        let is_metadata =
            options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|allowed| allowed == "true");
        let client = if is_metadata { &self.metadata } else { &self.http };
        Ok(HttpClient::new(TokenService(client.clone())))
    }
}

/// Sends token requests. It keeps the status of a failed request, which object_store hides in a private type, and
/// rewrites responses, of which object_store reads one form.
#[derive(Debug)]
struct TokenService(reqwest::Client);

#[async_trait]
impl HttpService for TokenService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.call(request).await?;
        if response.status() == StatusCode::OK {
            let (parts, body) = response.into_parts();
            let token = read(body).await.and_then(|body| serde_json::from_slice::<TokenResponse>(&body).ok());
            let token = token.ok_or_else(|| HttpError::new(HttpErrorKind::Decode, NotAToken))?;
            return Ok(HttpResponse::from_parts(parts, token.normalized(Utc::now()).into()));
        }
        let retry_after = retry_after(response.headers(), Utc::now());
        // A kind that object_store does not retry.
        Err(HttpError::new(HttpErrorKind::Unknown, TokenRefused { status: response.status(), retry_after }))
    }
}

/// Reads a response, unless it is too large or ends early.
async fn read(body: HttpResponseBody) -> Option<Vec<u8>> {
    let (mut chunks, mut read) = (body.bytes_stream(), Vec::new());
    while let Some(chunk) = chunks.next().await {
        read.extend_from_slice(&chunk.ok()?);
        if read.len() > MAX_RESPONSE_BYTES {
            return None;
        }
    }
    Some(read)
}

/// A response of Entra ID, the metadata service or App Service ("How to use managed identities for Azure resources on an
/// Azure VM to acquire an access token", "How to use managed identities for App Service and Azure Functions").
#[derive(Deserialize)]
struct TokenResponse {
    access_token: String,
    #[serde(default)]
    expires_on: Value,
    #[serde(default)]
    expires_in: Value,
}

impl TokenResponse {
    /// The response in the form that object_store reads.
    fn normalized(&self, now: DateTime<Utc>) -> String {
        let lifetime = self.lifetime(now).as_secs();
        let expires_on = now.timestamp().unsigned_abs() + lifetime;
        json!({
            "access_token": self.access_token,
            "expires_on": expires_on.to_string(),
            "expires_in": lifetime,
        })
        .to_string()
    }

    /// The seconds of `expires_in`, which do not depend on this machine's clock, or else the time until `expires_on`.
    fn lifetime(&self, now: DateTime<Utc>) -> Duration {
        let seconds = seconds(&self.expires_in)
            .or_else(|| seconds(&self.expires_on).map(|time| time - now.timestamp() as f64))
            .or_else(|| Some((date(self.expires_on.as_str()?)? - now).num_seconds() as f64));
        match seconds {
            Some(seconds) => Duration::from_secs_f64(seconds.clamp(0.0, MAX_LIFETIME.as_secs_f64())),
            None => DEFAULT_LIFETIME,
        }
    }
}

/// A number, or the text of one.
fn seconds(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    (!number.is_nan()).then_some(number)
}

/// An RFC 3339 time, or a date of App Service: `09/14/2017 00:00:00 PM +00:00`, with or without `AM` or `PM`.
fn date(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text.trim()) {
        return Some(time.to_utc());
    }
    let is_afternoon = text.contains(" PM ");
    let text = text.replace(" AM ", " ").replace(" PM ", " ");
    let time = DateTime::parse_from_str(text.trim(), "%m/%d/%Y %H:%M:%S %z").ok()?.to_utc();
    Some(if is_afternoon && time.hour() < 12 { time + TimeDelta::hours(12) } else { time })
}

/// The identity service responded with something else than a token. The cause would quote it.
#[derive(Debug, thiserror::Error)]
#[error("the identity service responded without a token")]
struct NotAToken;

/// The identity service responded with an error status.
#[derive(Debug, thiserror::Error)]
#[error("the identity service responded with {status}")]
struct TokenRefused {
    status: StatusCode,
    retry_after: Option<Duration>,
}

/// The error for a token that could not be obtained.
pub(super) fn no_token(cause: object_store::Error) -> Error {
    let mut next: Option<&(dyn StdError + 'static)> = Some(&cause);
    while let Some(error) = next {
        if let Some(TokenRefused { status, retry_after }) = error.downcast_ref() {
            let (kind, message) = match status.as_u16() {
                // Entra ID and the metadata service respond with 400 for an unknown identity.
                400 | 401 | 403 => (ErrorKind::Unauthorized, "the identity service refused a token"),
                429 | 503 => (ErrorKind::Throttled, "the identity service is busy"),
                300..=399 => (ErrorKind::Unsupported, "the identity service responded with a redirect"),
                _ => (ErrorKind::Unavailable, "the identity service failed"),
            };
            let error = Error::new(kind, format!("{message} ({})", status.as_u16()));
            return match retry_after {
                Some(wait) if kind.is_transient() => error.with_retry_after(*wait),
                _ => error,
            };
        }
        next = error.source();
    }
    // The cause is left out: a decoding error may quote the response.
    Error::new(ErrorKind::Unavailable, "the identity service returned no token")
}
