//! [`Connections`]: HTTP clients and tokens that all sinks of one policy share.

use std::fmt;
use std::sync::{Arc, Mutex};

use object_store::azure::AzureCredentialProvider;

use super::identity;
use super::policy::AzureBlobPolicy;
use crate::cloud::HttpClients;
use crate::error::Result;
use crate::sync::lock;

/// The HTTP clients of a policy and the tokens of the server's identity, created on first use. Creating a client reads the
/// system's certificates, and a client keeps its connections, so operations share them.
#[derive(Default)]
pub(super) struct Connections {
    policy: AzureBlobPolicy,
    clients: HttpClients,
    tokens: Mutex<Option<AzureCredentialProvider>>,
}

impl Connections {
    pub(super) fn new(policy: AzureBlobPolicy) -> Self {
        let clients = HttpClients::new(policy.root_certificates(), policy.allows_http());
        Self { policy, clients, tokens: Mutex::default() }
    }

    pub(super) fn policy(&self) -> &AzureBlobPolicy {
        &self.policy
    }

    /// The client for the blob service and for Entra ID, for URLs of this scheme.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if a root certificate cannot be used.
    pub(super) fn client(&self, scheme: &str) -> Result<reqwest::Client> {
        self.clients.client(scheme)
    }

    /// The provider of tokens for the server's identity, which caches them.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the policy's identity or a root certificate cannot be used.
    pub(super) fn tokens(&self) -> Result<AzureCredentialProvider> {
        let mut tokens = lock(&self.tokens);
        match &*tokens {
            Some(tokens) => Ok(Arc::clone(tokens)),
            None => {
                let authority = self.policy.authority_host().unwrap_or_default();
                let scheme = authority.split_once("://").map_or("https", |(scheme, _)| scheme);
                let created = identity::tokens(&self.policy, self.clients.metadata()?, self.client(scheme)?)?;
                Ok(Arc::clone(tokens.insert(created)))
            }
        }
    }

    /// Discards a provider whose token the destination refused, unless it has been replaced already. The next request
    /// obtains a new token.
    pub(super) fn discard_tokens(&self, refused: &AzureCredentialProvider) {
        lock(&self.tokens).take_if(|tokens| Arc::ptr_eq(tokens, refused));
    }
}

impl fmt::Debug for Connections {
    /// Omits the clients, since theirs shows proxies, which may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("policy", &self.policy).finish_non_exhaustive()
    }
}
