//! [`GcsPolicy`]: which buckets a server uses, with which credentials, and with which identity.

use std::fmt;

use object_store::gcp::GcpCredentialProvider;
use url::Url;

use super::bucket::{GcsBucket, GcsCredential};
use crate::cloud::is_loopback;
use crate::error::{Error, Result};

const GOOGLE: &str = "https://storage.googleapis.com";

/// Which buckets a server exports to, with which credentials, and with which identity.
///
/// Requests are sent to `https://storage.googleapis.com`, or to the endpoint that the operator sets; a request cannot name
/// another one, and neither can a service account's key. The policy is checked before any request is sent, and again when an
/// operation is resumed.
///
/// The server's identity may be permitted to write to more buckets than a caller should: if
/// [`allow_bucket`](Self::allow_bucket) lists no bucket, a caller who sets `useInstanceIdentity` can name any of them.
///
/// ```
/// use dicom_export::sink::gcs::GcsPolicy;
///
/// let policy = GcsPolicy::new().allow_bucket("trial7-exports").allow_service_account_keys(false);
/// ```
#[derive(Clone)]
pub struct GcsPolicy {
    endpoint: String,
    buckets: Vec<String>,
    service_account_keys: bool,
    root_certificates: Vec<Vec<u8>>,
    identity: Option<GcpCredentialProvider>,
}

impl Default for GcsPolicy {
    fn default() -> Self {
        Self {
            endpoint: GOOGLE.to_owned(),
            buckets: Vec::new(),
            service_account_keys: true,
            root_certificates: Vec::new(),
            identity: None,
        }
    }
}

impl GcsPolicy {
    /// Creates the policy for production.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the endpoint: `https://<host>[:<port>]`, for example of Private Service Connect, or `http://` with a loopback host
    /// for an emulator. Default: `https://storage.googleapis.com`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the text is not such a URL.
    pub fn with_endpoint(mut self, url: &str) -> Result<Self> {
        let not_an_endpoint = || Error::invalid("", "an endpoint must be 'https://<host>[:<port>]'");
        let parsed = Url::parse(url).map_err(|_| not_an_endpoint())?;
        let is_plain = parsed.path() == "/"
            && parsed.query().is_none()
            && parsed.fragment().is_none()
            && parsed.username().is_empty()
            && parsed.password().is_none();
        let is_allowed = parsed.scheme() == "https" || parsed.scheme() == "http" && is_loopback(&parsed);
        if !is_plain || !is_allowed {
            return Err(not_an_endpoint());
        }
        parsed.as_str().trim_end_matches('/').clone_into(&mut self.endpoint);
        Ok(self)
    }

    /// Allows a bucket. Default: all buckets. Once a bucket is allowed, all others are refused.
    #[must_use]
    pub fn allow_bucket(mut self, name: impl Into<String>) -> Self {
        self.buckets.push(name.into());
        self
    }

    /// Sets whether requests may contain the key of a service account. Default: `true`. With `false` only the server's identity
    /// is used.
    #[must_use]
    pub fn allow_service_account_keys(mut self, allow: bool) -> Self {
        self.service_account_keys = allow;
        self
    }

    /// Trusts one or more certificate authorities (PEM), in addition to those of the system.
    #[must_use]
    pub fn with_root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Sets the credentials for `useInstanceIdentity`. Default: the application default credentials of the process, which are a
    /// file, or the metadata service of the machine.
    #[must_use]
    pub fn with_identity(mut self, credentials: GcpCredentialProvider) -> Self {
        self.identity = Some(credentials);
        self
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// PEM.
    pub(super) fn root_certificates(&self) -> &[Vec<u8>] {
        &self.root_certificates
    }

    pub(super) fn identity(&self) -> Option<&GcpCredentialProvider> {
        self.identity.as_ref()
    }

    pub(super) fn allows_http(&self) -> bool {
        self.endpoint.starts_with("http://")
    }

    /// Checks whether a bucket may be used with its credential.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the pointer of the property at fault.
    pub(crate) fn check(&self, bucket: &GcsBucket) -> Result<()> {
        let invalid = |at: &str, fault: &str| Err(Error::invalid(at, format!("'{at}' {fault}")));
        if !self.buckets.is_empty() && !self.buckets.contains(&bucket.name) {
            return invalid("/bucket", "names a bucket that this server does not use");
        }
        match bucket.credential {
            GcsCredential::ServiceAccountKey(_) if !self.service_account_keys => {
                invalid("/serviceAccountKey", "is a key, which this server does not accept")
            }
            // The credentials that a host sets for an emulator are not the machine's.
            GcsCredential::InstanceIdentity if self.allows_http() && self.identity.is_none() => {
                invalid("/useInstanceIdentity", "is not possible at an endpoint without https")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for GcsPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsPolicy")
            .field("endpoint", &self.endpoint)
            .field("buckets", &self.buckets)
            .field("service_account_keys", &self.service_account_keys)
            .field("root_certificates", &self.root_certificates.len())
            .field("identity", &self.identity.is_some())
            .finish()
    }
}
