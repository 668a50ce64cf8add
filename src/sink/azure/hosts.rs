//! Which hosts an [`AzureBlobPolicy`](super::AzureBlobPolicy) lists, and how their URIs are addressed.

use url::{Host, Url};

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
        let is_loopback = match endpoint.host()? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        is_loopback.then_some(Self {
            addressing: Addressing::Path,
            account: None,
            origin: HostOrigin::Loopback,
        })
    }
}

/// A host that the server's operator listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostRule {
    pub(super) scheme: &'static str,
    host: String,
    port: Option<u16>,
    addressing: Addressing,
}

impl HostRule {
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is not a host.
    pub(super) fn new(text: &str, addressing: Addressing) -> Result<Self> {
        let (scheme, authority) = match text.split_once("://") {
            None => ("https", text),
            Some(("https", authority)) => ("https", authority),
            Some(("http", authority)) => ("http", authority),
            Some(_) => return Err(Error::invalid("", "the scheme of a listed host must be https or http")),
        };
        let not_a_host = || Error::invalid("", "a listed host must be 'host' or 'host:port'");
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

    pub(super) fn matches(&self, endpoint: &Url) -> Option<KnownHost> {
        if endpoint.scheme() != self.scheme || endpoint.port() != self.port {
            return None;
        }
        let host = endpoint.host_str()?;
        let account = match self.addressing {
            Addressing::Subdomain => Some(label_before(host, &self.host)?.to_owned()),
            Addressing::Domain | Addressing::Path if host == self.host => None,
            Addressing::Domain | Addressing::Path => return None,
        };
        Some(KnownHost { addressing: self.addressing, account, origin: HostOrigin::Listed })
    }
}

/// The error for a host that the policy does not list. It does not repeat the host, which the caller knows.
pub(super) fn unlisted(at: &str) -> Error {
    Error::invalid(at, format!("'{at}' names a host that this server does not export to"))
}

/// The single label before a suffix.
fn label_before<'a>(host: &'a str, suffix: &str) -> Option<&'a str> {
    let label = host.strip_suffix(suffix)?.strip_suffix('.')?;
    (!label.is_empty() && !label.contains('.')).then_some(label)
}
