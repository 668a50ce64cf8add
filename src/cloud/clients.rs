//! [`HttpClients`]: HTTP clients that all sinks of one policy share.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A metadata service runs on the machine itself or its host.
const METADATA_CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The HTTP clients of a policy, created on first use. Creating a client reads the system's certificates, and a client keeps
/// its connections, so operations share them.
#[derive(Default)]
pub(crate) struct HttpClients {
    /// PEM.
    root_certificates: Vec<Vec<u8>>,
    allows_http: bool,
    https: OnceLock<reqwest::Client>,
    http: OnceLock<reqwest::Client>,
    metadata: OnceLock<reqwest::Client>,
}

impl HttpClients {
    /// Creates clients that trust these certificates (PEM) in addition to the system's. `allows_http` is whether any host may
    /// be reached over http.
    pub(crate) fn new(root_certificates: &[Vec<u8>], allows_http: bool) -> Self {
        Self { root_certificates: root_certificates.to_vec(), allows_http, ..Self::default() }
    }

    /// The client for URLs of this scheme. https uses the proxies of the environment, through a tunnel (`CONNECT`). http uses
    /// no proxy, which would receive the credential in the clear.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a root certificate cannot be used.
    pub(crate) fn client(&self, scheme: &str) -> Result<reqwest::Client> {
        if scheme == "http" && self.allows_http {
            get_or_build(&self.http, || Ok(self.builder()?.no_proxy().connect_timeout(CONNECT_TIMEOUT)))
        } else {
            get_or_build(&self.https, || {
                Ok(self.builder()?.https_only(true).connect_timeout(CONNECT_TIMEOUT))
            })
        }
    }

    /// The client for the credentials of a machine. It uses no proxy: the endpoint is link-local and has no TLS.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a root certificate cannot be used.
    pub(crate) fn metadata(&self) -> Result<reqwest::Client> {
        get_or_build(&self.metadata, || {
            Ok(self.builder()?.no_proxy().connect_timeout(METADATA_CONNECT_TIMEOUT))
        })
    }

    /// What all clients have in common: the policy's certificates in addition to the system's, and no redirects, which
    /// could send a credential to another host.
    fn builder(&self) -> Result<reqwest::ClientBuilder> {
        let mut certificates = Vec::new();
        for pem in &self.root_certificates {
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

impl fmt::Debug for HttpClients {
    /// Omits the clients, since theirs shows proxies, which may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClients").field("allows_http", &self.allows_http).finish_non_exhaustive()
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
