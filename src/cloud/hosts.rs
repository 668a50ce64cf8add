//! [`ListedHost`]: a host that a policy lists.

use url::{Host, Url};

#[cfg(any(feature = "azure", feature = "s3"))]
use crate::error::{Error, Result};

/// A host that the server's operator listed: `host[:port]`, over https unless `http://` stands before it.
#[cfg(any(feature = "azure", feature = "s3"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ListedHost {
    pub(crate) scheme: &'static str,
    pub(crate) host: String,
    pub(crate) is_ip_address: bool,
    port: Option<u16>,
}

#[cfg(any(feature = "azure", feature = "s3"))]
impl ListedHost {
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is not a host.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (scheme, authority) = match text.split_once("://") {
            None => ("https", text),
            Some(("https", authority)) => ("https", authority),
            Some(("http", authority)) => ("http", authority),
            Some(_) => return Err(Error::invalid("", "the scheme of a listed host must be https or http")),
        };
        if authority.is_empty() || authority.contains(['/', '\\', '?', '#', '@']) {
            return Err(not_a_host());
        }
        let url = Url::parse(&format!("{scheme}://{authority}")).map_err(|_| not_a_host())?;
        let is_ip_address = match url.host() {
            Some(Host::Domain(_)) => false,
            Some(_) => true,
            None => return Err(not_a_host()),
        };
        let host = url.host_str().unwrap_or_default().to_owned();
        Ok(Self { scheme, host, is_ip_address, port: url.port() })
    }

    /// Whether a URL has this scheme and port. The host is for the caller to compare.
    pub(crate) fn has_scheme_and_port(&self, url: &Url) -> bool {
        url.scheme() == self.scheme && url.port() == self.port
    }
}

/// The error for a text that is not a host.
#[cfg(any(feature = "azure", feature = "s3"))]
pub(crate) fn not_a_host() -> Error {
    Error::invalid("", "a listed host must be 'host' or 'host:port'")
}

/// Whether a URL names this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The single label before a suffix.
#[cfg(feature = "azure")]
pub(crate) fn label_before<'a>(host: &'a str, suffix: &str) -> Option<&'a str> {
    let label = host.strip_suffix(suffix)?.strip_suffix('.')?;
    (!label.is_empty() && !label.contains('.')).then_some(label)
}
