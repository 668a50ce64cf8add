//! [`S3Policy`]: which buckets a server uses, with which credentials, and with which identity.

use std::fmt;

use object_store::aws::AwsCredentialProvider;
use url::Url;

use super::bucket::{S3Bucket, S3Credential};
use super::endpoint::{BucketAddressing, EndpointRule, KnownEndpoint};
use crate::error::{Error, Result};

/// Which buckets a server exports to, with which credentials, and with which identity.
///
/// Callers name the destination of an export, and this policy decides which destinations are accepted. It is checked
/// before any request is sent, and again when an operation is resumed.
///
/// | | [`new`](Self::new) (default) | [`development`](Self::development) |
/// | --- | --- | --- |
/// | endpoints | those of Amazon S3 | also loopback hosts on any port |
/// | scheme | https | also http to loopback hosts |
/// | buckets | all | all |
/// | access keys | accepted | accepted |
/// | no credential | refused | refused |
/// | instance identity | over https | also to loopback if a root certificate is set |
///
/// Never accepted: a user part in an endpoint, a path, a port that is not listed, a host that only resembles a listed one, an
/// IP address that is not listed.
///
/// The server's identity may be permitted to write to more buckets than a caller should: if
/// [`allow_bucket`](Self::allow_bucket) lists no bucket, a caller who sets `useInstanceIdentity` can name any of them.
///
/// ```
/// use dicom_export::sink::s3::{BucketAddressing, S3Policy};
///
/// let policy = S3Policy::new()
///     .allow_endpoint("minio.hospital.example:9000", BucketAddressing::Path)?
///     .allow_bucket("trial7");
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Clone)]
pub struct S3Policy {
    is_development: bool,
    aws: bool,
    endpoints: Vec<EndpointRule>,
    buckets: Vec<String>,
    access_keys: bool,
    anonymous: bool,
    root_certificates: Vec<Vec<u8>>,
    identity: Option<AwsCredentialProvider>,
    metadata_endpoint: Option<String>,
}

impl Default for S3Policy {
    fn default() -> Self {
        Self {
            is_development: false,
            aws: true,
            endpoints: Vec::new(),
            buckets: Vec::new(),
            access_keys: true,
            anonymous: false,
            root_certificates: Vec::new(),
            identity: None,
            metadata_endpoint: None,
        }
    }
}

impl S3Policy {
    /// Creates the policy for production.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the policy for a developer's machine, which also allows loopback hosts over http and https.
    pub fn development() -> Self {
        Self { is_development: true, ..Self::default() }
    }

    /// Allows the endpoint of a compatible store: `host[:port]`, over https on the default port unless a port is given.
    /// `http://host[:port]` is for a store in a neighboring container; the server's identity is not sent there.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is not a host.
    pub fn allow_endpoint(mut self, host: &str, addressing: BucketAddressing) -> Result<Self> {
        self.endpoints.push(EndpointRule::new(host, addressing)?);
        Ok(self)
    }

    /// Allows only the endpoints that are listed with [`allow_endpoint`](Self::allow_endpoint), and loopback hosts in
    /// development. Default: the endpoints of Amazon S3 are allowed too.
    #[must_use]
    pub fn only_allowed_endpoints(mut self) -> Self {
        self.aws = false;
        self
    }

    /// Allows a bucket, at all endpoints. Default: all buckets. Once a bucket is allowed, all others are refused.
    #[must_use]
    pub fn allow_bucket(mut self, name: impl Into<String>) -> Self {
        self.buckets.push(name.into());
        self
    }

    /// Sets whether requests may contain access keys. Default: `true`. With `false` only the server's identity is used.
    #[must_use]
    pub fn allow_access_keys(mut self, allow: bool) -> Self {
        self.access_keys = allow;
        self
    }

    /// Sets whether requests may contain no credential at all. Default: `false`. This is for endpoints behind a proxy that
    /// signs requests.
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

    /// Sets the credentials for `useInstanceIdentity`. Default: those that the environment of the process provides, in this
    /// order: the variables `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and `AWS_SESSION_TOKEN`; a web identity (as in
    /// Amazon EKS); a container (Amazon ECS, EKS Pod Identity); the instance metadata service, version 2.
    #[must_use]
    pub fn with_identity(mut self, credentials: AwsCredentialProvider) -> Self {
        self.identity = Some(credentials);
        self
    }

    /// Sets the URL of the instance metadata service. Default: `http://169.254.169.254`.
    #[must_use]
    pub fn with_metadata_endpoint(mut self, url: impl Into<String>) -> Self {
        self.metadata_endpoint = Some(url.into());
        self
    }

    /// PEM.
    pub(super) fn root_certificates(&self) -> &[Vec<u8>] {
        &self.root_certificates
    }

    pub(super) fn identity(&self) -> Option<&AwsCredentialProvider> {
        self.identity.as_ref()
    }

    pub(super) fn metadata_endpoint(&self) -> Option<&str> {
        self.metadata_endpoint.as_deref()
    }

    /// Whether any host may be reached over http. [`check`](Self::check) decides which.
    pub(super) fn allows_http(&self) -> bool {
        self.is_development || self.endpoints.iter().any(EndpointRule::allows_http)
    }

    /// What is known about an endpoint, or `None` if it is not listed.
    pub(super) fn known_endpoint(&self, endpoint: &Url) -> Option<KnownEndpoint> {
        let listed = self.endpoints.iter().find_map(|rule| rule.matches(endpoint));
        let aws = || self.aws.then(|| KnownEndpoint::aws(endpoint))?;
        let loopback = || self.is_development.then(|| KnownEndpoint::loopback(endpoint))?;
        listed.or_else(aws).or_else(loopback)
    }

    /// Checks whether a bucket may be used with its credential.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the pointer of the property at fault.
    pub(crate) fn check(&self, bucket: &S3Bucket) -> Result<()> {
        let invalid = |at: &str, fault: &str| Err(Error::invalid(at, format!("'{at}' {fault}")));
        let Some(endpoint) = self.known_endpoint(&bucket.endpoint) else { return Err(unlisted()) };
        if !self.buckets.is_empty() && !self.buckets.contains(&bucket.name) {
            return invalid("/bucket", "names a bucket that this server does not use");
        }
        match bucket.credential {
            S3Credential::Keys(_) if !self.access_keys => {
                invalid("/accessKeyId", "is an access key, which this server does not accept")
            }
            S3Credential::Anonymous if !self.anonymous => {
                invalid("/accessKeyId", "is missing: an access key or '/useInstanceIdentity' is required")
            }
            S3Credential::InstanceIdentity if bucket.endpoint.scheme() != "https" => {
                invalid("/useInstanceIdentity", "is not possible at an endpoint without https")
            }
            S3Credential::InstanceIdentity if endpoint.is_loopback && self.root_certificates.is_empty() => {
                invalid("/useInstanceIdentity", "is not possible at this endpoint")
            }
            _ => Ok(()),
        }
    }
}

/// The error for an endpoint that the policy does not list. It does not repeat the endpoint, which the caller knows.
pub(super) fn unlisted() -> Error {
    Error::invalid("/endpoint", "'/endpoint' names a host that this server does not use")
}

impl fmt::Debug for S3Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Policy")
            .field("is_development", &self.is_development)
            .field("aws", &self.aws)
            .field("endpoints", &self.endpoints)
            .field("buckets", &self.buckets)
            .field("access_keys", &self.access_keys)
            .field("anonymous", &self.anonymous)
            .field("root_certificates", &self.root_certificates.len())
            .field("identity", &self.identity.is_some())
            .field("metadata_endpoint", &self.metadata_endpoint)
            .finish()
    }
}
