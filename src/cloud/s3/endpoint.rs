//! Which endpoints an [`S3Policy`](super::S3Policy) lists, and how buckets are addressed there.

use url::{Host, Url};

use crate::cloud::{ListedHost, is_loopback, not_a_host};
use crate::error::Result;

/// The domains of the endpoints of Amazon S3: public, China.
const DOMAINS: [&str; 2] = [".amazonaws.com", ".amazonaws.com.cn"];

/// How the endpoints of Amazon S3 begin ("Amazon Simple Storage Service endpoints and quotas"). The region follows.
const SERVICES: [&str; 4] = ["s3.dualstack.", "s3-fips.dualstack.", "s3-fips.", "s3."];

/// How a URL at an endpoint names a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BucketAddressing {
    /// The path begins with the bucket: `https://<endpoint>/<bucket>`.
    Path,
    /// The bucket is a label before the host: `https://<bucket>.<endpoint>`.
    VirtualHosted,
}

/// An endpoint that the policy lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KnownEndpoint {
    pub(crate) addressing: BucketAddressing,
    /// The region, if it is part of the host's name.
    pub(crate) region: Option<String>,
    pub(crate) is_aws: bool,
    pub(crate) is_loopback: bool,
}

impl KnownEndpoint {
    /// An endpoint of Amazon S3, over https on the default port.
    pub(super) fn aws(endpoint: &Url) -> Option<Self> {
        // `port` is `None` for the scheme's default.
        if endpoint.scheme() != "https" || endpoint.port().is_some() {
            return None;
        }
        let Some(Host::Domain(host)) = endpoint.host() else { return None };
        let rest = DOMAINS.iter().find_map(|domain| host.strip_suffix(domain))?;
        let region = SERVICES.iter().find_map(|service| rest.strip_prefix(service))?;
        is_region(region).then(|| Self {
            addressing: BucketAddressing::VirtualHosted,
            region: Some(region.to_owned()),
            is_aws: true,
            is_loopback: false,
        })
    }

    /// A loopback host on any port.
    pub(super) fn loopback(endpoint: &Url) -> Option<Self> {
        is_loopback(endpoint).then_some(Self {
            addressing: BucketAddressing::Path,
            region: None,
            is_aws: false,
            is_loopback: true,
        })
    }
}

/// An endpoint that the server's operator listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EndpointRule {
    host: ListedHost,
    addressing: BucketAddressing,
}

impl EndpointRule {
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is not a host.
    pub(super) fn new(text: &str, addressing: BucketAddressing) -> Result<Self> {
        let host = ListedHost::parse(text)?;
        if host.is_ip_address && addressing == BucketAddressing::VirtualHosted {
            return Err(not_a_host());
        }
        Ok(Self { host, addressing })
    }

    pub(super) fn allows_http(&self) -> bool {
        self.host.scheme == "http"
    }

    pub(super) fn matches(&self, endpoint: &Url) -> Option<KnownEndpoint> {
        let is_listed = self.host.has_scheme_and_port(endpoint)
            && endpoint.host_str().is_some_and(|host| host == self.host.host);
        is_listed.then_some(KnownEndpoint {
            addressing: self.addressing,
            region: None,
            is_aws: false,
            is_loopback: false,
        })
    }
}

/// The endpoint of a region of Amazon S3.
pub(super) fn aws_endpoint(region: &str) -> String {
    let domain = if region.starts_with("cn-") { DOMAINS[1] } else { DOMAINS[0] };
    format!("https://s3.{region}{domain}")
}

/// Whether this can be the name of a region, for example `eu-central-1`.
pub(super) fn is_region(text: &str) -> bool {
    matches!(text.len(), 1..=63)
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}
