//! [`GcsConnections`]: HTTP clients and credentials that all buckets of one policy share.

use std::fmt;
use std::sync::{Arc, Mutex};

use object_store::RetryConfig;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder};

use super::policy::GcsPolicy;
use crate::cloud::{CredentialConnector, HttpClients};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// The HTTP clients of a policy and the credentials of the server's identity, created on first use.
#[derive(Default)]
pub(crate) struct GcsConnections {
    policy: GcsPolicy,
    clients: HttpClients,
    identity: Mutex<Option<GcpCredentialProvider>>,
}

impl GcsConnections {
    pub(crate) fn new(policy: GcsPolicy) -> Self {
        let clients = HttpClients::new(policy.root_certificates(), policy.allows_http());
        Self { policy, clients, identity: Mutex::default() }
    }

    pub(crate) fn policy(&self) -> &GcsPolicy {
        &self.policy
    }

    /// The client for the policy's endpoint.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a root certificate cannot be used.
    pub(super) fn client(&self) -> Result<reqwest::Client> {
        self.clients.client(if self.policy.allows_http() { "http" } else { "https" })
    }

    /// The provider of the tokens of the server's identity, which caches them.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the environment's credentials or a root certificate cannot be used.
    pub(super) fn identity(&self) -> Result<GcpCredentialProvider> {
        if let Some(credentials) = self.policy.identity() {
            return Ok(Arc::clone(credentials));
        }
        let mut identity = lock(&self.identity);
        if let Some(credentials) = &*identity {
            return Ok(Arc::clone(credentials));
        }
        let connector = CredentialConnector::new(self.clients.metadata()?, self.clients.client("https")?);
        let builder = GoogleCloudStorageBuilder::new()
            // The builder requires a bucket, although it sends no requests to it.
            .with_bucket_name("bucket")
            .with_http_connector(connector)
            // The engine retries.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        // The cause is left out: it may quote the environment.
        let unusable =
            |_| Error::new(ErrorKind::Invalid, "the credentials of the environment cannot be used");
        let credentials = Arc::clone(builder.build().map_err(unusable)?.credentials());
        Ok(Arc::clone(identity.insert(credentials)))
    }
}

impl fmt::Debug for GcsConnections {
    /// Omits the clients, since theirs shows proxies, which may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsConnections").field("policy", &self.policy).finish_non_exhaustive()
    }
}
