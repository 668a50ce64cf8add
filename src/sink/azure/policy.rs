//! [`AzureBlobPolicy`]: which containers a server exports to, with which credentials, and with which identity.

use std::fmt;
use std::path::PathBuf;

use url::Url;

use super::container::{AzureContainer, AzureCredential};
use super::hosts::{Addressing, HostOrigin, HostRule, KnownHost, unlisted};
use crate::error::{Error, Result};

/// Which containers a server exports to, with which credentials, and with which identity.
///
/// Callers name the destination of an export, and this policy decides which destinations are accepted. It is checked
/// before any request is sent, and again when an operation is resumed.
///
/// | | [`new`](Self::new) (default) | [`development`](Self::development) |
/// | --- | --- | --- |
/// | hosts | accounts of the Azure clouds, by their own names | also loopback hosts on any port |
/// | scheme | https | also http to loopback hosts |
/// | the emulator's published account and key | refused | accepted at hosts outside Azure |
/// | a SAS | accepted | accepted |
/// | no credential | refused | refused |
/// | managed identity | over https, system-assigned | also to loopback if a root certificate is set |
///
/// Never accepted: a user part in a URI, a port that is not listed, a host that only resembles a listed one, an IP address
/// that is not listed, an account key.
///
/// ```
/// use dicom_export::sink::azure::{Addressing, AzureBlobPolicy, Identity};
///
/// let policy = AzureBlobPolicy::new()
///     .allow_host("blobs.hospital.example", Addressing::Domain)?
///     .allow_sas(false)
///     .with_identity(Identity::UserAssigned { client_id: "d0d2b7a6-5b2c-4c7e-9d43-2f3a8b6f7a10".into() });
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Clone)]
pub struct AzureBlobPolicy {
    environment: Environment,
    clouds: bool,
    hosts: Vec<HostRule>,
    sas: bool,
    anonymous: bool,
    root_certificates: Vec<Vec<u8>>,
    identity: Identity,
    identity_endpoint: Option<String>,
    authority_host: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Environment {
    Production,
    Development,
}

/// The identity of the server, which writes when a request sets `useManagedIdentity`. Default: system-assigned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// The system-assigned managed identity of the machine.
    #[default]
    SystemAssigned,
    /// A user-assigned managed identity.
    UserAssigned {
        /// The identity's client id.
        client_id: String,
    },
    /// Workload identity, as in a Kubernetes pod: a federated token from a file is exchanged for a token of Entra ID.
    Workload {
        /// The Entra ID tenant (`AZURE_TENANT_ID`).
        tenant_id: String,
        /// The identity's client id (`AZURE_CLIENT_ID`).
        client_id: String,
        /// The file with the federated token (`AZURE_FEDERATED_TOKEN_FILE`). It is read for each exchange.
        token_file: PathBuf,
    },
}

impl Default for AzureBlobPolicy {
    fn default() -> Self {
        Self {
            environment: Environment::Production,
            clouds: true,
            hosts: Vec::new(),
            sas: true,
            anonymous: false,
            root_certificates: Vec::new(),
            identity: Identity::default(),
            identity_endpoint: None,
            authority_host: None,
        }
    }
}

impl AzureBlobPolicy {
    /// Creates the policy for production.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the policy for a developer's machine, which also allows the emulator (Azurite), and loopback hosts over
    /// http and https.
    pub fn development() -> Self {
        Self { environment: Environment::Development, ..Self::default() }
    }

    /// Allows a host: `host[:port]`, over https on the default port unless a port is given. `http://host[:port]` is for an
    /// emulator in a neighbouring container; the server's identity is not sent there.
    ///
    /// An IP address is accepted for [`Addressing::Domain`] and [`Addressing::Path`].
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is not a host.
    pub fn allow_host(mut self, host: &str, addressing: Addressing) -> Result<Self> {
        self.hosts.push(HostRule::new(host, addressing)?);
        Ok(self)
    }

    /// Allows only the hosts that are listed with [`allow_host`](Self::allow_host), and loopback hosts in development.
    /// Default: every account of the Azure clouds is allowed too, if the SAS or the server's identity may write there.
    #[must_use]
    pub fn only_allowed_hosts(mut self) -> Self {
        self.clouds = false;
        self
    }

    /// Sets whether requests may contain a SAS. Default: `true`. With `false` only the server's identity is used.
    #[must_use]
    pub fn allow_sas(mut self, allow: bool) -> Self {
        self.sas = allow;
        self
    }

    /// Sets whether requests may contain no credential at all. Default: `false`. Azure itself requires a credential to
    /// write; this is for endpoints behind a proxy that signs requests.
    #[must_use]
    pub fn allow_anonymous(mut self, allow: bool) -> Self {
        self.anonymous = allow;
        self
    }

    /// Trusts one or more certificate authorities (PEM), in addition to those of the system.
    #[must_use]
    pub fn with_root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Sets the identity for `useManagedIdentity`. Default: [`Identity::SystemAssigned`].
    #[must_use]
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// Sets the URL that issues tokens for managed identities: the value of `IDENTITY_ENDPOINT` on App Service. Default:
    /// that of virtual machines, `http://169.254.169.254/metadata/identity/oauth2/token`.
    #[must_use]
    pub fn with_identity_endpoint(mut self, url: impl Into<String>) -> Self {
        self.identity_endpoint = Some(url.into());
        self
    }

    /// Sets the URL that exchanges tokens for workload identity, for example `https://login.microsoftonline.us` for the US
    /// government cloud. Default: that of the public cloud.
    #[must_use]
    pub fn with_authority_host(mut self, url: impl Into<String>) -> Self {
        self.authority_host = Some(url.into());
        self
    }

    /// PEM.
    pub(super) fn root_certificates(&self) -> &[Vec<u8>] {
        &self.root_certificates
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(super) fn identity_endpoint(&self) -> Option<&str> {
        self.identity_endpoint.as_deref()
    }

    pub(super) fn authority_host(&self) -> Option<&str> {
        self.authority_host.as_deref()
    }

    /// Whether any host may be reached over http. [`check`](Self::check) decides which.
    pub(super) fn allows_http(&self) -> bool {
        self.environment == Environment::Development || self.hosts.iter().any(HostRule::allows_http)
    }

    /// The host of an endpoint, or `None` if it is not listed.
    pub(super) fn known_host(&self, endpoint: &Url) -> Option<KnownHost> {
        let listed = self.hosts.iter().find_map(|rule| rule.matches(endpoint));
        let azure = || self.clouds.then(|| KnownHost::azure(endpoint))?;
        let loopback =
            || (self.environment == Environment::Development).then(|| KnownHost::loopback(endpoint))?;
        listed.or_else(azure).or_else(loopback)
    }

    /// Checks whether a container may be written with its credential; `at` is the pointer of the property that named it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with that pointer.
    pub(super) fn check(&self, container: &AzureContainer, at: &str) -> Result<()> {
        let Some(host) = self.known_host(&container.endpoint) else { return Err(unlisted(at)) };
        let fault = match container.credential {
            AzureCredential::Sas(_) if !self.sas => "contains a SAS, which this server does not accept",
            AzureCredential::Anonymous if !self.anonymous => {
                "has no credential: a SAS or '/useManagedIdentity' is required"
            }
            AzureCredential::Emulator if self.environment == Environment::Production => {
                "names the emulator, which this server does not export to"
            }
            AzureCredential::Emulator if host.origin == HostOrigin::Azure => {
                "names the emulator's account at another host than the emulator's"
            }
            AzureCredential::ManagedIdentity if container.endpoint.scheme() != "https" => {
                "must be an https URI for '/useManagedIdentity'"
            }
            AzureCredential::ManagedIdentity
                if host.origin == HostOrigin::Loopback && self.root_certificates.is_empty() =>
            {
                "names a host that '/useManagedIdentity' is not sent to"
            }
            _ => return Ok(()),
        };
        Err(Error::invalid(at, format!("'{at}' {fault}")))
    }
}

impl fmt::Debug for AzureBlobPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureBlobPolicy")
            .field("environment", &self.environment)
            .field("clouds", &self.clouds)
            .field("hosts", &self.hosts)
            .field("sas", &self.sas)
            .field("anonymous", &self.anonymous)
            .field("root_certificates", &self.root_certificates.len())
            .field("identity", &self.identity)
            .field("identity_endpoint", &self.identity_endpoint)
            .field("authority_host", &self.authority_host)
            .finish()
    }
}
