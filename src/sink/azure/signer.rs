//! [`Signer`]: adds a container's credential to requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use object_store::azure::{
    AzureAccessKey, AzureAuthorizer, AzureCredential as Signature, AzureCredentialProvider,
};
use object_store::client::HttpRequest;
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;

use super::connections::Connections;
use super::container::{AzureContainer, AzureCredential, EMULATOR_KEY};
use super::identity::no_token;
use super::sas::SasFields;
use crate::error::{Error, ErrorKind, Result};

/// How long a token may take, including the connection.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The API version of requests without a credential; object_store adds the same to those it signs.
const VERSION: HeaderValue = HeaderValue::from_static("2023-11-03");

/// Adds a container's credential to requests.
pub(super) enum Signer {
    Anonymous,
    /// A SAS or an account key.
    Fixed(Signature),
    /// Tokens of the server's identity.
    Identity(Arc<Connections>),
}

impl Signer {
    /// # Errors
    /// [`ErrorKind::Invalid`] if the policy or the credential cannot be used.
    pub(super) fn new(container: &AzureContainer, connections: &Arc<Connections>) -> Result<Self> {
        Ok(match &container.credential {
            AzureCredential::Sas(sas) => {
                let invalid = |fault| Error::new(ErrorKind::Invalid, format!("the SAS {fault}"));
                let fields = SasFields::parse(sas.expose_secret()).map_err(invalid)?;
                Self::Fixed(Signature::SASToken(fields.into_pairs()))
            }
            AzureCredential::Emulator => {
                let key = AzureAccessKey::try_new(EMULATOR_KEY);
                let key =
                    key.map_err(|_| Error::new(ErrorKind::Internal, "the emulator's key is invalid"))?;
                Self::Fixed(Signature::AccessKey(key))
            }
            AzureCredential::ManagedIdentity => {
                // Created here, so that an unusable policy is found early.
                connections.tokens()?;
                Self::Identity(Arc::clone(connections))
            }
            AzureCredential::Anonymous => Self::Anonymous,
        })
    }

    /// Adds the credential to a request that is otherwise complete. Returns the provider of its token, if it has one.
    ///
    /// # Errors
    /// If a token is needed and cannot be obtained: [`ErrorKind::Unauthorized`] if the identity service refused it,
    /// otherwise a transient kind.
    pub(super) async fn sign(
        &self,
        request: &mut HttpRequest,
        account: &str,
    ) -> Result<Option<AzureCredentialProvider>> {
        let tokens = match self {
            Self::Anonymous => {
                add_version(request.headers_mut());
                None
            }
            Self::Fixed(signature) => {
                authorize(request, signature, account)?;
                None
            }
            Self::Identity(connections) => {
                let tokens = connections.tokens()?;
                authorize(request, &*token(&tokens).await?, account)?;
                Some(tokens)
            }
        };
        Ok(tokens)
    }

    /// Discards a token that the destination refused.
    pub(super) fn discard(&self, tokens: &AzureCredentialProvider) {
        if let Self::Identity(connections) = self {
            connections.discard_tokens(tokens);
        }
    }
}

async fn token(tokens: &AzureCredentialProvider) -> Result<Arc<Signature>> {
    let token = match tokio::time::timeout(TOKEN_TIMEOUT, tokens.get_credential()).await {
        Ok(outcome) => outcome.map_err(no_token)?,
        Err(_) => return Err(Error::new(ErrorKind::Unavailable, "the identity service timed out")),
    };
    match &*token {
        // The authorizer panics on a token that is not a header value.
        Signature::BearerToken(text) if !text.bytes().all(|b| b.is_ascii_graphic()) => {
            Err(Error::new(ErrorKind::Unavailable, "the identity service returned an invalid token"))
        }
        _ => Ok(token),
    }
}

fn authorize(request: &mut HttpRequest, signature: &Signature, account: &str) -> Result<()> {
    AzureAuthorizer::new(signature, account)
        .try_authorize(request)
        .map_err(|_| Error::new(ErrorKind::Internal, "a request could not be signed"))?;
    // `Debug` of the headers then prints `Sensitive`, in every crate.
    if let Some(credential) = request.headers_mut().get_mut(AUTHORIZATION) {
        credential.set_sensitive(true);
    }
    Ok(())
}

fn add_version(headers: &mut HeaderMap) {
    let date = Utc::now().format("%a, %d %b %Y %T GMT").to_string();
    if let Ok(date) = HeaderValue::try_from(date) {
        headers.insert(DATE, date);
    }
    headers.insert(HeaderName::from_static("x-ms-version"), VERSION);
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(***)")
    }
}
