//! Tokens for the server's identity, from the metadata service or Entra ID.

use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use object_store::azure::{AzureCredentialProvider, MicrosoftAzureBuilder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions, RetryConfig};
use reqwest::StatusCode;

use super::connections::Connections;
use super::container::AzureContainer;
use super::policy::Identity;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::retry_after;

/// Creates the provider of tokens for the policy's identity. It caches a token and renews it before it expires. A token is
/// valid for every storage account, so the container serves only to satisfy the builder.
pub(super) fn tokens(
    container: &AzureContainer,
    connections: &Connections,
) -> Result<AzureCredentialProvider> {
    let policy = connections.policy();
    let connector = TokenConnector { metadata: connections.metadata()?, http: connections.blobs()? };
    let builder = MicrosoftAzureBuilder::new()
        .with_account(&container.account)
        .with_container_name(&container.name)
        .with_endpoint(container.endpoint.as_str().trim_end_matches('/').to_owned())
        .with_http_connector(connector)
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

/// Keeps the status of a failed token request, which object_store hides in a private type.
#[derive(Debug)]
struct TokenService(reqwest::Client);

#[async_trait]
impl HttpService for TokenService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let response = self.0.call(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers(), Utc::now());
        // A kind that object_store does not retry.
        Err(HttpError::new(HttpErrorKind::Unknown, TokenRefused { status: response.status(), retry_after }))
    }
}

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
