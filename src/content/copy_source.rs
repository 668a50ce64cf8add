//! [`CopySource`]: where a destination can fetch an instance itself.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// Where a destination can fetch an instance itself, with no byte of it through this process.
#[derive(Clone)]
pub struct CopySource {
    url: SecretString,
    length: u64,
    etag: Option<String>,
}

impl CopySource {
    /// A URL that answers `GET` with the instance's bytes to whoever has it, for as long as a copy may take, and how
    /// many bytes those are. The URL counts as secret: as a rule a credential is in it.
    pub fn new(url: impl Into<String>, length: u64) -> Self {
        Self { url: SecretString::from(url.into()), length, etag: None }
    }

    /// With the tag of the version that has this length (RFC 9110 8.8.3), so that another one is not copied in its
    /// place, or cut off at its length. Without it the source promises that what lies behind the URL never changes.
    pub fn with_etag(mut self, etag: impl Into<String>) -> Self {
        self.etag = Some(etag.into());
        self
    }

    /// The URL, with the credential in it.
    pub fn expose_url(&self) -> &str {
        self.url.expose_secret()
    }

    /// The instance's length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The tag of the version that is meant.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }
}

impl fmt::Debug for CopySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopySource").field("length", &self.length).finish_non_exhaustive()
    }
}
