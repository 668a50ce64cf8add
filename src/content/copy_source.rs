//! [`CopySource`]: a URL from which a destination copies an instance.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};

/// A URL from which a destination can copy an instance, so that its bytes do not pass through this process.
///
/// ```
/// use dicom_export::source::CopySource;
///
/// let copy = CopySource::new("https://archive.example/1.2.3?signature=secret", 526_336).with_etag("\"0x8DC\"");
/// assert_eq!(copy.length(), 526_336);
/// assert!(!format!("{copy:?}").contains("secret"));
/// ```
#[derive(Clone)]
pub struct CopySource {
    url: SecretString,
    length: u64,
    etag: Option<String>,
}

impl CopySource {
    /// Creates a source from a URL and the instance's length in bytes.
    ///
    /// A `GET` of the URL must return the instance without further credentials for as long as a copy may take. The URL
    /// is treated as a secret, since it usually contains a credential.
    pub fn new(url: impl Into<String>, length: u64) -> Self {
        Self { url: SecretString::from(url.into()), length, etag: None }
    }

    /// Sets the ETag (RFC 9110 8.8.3) of the version that has this length. The destination then refuses to copy another
    /// version. Without an ETag the bytes at the URL must never change.
    #[must_use]
    pub fn with_etag(mut self, etag: impl Into<String>) -> Self {
        self.etag = Some(etag.into());
        self
    }

    /// Returns the URL, including the credential.
    pub fn expose_url(&self) -> &str {
        self.url.expose_secret()
    }

    /// Returns the instance's length in bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Returns the ETag of the version to copy.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }
}

impl fmt::Debug for CopySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopySource").field("length", &self.length).finish_non_exhaustive()
    }
}
