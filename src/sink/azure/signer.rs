//! [`Signer`]: adds a container's credential to requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use object_store::StaticCredentialProvider;
use object_store::azure::{
    AzureAccessKey, AzureAuthorizer, AzureCredential as Signature, AzureCredentialProvider,
};
use object_store::client::HttpRequest;
use reqwest::header::{AUTHORIZATION, DATE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;

use super::connections::Connections;
use super::container::{AzureContainer, AzureCredential, EMULATOR_KEY};
use super::identity::{no_token, tokens};
use super::sas::SasFields;
use crate::error::{Error, ErrorKind, Result};

/// How long a token may take, including the connection.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);

/// The API version of requests without a credential; object_store adds the same to those it signs.
const VERSION: HeaderValue = HeaderValue::from_static("2023-11-03");

/// Adds a container's credential to requests.
pub(super) struct Signer {
    /// `None` for anonymous requests.
    credential: Option<AzureCredentialProvider>,
    /// Where the tokens are cached, if the credential is the server's identity.
    tokens: Option<Arc<Connections>>,
}

impl Signer {
    /// # Errors
    /// [`ErrorKind::Invalid`] if the policy or the credential cannot be used.
    pub(super) fn new(container: &AzureContainer, connections: &Arc<Connections>) -> Result<Self> {
        let fixed = |signature| Arc::new(StaticCredentialProvider::new(signature)) as _;
        let mut tokens_of = None;
        let credential = match &container.credential {
            AzureCredential::Sas(sas) => {
                let invalid = |fault| Error::new(ErrorKind::Invalid, format!("the SAS {fault}"));
                let fields = SasFields::parse(sas.expose_secret()).map_err(invalid)?;
                Some(fixed(Signature::SASToken(fields.into_pairs())))
            }
            AzureCredential::Emulator => {
                let key = AzureAccessKey::try_new(EMULATOR_KEY);
                let key =
                    key.map_err(|_| Error::new(ErrorKind::Internal, "the emulator's key is invalid"))?;
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

    /// Records that the destination refused the credential.
    pub(super) fn refused(&self) {
        if let Some(connections) = &self.tokens {
            connections.discard_tokens();
        }
    }

    /// Adds the credential to a request that is otherwise complete.
    ///
    /// # Errors
    /// If a token is needed and cannot be obtained: [`ErrorKind::Unauthorized`] if the identity service refused it,
    /// otherwise a transient kind.
    pub(super) async fn sign(&self, request: &mut HttpRequest, account: &str) -> Result<()> {
        let Some(provider) = &self.credential else {
            add_version(request.headers_mut());
            return Ok(());
        };
        let signature = match tokio::time::timeout(TOKEN_TIMEOUT, provider.get_credential()).await {
            Ok(outcome) => outcome.map_err(no_token)?,
            Err(_) => return Err(Error::new(ErrorKind::Unavailable, "the identity service timed out")),
        };
        // The authorizer panics on a token that is not a header value.
        if matches!(&*signature, Signature::BearerToken(token) if !token.bytes().all(|b| b.is_ascii_graphic()))
        {
            return Err(Error::new(ErrorKind::Unavailable, "the identity service returned an invalid token"));
        }
        AzureAuthorizer::new(&signature, account)
            .try_authorize(request)
            .map_err(|_| Error::new(ErrorKind::Internal, "a request could not be signed"))?;
        // `Debug` of the headers then prints `Sensitive`, in every crate.
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

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(***)")
    }
}
