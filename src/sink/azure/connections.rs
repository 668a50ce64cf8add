//! [`Connections`]: what all sinks of one policy share.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use object_store::azure::AzureCredentialProvider;

use super::policy::AzureBlobPolicy;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A metadata service is on the machine itself or its host.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The HTTP clients of a policy and the tokens of the server's identity, made when they are first needed. A client reads
/// all the system's certificates when it is made, and keeps connections; an operation of its own would pay for both.
#[derive(Default)]
pub(super) struct Connections {
    policy: AzureBlobPolicy,
    blobs: OnceLock<reqwest::Client>,
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

    /// The client for the blob service, and for Entra ID.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when a root certificate cannot be used; so for [`metadata`](Self::metadata).
    pub(super) fn blobs(&self) -> Result<reqwest::Client> {
        client(&self.blobs, || {
            let builder = self.builder()?.https_only(!self.policy.allows_http());
            Ok(builder.connect_timeout(CONNECT_TIMEOUT))
        })
    }

    /// The client for managed identities' tokens. They are asked for by http, nearby: not a proxy's business.
    pub(super) fn metadata(&self) -> Result<reqwest::Client> {
        client(&self.metadata, || Ok(self.builder()?.no_proxy().connect_timeout(METADATA_CONNECT_TIMEOUT)))
    }

    /// The tokens of the server's identity: those that are there already, or else these.
    pub(super) fn tokens(
        &self,
        make: impl FnOnce() -> Result<AzureCredentialProvider>,
    ) -> Result<AzureCredentialProvider> {
        let mut tokens = self.lock_tokens();
        if let Some(tokens) = &*tokens {
            return Ok(Arc::clone(tokens));
        }
        Ok(Arc::clone(tokens.insert(make()?)))
    }

    /// The destination refused a token: whoever is opened from now on, a resumed operation say, asks for another.
    pub(super) fn forget_tokens(&self) {
        *self.lock_tokens() = None;
    }

    fn lock_tokens(&self) -> MutexGuard<'_, Option<AzureCredentialProvider>> {
        lock(&self.tokens)
    }

    /// What every client has: the policy's certificates besides the system's, and no redirects, which could lead a
    /// credential to another host.
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
    /// Leaves the clients out: theirs shows proxies, which may have passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("policy", &self.policy).finish_non_exhaustive()
    }
}

/// The client that was made before, or else one of this builder. Of two that are made at once, one is let go.
fn client(
    made: &OnceLock<reqwest::Client>,
    builder: impl FnOnce() -> Result<reqwest::ClientBuilder>,
) -> Result<reqwest::Client> {
    if let Some(client) = made.get() {
        return Ok(client.clone());
    }
    let unusable = |cause: reqwest::Error| {
        Error::new(ErrorKind::Invalid, "the root certificates of the policy or the system cannot be used")
            .with_source(cause.without_url())
    };
    let client = builder()?.build().map_err(unusable)?;
    Ok(made.get_or_init(|| client).clone())
}
