//! [`Signer`]: puts the credential on requests, and asks for tokens where the credential is the server's identity.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use object_store::azure::{
    AzureAccessKey, AzureAuthorizer, AzureCredential as Signature, AzureCredentialProvider,
    MicrosoftAzureBuilder, split_sas,
};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions, RetryConfig, StaticCredentialProvider};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;

use super::connections::Connections;
use super::container::{AzureContainer, AzureCredential};
use super::policy::Identity;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::retry_after;

/// The emulator's published account key, which is no secret.
const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A SAS has some 300 characters; it becomes part of a URL, which may have 64 KiB.
const LONGEST_SAS: usize = 8 << 10;

/// How long a token may take, its connection included.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// For requests that nobody signs; object_store sends the same with those it does.
const VERSION: HeaderValue = HeaderValue::from_static("2023-11-03");

/// Puts a container's credential on requests.
pub(super) struct Signer {
    /// `None`: nothing is put on them.
    credential: Option<AzureCredentialProvider>,
    /// Whose tokens they are, if they are the server's own.
    tokens: Option<Arc<Connections>>,
}

impl Signer {
    /// # Errors
    /// [`ErrorKind::Invalid`] when the policy or the credential cannot be used as they are.
    pub(super) fn new(container: &AzureContainer, connections: &Arc<Connections>) -> Result<Self> {
        let fixed = |signature| Arc::new(StaticCredentialProvider::new(signature)) as _;
        let mut tokens_of = None;
        let credential = match &container.credential {
            AzureCredential::Sas(sas) => {
                let not_a_sas = || Error::new(ErrorKind::Invalid, "the SAS is not a query string");
                let sas = sas.expose_secret();
                if sas.len() > LONGEST_SAS {
                    return Err(not_a_sas());
                }
                // Its error would quote the SAS.
                Some(fixed(Signature::SASToken(split_sas(sas).map_err(|_| not_a_sas())?)))
            }
            AzureCredential::Emulator => {
                let key = AzureAccessKey::try_new(EMULATOR_KEY);
                let key =
                    key.map_err(|_| Error::new(ErrorKind::Internal, "the emulator's key is not a key"))?;
                Some(fixed(Signature::AccessKey(key)))
            }
            AzureCredential::ManagedIdentity => {
                tokens_of = Some(Arc::clone(connections));
                Some(connections.tokens(|| tokens(container, connections))?)
            }
            AzureCredential::Anonymous => None,
        };
        Ok(Self { credential, tokens: tokens_of })
    }

    /// The destination refused what was signed.
    pub(super) fn refused(&self) {
        if let Some(connections) = &self.tokens {
            connections.forget_tokens();
        }
    }

    /// Puts the credential on a request that is otherwise complete.
    ///
    /// # Errors
    /// Where a token is needed and cannot be had: [`ErrorKind::Unauthorized`] when it was refused, otherwise a
    /// transient kind.
    pub(super) async fn sign(&self, request: &mut HttpRequest, account: &str) -> Result<()> {
        let Some(provider) = &self.credential else {
            add_version(request.headers_mut());
            return Ok(());
        };
        let signature = match tokio::time::timeout(TOKEN_TIMEOUT, provider.get_credential()).await {
            Ok(outcome) => outcome.map_err(no_token)?,
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the identity service did not answer in time",
                ));
            }
        };
        // The authorizer takes it for granted.
        if matches!(&*signature, Signature::BearerToken(token) if !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the identity service gave something that is no token",
            ));
        }
        AzureAuthorizer::new(&signature, account)
            .try_authorize(request)
            .map_err(|_| Error::new(ErrorKind::Internal, "a request could not be signed"))?;
        // What prints a request's headers prints `Sensitive` then, in whatever crate.
        if let Some(credential) = request.headers_mut().get_mut(AUTHORIZATION) {
            credential.set_sensitive(true);
        }
        Ok(())
    }
}

fn add_version(headers: &mut HeaderMap) {
    let date = Utc::now().format("%a, %d %b %Y %T GMT").to_string();
    if let Ok(date) = HeaderValue::try_from(date) {
        headers.insert(DATE, date);
    }
    headers.insert(HeaderName::from_static("x-ms-version"), VERSION);
}

/// The tokens of the server's identity: for any account, whichever the builder is given. They are cached, and renewed
/// before they expire.
fn tokens(container: &AzureContainer, connections: &Connections) -> Result<AzureCredentialProvider> {
    let policy = connections.policy();
    let connector = TokenConnector { metadata: connections.metadata()?, http: connections.blobs()? };
    let builder = MicrosoftAzureBuilder::new()
        .with_account(&container.account)
        .with_container_name(&container.name)
        .with_endpoint(container.endpoint.as_str().trim_end_matches('/').to_owned())
        .with_http_connector(connector)
        // The engine repeats.
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

/// Gives object_store the clients that it asks for tokens with.
#[derive(Debug)]
struct TokenConnector {
    metadata: reqwest::Client,
    http: reqwest::Client,
}

impl HttpConnector for TokenConnector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // object_store allows http to itself for the metadata endpoint, and for nothing else here.
        let metadata =
            options.get_config_value(&ClientConfigKey::AllowHttp).is_some_and(|allowed| allowed == "true");
        Ok(HttpClient::new(TokenService(if metadata { &self.metadata } else { &self.http }.clone())))
    }
}

/// Keeps the status of a refusal: object_store's own error for it has a private type.
#[derive(Debug)]
struct TokenService(reqwest::Client);

#[async_trait]
impl HttpService for TokenService {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let answer = self.0.call(request).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let retry_after = retry_after(answer.headers(), Utc::now());
        // A kind that object_store does not repeat.
        Err(HttpError::new(HttpErrorKind::Unknown, NoToken { status: answer.status(), retry_after }))
    }
}

/// The identity service answered, and not with a token.
#[derive(Debug, thiserror::Error)]
#[error("the identity service answered {status}")]
struct NoToken {
    status: StatusCode,
    retry_after: Option<Duration>,
}

/// What it means that a token could not be had.
fn no_token(cause: object_store::Error) -> Error {
    let mut next: Option<&(dyn StdError + 'static)> = Some(&cause);
    while let Some(error) = next {
        if let Some(NoToken { status, retry_after }) = error.downcast_ref() {
            let (kind, what) = match status.as_u16() {
                // Entra ID and the metadata service say 400 for an identity they do not know.
                400 | 401 | 403 => (ErrorKind::Unauthorized, "the identity service gave no token"),
                429 | 503 => (ErrorKind::Throttled, "the identity service is busy"),
                300..=399 => (ErrorKind::Unsupported, "the identity service answered with a redirect"),
                _ => (ErrorKind::Unavailable, "the identity service failed"),
            };
            let error = Error::new(kind, format!("{what} ({})", status.as_u16()));
            return match retry_after {
                Some(wait) if kind.is_transient() => error.with_retry_after(*wait),
                _ => error,
            };
        }
        next = error.source();
    }
    // The cause is left out: a decoding error may quote what was decoded.
    Error::new(ErrorKind::Unavailable, "the identity service gave no token")
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(***)")
    }
}
