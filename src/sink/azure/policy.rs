//! [`AzureBlobPolicy`]: which containers a server exports to, with which credentials, and as whom.

use std::fmt;
use std::path::PathBuf;

use url::{Host, Url};

use super::container::{AzureContainer, AzureCredential};
use crate::error::{Error, Result};

/// The blob endpoints of the Azure clouds: public, US government, China, Germany. An account is one label before.
const CLOUDS: [&str; 4] = [
    "blob.core.windows.net",
    "blob.core.usgovcloudapi.net",
    "blob.core.chinacloudapi.cn",
    "blob.core.cloudapi.de",
];

/// The endpoints of accounts in Azure DNS zones: `<account>.z<00 to 99>.blob.storage.azure.net`.
const ZONES: &str = ".blob.storage.azure.net";

/// Which containers a server exports to, with which credentials, and as whom.
///
/// A request names its destination, so what it may name is for the server to say. Everything here is checked before
/// any request leaves the machine, again when an operation is resumed.
///
/// The default is for production:
///
/// | | [`new`](Self::new) | [`development`](Self::development) |
/// | --- | --- | --- |
/// | hosts | accounts of the Azure clouds, by their own names | and loopback hosts on any port |
/// | scheme | https | and http towards loopback hosts |
/// | the emulator's published account and key | refused | accepted towards hosts outside Azure |
/// | a SAS | accepted | accepted |
/// | no credential | refused | refused |
/// | managed identity | over https, as the system-assigned one | and towards loopback with a root certificate |
///
/// Never accepted: a user part in a URI, a port that is not listed, a host that merely looks like a listed one, an
/// address instead of a name (unless it is listed), an account key.
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
    public_access: bool,
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

/// The identity that a server writes with when a request says `useManagedIdentity`. Default: system-assigned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Identity {
    /// The machine's own managed identity.
    #[default]
    SystemAssigned,
    /// A managed identity that was given to the machine.
    UserAssigned {
        /// The identity's client id.
        client_id: String,
    },
    /// Workload identity, as Kubernetes gives it to a pod: a token in a file is exchanged for one of Entra ID.
    Workload {
        /// The Entra ID tenant (`AZURE_TENANT_ID`).
        tenant_id: String,
        /// The identity's client id (`AZURE_CLIENT_ID`).
        client_id: String,
        /// The file with the federated token (`AZURE_FEDERATED_TOKEN_FILE`), read anew for each exchange.
        token_file: PathBuf,
    },
}

/// How URIs at a host name an account and a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// The host is what account names stand before, one label: `https://<account>.<host>/<container>`.
    Subdomain,
    /// The host is one account's custom domain or private endpoint: `https://<host>/<container>`.
    Domain,
    /// The path begins with the account: `https://<host>/<account>/<container>`.
    Path,
}

/// One host that the server's operator listed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HostRule {
    scheme: &'static str,
    host: String,
    port: Option<u16>,
    addressing: Addressing,
}

/// Where an endpoint lies, as the policy sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Azure,
    Listed,
    Loopback,
}

/// A host that the policy lists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnownHost {
    pub(crate) addressing: Addressing,
    /// The account, where the host's name tells it.
    pub(crate) account: Option<String>,
    place: Place,
}

impl Default for AzureBlobPolicy {
    fn default() -> Self {
        Self {
            environment: Environment::Production,
            clouds: true,
            hosts: Vec::new(),
            sas: true,
            public_access: false,
            root_certificates: Vec::new(),
            identity: Identity::default(),
            identity_endpoint: None,
            authority_host: None,
        }
    }
}

impl AzureBlobPolicy {
    /// The policy for production.
    pub fn new() -> Self {
        Self::default()
    }

    /// The policy for a developer's machine: the emulator (Azurite), and loopback hosts by http and https, besides
    /// what production allows.
    pub fn development() -> Self {
        Self { environment: Environment::Development, ..Self::default() }
    }

    /// Also exports to this host: `host[:port]`, default https on its own port. `http://host[:port]` is for an
    /// emulator beside the server, in another container say; the server's identity is not sent there.
    ///
    /// An IP address is accepted for [`Addressing::Domain`] and [`Addressing::Path`].
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) when it is not a host.
    pub fn allow_host(mut self, host: &str, addressing: Addressing) -> Result<Self> {
        self.hosts.push(HostRule::new(host, addressing)?);
        Ok(self)
    }

    /// Exports to no host but those that [`allow_host`](Self::allow_host) lists (and loopback, in development). By
    /// default every account of the Azure clouds can be named, and a SAS or the server's identity decides.
    pub fn only_allowed_hosts(mut self) -> Self {
        self.clouds = false;
        self
    }

    /// Whether requests may bring a SAS. Default: yes. Turn it off to make the server's identity the only way.
    pub fn allow_sas(mut self, allow: bool) -> Self {
        self.sas = allow;
        self
    }

    /// Whether a request may bring no credential at all. Default: no. Azure lets nobody write without one; it is for
    /// endpoints behind something that signs.
    pub fn allow_anonymous(mut self, allow: bool) -> Self {
        self.public_access = allow;
        self
    }

    /// Also trusts servers whose certificates this authority signed: one or more certificates as PEM. They come
    /// besides the system's.
    pub fn with_root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// The identity for `useManagedIdentity`. Default: [`Identity::SystemAssigned`].
    pub fn with_identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// Where managed identities' tokens are asked for: the value of `IDENTITY_ENDPOINT` on App Service. Default: the
    /// virtual machine's, `http://169.254.169.254/metadata/identity/oauth2/token`.
    pub fn with_identity_endpoint(mut self, url: impl Into<String>) -> Self {
        self.identity_endpoint = Some(url.into());
        self
    }

    /// Where workload identity exchanges its token, for sovereign clouds: `https://login.microsoftonline.us`, say.
    /// Default: the public cloud's.
    pub fn with_authority_host(mut self, url: impl Into<String>) -> Self {
        self.authority_host = Some(url.into());
        self
    }

    /// PEM.
    pub(crate) fn root_certificates(&self) -> &[Vec<u8>] {
        &self.root_certificates
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn identity_endpoint(&self) -> Option<&str> {
        self.identity_endpoint.as_deref()
    }

    pub(crate) fn authority_host(&self) -> Option<&str> {
        self.authority_host.as_deref()
    }

    /// Whether some host may be talked to by http; which one, [`admit`](Self::admit) has checked.
    pub(crate) fn allows_http(&self) -> bool {
        self.environment == Environment::Development || self.hosts.iter().any(|rule| rule.scheme == "http")
    }

    /// What the policy knows of an endpoint's scheme, host and port; `None`: it is not listed.
    pub(crate) fn known(&self, endpoint: &Url) -> Option<KnownHost> {
        let listed = self.hosts.iter().find_map(|rule| rule.matches(endpoint));
        listed.or_else(|| self.cloud(endpoint)).or_else(|| self.loopback(endpoint))
    }

    /// Whether this container may be written to with this credential; `at` is the property that named it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with that pointer.
    pub(crate) fn admit(&self, container: &AzureContainer, at: &str) -> Result<()> {
        let Some(host) = self.known(&container.endpoint) else { return Err(unlisted(at)) };
        let fault = match container.credential {
            AzureCredential::Sas(_) if !self.sas => "brings a SAS, which this server does not accept",
            AzureCredential::Anonymous if !self.public_access => {
                "has no credential: a SAS, or '/useManagedIdentity', is needed"
            }
            AzureCredential::Emulator if self.environment == Environment::Production => {
                "names the emulator, which this server does not export to"
            }
            AzureCredential::Emulator if host.place == Place::Azure => {
                "names the emulator's account at a host that is not the emulator's"
            }
            AzureCredential::ManagedIdentity if container.endpoint.scheme() != "https" => {
                "must be an https URI for '/useManagedIdentity'"
            }
            AzureCredential::ManagedIdentity
                if host.place == Place::Loopback && self.root_certificates.is_empty() =>
            {
                "names a host that '/useManagedIdentity' is not sent to"
            }
            _ => return Ok(()),
        };
        Err(Error::invalid(at, format!("'{at}' {fault}")))
    }

    fn cloud(&self, endpoint: &Url) -> Option<KnownHost> {
        // `port` is `None` for the scheme's own.
        if !self.clouds || endpoint.scheme() != "https" || endpoint.port().is_some() {
            return None;
        }
        let Some(Host::Domain(host)) = endpoint.host() else { return None };
        let account = CLOUDS.iter().find_map(|cloud| label_before(host, cloud)).or_else(|| {
            let (account, zone) = host.strip_suffix(ZONES)?.split_once('.')?;
            let number = zone.strip_prefix('z')?;
            (number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit())).then_some(account)
        })?;
        // 3 to 24 lower-case letters and digits: so not `<account>-secondary`, which cannot be written to.
        let named = matches!(account.len(), 3..=24)
            && account.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        named.then(|| KnownHost {
            addressing: Addressing::Subdomain,
            account: Some(account.to_owned()),
            place: Place::Azure,
        })
    }

    fn loopback(&self, endpoint: &Url) -> Option<KnownHost> {
        let development = self.environment == Environment::Development;
        let here = match endpoint.host()? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        (development && here).then_some(KnownHost {
            addressing: Addressing::Path,
            account: None,
            place: Place::Loopback,
        })
    }
}

/// The error for a host that the policy does not list. It does not repeat the host: the caller knows it.
pub(crate) fn unlisted(at: &str) -> Error {
    Error::invalid(at, format!("'{at}' names a host that this server does not export to"))
}

impl fmt::Debug for AzureBlobPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AzureBlobPolicy")
            .field("environment", &self.environment)
            .field("clouds", &self.clouds)
            .field("hosts", &self.hosts)
            .field("sas", &self.sas)
            .field("public_access", &self.public_access)
            .field("root_certificates", &self.root_certificates.len())
            .field("identity", &self.identity)
            .field("identity_endpoint", &self.identity_endpoint)
            .field("authority_host", &self.authority_host)
            .finish()
    }
}

impl HostRule {
    fn new(text: &str, addressing: Addressing) -> Result<Self> {
        let (scheme, authority) = match text.split_once("://") {
            None => ("https", text),
            Some(("https", authority)) => ("https", authority),
            Some(("http", authority)) => ("http", authority),
            Some(_) => return Err(Error::invalid("", "a listed host's scheme is https or http")),
        };
        let not_a_host = || Error::invalid("", "a listed host is 'host' or 'host:port'");
        if authority.is_empty() || authority.contains(['/', '\\', '?', '#', '@']) {
            return Err(not_a_host());
        }
        let url = Url::parse(&format!("{scheme}://{authority}")).map_err(|_| not_a_host())?;
        match (url.host(), addressing) {
            (Some(Host::Domain(_)), _) => {}
            (Some(_), Addressing::Domain | Addressing::Path) => {}
            _ => return Err(not_a_host()),
        }
        let host = url.host_str().unwrap_or_default().to_owned();
        Ok(Self { scheme, host, port: url.port(), addressing })
    }

    fn matches(&self, endpoint: &Url) -> Option<KnownHost> {
        if endpoint.scheme() != self.scheme || endpoint.port() != self.port {
            return None;
        }
        let host = endpoint.host_str()?;
        let account = match self.addressing {
            Addressing::Subdomain => Some(label_before(host, &self.host)?.to_owned()),
            Addressing::Domain | Addressing::Path if host == self.host => None,
            Addressing::Domain | Addressing::Path => return None,
        };
        Some(KnownHost { addressing: self.addressing, account, place: Place::Listed })
    }
}

/// The one label that stands before a suffix.
fn label_before<'a>(host: &'a str, suffix: &str) -> Option<&'a str> {
    let label = host.strip_suffix(suffix)?.strip_suffix('.')?;
    (!label.is_empty() && !label.contains('.')).then_some(label)
}
