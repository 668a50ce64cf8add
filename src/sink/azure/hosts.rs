//! Which hosts an [`AzureBlobPolicy`](super::AzureBlobPolicy) lists, and how their URIs are addressed.

use url::{Host, Url};

use crate::cloud::{ListedHost, is_loopback, label_before, not_a_host};
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

/// What follows the account in the endpoints of a routing preference ("Network routing preference for Azure Storage").
const ROUTES: [&str; 2] = ["-internetrouting", "-microsoftrouting"];

/// How URIs at a host name an account and a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Addressing {
    /// The account is one label before the host: `https://<account>.<host>/<container>`.
    Subdomain,
    /// The host is the custom domain or the private endpoint of one account: `https://<host>/<container>`.
    Domain,
    /// The path begins with the account: `https://<host>/<account>/<container>`.
    Path,
}

/// Where an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HostOrigin {
    /// An account of the Azure clouds.
    Azure,
    /// A host that the server's operator listed.
    Listed,
    /// This machine.
    Loopback,
}

/// A host that the policy lists.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KnownHost {
    pub(super) addressing: Addressing,
    /// The account, if it is part of the host's name.
    pub(super) account: Option<String>,
    pub(super) origin: HostOrigin,
}

impl KnownHost {
    /// An account of the Azure clouds, by its own name over https on the default port.
    pub(super) fn azure(endpoint: &Url) -> Option<Self> {
        // `port` is `None` for the scheme's default.
        if endpoint.scheme() != "https" || endpoint.port().is_some() {
            return None;
        }
        let Some(Host::Domain(host)) = endpoint.host() else { return None };
        let account = CLOUDS.iter().find_map(|cloud| label_before(host, cloud)).or_else(|| {
            let (account, zone) = host.strip_suffix(ZONES)?.split_once('.')?;
            let number = zone.strip_prefix('z')?;
            (number.len() == 2 && number.bytes().all(|b| b.is_ascii_digit())).then_some(account)
        })?;
        let account = ROUTES.iter().find_map(|route| account.strip_suffix(route)).unwrap_or(account);
        // 3 to 24 lower-case letters and digits, which excludes the read-only `<account>-secondary`.
        let named = matches!(account.len(), 3..=24)
            && account.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        named.then(|| Self {
            addressing: Addressing::Subdomain,
            account: Some(account.to_owned()),
            origin: HostOrigin::Azure,
        })
    }

    /// A loopback host on any port.
    pub(super) fn loopback(endpoint: &Url) -> Option<Self> {
        is_loopback(endpoint).then_some(Self {
            addressing: Addressing::Path,
            account: None,
            origin: HostOrigin::Loopback,
        })
    }
}

/// A host that the server's operator listed, and how its URIs are addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostRule {
    host: ListedHost,
    addressing: Addressing,
}

impl HostRule {
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is not a host.
    pub(super) fn new(text: &str, addressing: Addressing) -> Result<Self> {
        let host = ListedHost::parse(text)?;
        if host.is_ip_address && addressing == Addressing::Subdomain {
            return Err(not_a_host());
        }
        Ok(Self { host, addressing })
    }

    pub(super) fn allows_http(&self) -> bool {
        self.host.scheme == "http"
    }

    pub(super) fn matches(&self, endpoint: &Url) -> Option<KnownHost> {
        if !self.host.has_scheme_and_port(endpoint) {
            return None;
        }
        let host = endpoint.host_str()?;
        let account = match self.addressing {
            Addressing::Subdomain => Some(label_before(host, &self.host.host)?.to_owned()),
            Addressing::Domain | Addressing::Path if host == self.host.host => None,
            Addressing::Domain | Addressing::Path => return None,
        };
        Some(KnownHost { addressing: self.addressing, account, origin: HostOrigin::Listed })
    }
}

/// The error for a host that the policy does not list. It does not repeat the host, which the caller knows.
pub(super) fn unlisted(at: &str) -> Error {
    Error::invalid(at, format!("'{at}' names a host that this server does not export to"))
}
