//! [`HttpOptions`]: the configuration of the HTTP API.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::http::authorize::{AllowAll, Authorize};
use crate::http::base_url::BaseUrl;

/// The configuration of the HTTP API.
///
/// ```
/// use std::time::Duration;
///
/// use dicom_export::http::{BaseUrl, HttpOptions};
///
/// let options = HttpOptions::new()
///     .base_url(BaseUrl::configured("https://pacs.example/dicom")?)
///     .allow_export_all(false)
///     .body_timeout(Duration::from_secs(30));
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct HttpOptions {
    pub(super) base_url: BaseUrl,
    pub(super) authorize: Arc<dyn Authorize>,
    pub(super) export_all: bool,
    pub(super) body_limit: usize,
    pub(super) body_timeout: Duration,
    pub(super) body_memory: usize,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            base_url: BaseUrl::Request,
            authorize: Arc::new(AllowAll),
            export_all: true,
            body_limit: 16 << 20,
            body_timeout: Duration::from_secs(60),
            body_memory: 64 << 20,
        }
    }
}

impl HttpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how the URLs in `href` and `Location` begin. Default: [`BaseUrl::Request`].
    pub fn base_url(mut self, base_url: BaseUrl) -> Self {
        self.base_url = base_url;
        self
    }

    /// Sets who may do what. Default: [`AllowAll`].
    pub fn authorize(mut self, authorize: impl Authorize) -> Self {
        self.authorize = Arc::new(authorize);
        self
    }

    /// Sets whether a request without a `source`, which exports everything, is accepted; otherwise it is answered
    /// with 403. Default: accepted.
    pub fn allow_export_all(mut self, allow: bool) -> Self {
        self.export_all = allow;
        self
    }

    /// Sets the maximum size of a request body in bytes; a larger one is answered with 413. Default: 16 MiB, enough for
    /// about 80,000 instances by their three UIDs. Reading a body takes at most four times its size in memory.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// Sets how long a client may take to send a body; after that the response is 408. Default: 60 seconds.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// Sets how many bytes of request bodies may be held at the same time. Bodies of at most 64 KiB do not count; a longer
    /// one that does not fit is answered with 503 and `Retry-After`. It should be at least [`body_limit`](Self::body_limit).
    /// Default: 64 MiB.
    pub fn body_memory(mut self, bytes: usize) -> Self {
        self.body_memory = bytes;
        self
    }
}

impl fmt::Debug for HttpOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpOptions")
            .field("base_url", &self.base_url)
            .field("export_all", &self.export_all)
            .field("body_limit", &self.body_limit)
            .field("body_timeout", &self.body_timeout)
            .field("body_memory", &self.body_memory)
            .finish_non_exhaustive()
    }
}
