//! [`HttpOptions`]: the knobs of the HTTP API.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::http::authorize::{AllowAll, Authorize};
use crate::http::base_url::BaseUrl;

/// The knobs of the HTTP API; [`new`](Self::new) has the defaults.
#[derive(Clone)]
#[must_use]
pub struct HttpOptions {
    pub(super) base_url: BaseUrl,
    pub(super) authorize: Arc<dyn Authorize>,
    pub(super) export_all: bool,
    pub(super) body_limit: usize,
    pub(super) body_timeout: Duration,
    pub(super) max_running: Option<usize>,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            base_url: BaseUrl::Request,
            authorize: Arc::new(AllowAll),
            export_all: true,
            body_limit: 16 << 20,
            body_timeout: Duration::from_secs(60),
            max_running: None,
        }
    }
}

impl HttpOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where `href` and `Location` begin. Default: [`BaseUrl::Request`].
    pub fn base_url(mut self, base_url: BaseUrl) -> Self {
        self.base_url = base_url;
        self
    }

    /// Who may do what. Default: [`AllowAll`].
    pub fn authorize(mut self, authorize: impl Authorize) -> Self {
        self.authorize = Arc::new(authorize);
        self
    }

    /// Whether a request without a `source`, which exports everything, is accepted. Default: yes; otherwise the answer
    /// is 403.
    pub fn allow_export_all(mut self, allow: bool) -> Self {
        self.export_all = allow;
        self
    }

    /// How many bytes a request's body has at most; a longer one is answered with 413. Default: 16 MiB, which is some
    /// 80,000 instances by their three UIDs. A body is held in memory, some five times its size while it is read.
    pub fn body_limit(mut self, bytes: usize) -> Self {
        self.body_limit = bytes;
        self
    }

    /// How long a client may take to send a body; then the answer is 408. Default: 60 seconds.
    pub fn body_timeout(mut self, timeout: Duration) -> Self {
        self.body_timeout = timeout;
        self
    }

    /// How many operations may run at once; one more is answered with 429. Default: no limit.
    ///
    /// What counts is what the [`ExportService`](crate::ExportService) lists as not ended, whoever may see it: so
    /// operations that a crash left count until they are resumed and end, or are canceled, and those of other replicas
    /// over the same store count too. Two replicas that are asked in the same moment may each let one in. An operation
    /// that failed and was resumed by other means than this router counts from this process's next start.
    pub fn max_running(mut self, operations: usize) -> Self {
        self.max_running = Some(operations);
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
            .field("max_running", &self.max_running)
            .finish_non_exhaustive()
    }
}
