//! [`Connections`]: HTTP clients and tokens that all sinks of one policy share.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use object_store::azure::AzureCredentialProvider;

use super::identity;
use super::policy::AzureBlobPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A metadata service runs on the machine itself or its host.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The HTTP clients of a policy and the tokens of the server's identity, created on first use. Creating a client reads the
/// system's certificates, and a client keeps its connections, so operations share them.
#[derive(Default)]
pub(super) struct Connections {
    policy: AzureBlobPolicy,
    https: OnceLock<reqwest::Client>,
    http: OnceLock<reqwest::Client>,
    metadata: OnceLock<reqwest::Client>,
    tokens: Mutex<Option<AzureCredentialProvider>>,
}

impl Connections {
    pub(super) fn new(policy: AzureBlobPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    pub(super) fn policy(&self) -> &AzureBlobPolicy {
        &self.policy
    }

    /// The client for the blob service and for Entra ID, for URLs of this scheme. https uses the proxies of the
    /// environment, through a tunnel (`CONNECT`). http uses no proxy, which would receive the credential in the clear.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a root certificate cannot be used.
    pub(super) fn client(&self, scheme: &str) -> Result<reqwest::Client> {
        if scheme == "http" && self.policy.allows_http() {
            get_or_build(&self.http, || Ok(self.builder()?.no_proxy().connect_timeout(CONNECT_TIMEOUT)))
        } else {
            get_or_build(&self.https, || {
                Ok(self.builder()?.https_only(true).connect_timeout(CONNECT_TIMEOUT))
            })
        }
    }

    /// The client for tokens of managed identities. It uses no proxy: the endpoint is link-local and has no TLS.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a root certificate cannot be used.
    pub(super) fn metadata(&self) -> Result<reqwest::Client> {
        get_or_build(&self.metadata, || {
            Ok(self.builder()?.no_proxy().connect_timeout(METADATA_CONNECT_TIMEOUT))
        })
    }

    /// The provider of tokens for the server's identity, which caches them.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the policy's identity or a root certificate cannot be used.
    pub(super) fn tokens(&self) -> Result<AzureCredentialProvider> {
        let mut tokens = lock(&self.tokens);
        match &*tokens {
            Some(tokens) => Ok(Arc::clone(tokens)),
            None => {
                let authority = self.policy.authority_host().unwrap_or_default();
                let scheme = authority.split_once("://").map_or("https", |(scheme, _)| scheme);
                let created = identity::tokens(&self.policy, self.metadata()?, self.client(scheme)?)?;
                Ok(Arc::clone(tokens.insert(created)))
            }
        }
    }

    /// Discards a provider whose token the destination refused, unless it has been replaced already. The next request
    /// obtains a new token.
    pub(super) fn discard_tokens(&self, refused: &AzureCredentialProvider) {
        lock(&self.tokens).take_if(|tokens| Arc::ptr_eq(tokens, refused));
    }

    /// What all clients have in common: the policy's certificates in addition to the system's, and no redirects, which
    /// could send a credential to another host.
    fn builder(&self) -> Result<reqwest::ClientBuilder> {
        let mut certificates = Vec::new();
        for pem in self.policy.root_certificates() {
            let unreadable =
                || Error::new(ErrorKind::Invalid, "a root certificate of the policy cannot be read");
            let bundle = reqwest::Certificate::from_pem_bundle(pem).map_err(|_| unreadable())?;
            if bundle.is_empty() {
                return Err(unreadable());
            }
            certificates.extend(bundle);
        }
        Ok(reqwest::Client::builder()
            .user_agent(concat!("dicom-export/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .tls_certs_merge(certificates)
            .http1_only()
            .tcp_nodelay(true))
    }
}

impl fmt::Debug for Connections {
    /// Omits the clients, since theirs shows proxies, which may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// Returns the client, or builds it first. If two threads build one at the same time, one client is dropped.
fn get_or_build(
    cell: &OnceLock<reqwest::Client>,
    builder: impl FnOnce() -> Result<reqwest::ClientBuilder>,
) -> Result<reqwest::Client> {
    if let Some(client) = cell.get() {
        return Ok(client.clone());
    }
    let unusable = |cause: reqwest::Error| {
        Error::new(ErrorKind::Invalid, "the root certificates of the policy or the system cannot be used")
            .with_source(cause.without_url())
    };
    let client = builder()?.build().map_err(unusable)?;
    Ok(cell.get_or_init(|| client).clone())
}
