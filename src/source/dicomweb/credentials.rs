//! [`DicomWebCredentials`]: how a source authenticates.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::RequestBuilder;
use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// How a [`DicomWebSource`](crate::DicomWebSource) authenticates.
///
/// Credentials are sent only to the server that the source was created for, not to redirect targets, and appear in no
/// error, log or `Debug` output. Over plain http they cross the network unencrypted.
///
/// ```
/// use dicom_export::Secret;
/// use dicom_export::source::DicomWebCredentials;
///
/// let fixed = DicomWebCredentials::basic("exporter", "a password");
/// let renewed = DicomWebCredentials::renewing(|| async {
///     // Ask the identity provider for a token here.
///     Ok(Secret::new("token"))
/// });
/// assert_eq!(format!("{fixed:?}"), "DicomWebCredentials(basic ***)");
/// # _ = renewed;
/// ```
#[derive(Clone)]
pub struct DicomWebCredentials(Kind);

type Renew = dyn Fn() -> BoxFuture<'static, Result<Secret>> + Send + Sync;

#[derive(Clone)]
enum Kind {
    Anonymous,
    Basic { user: String, password: Secret },
    Bearer(Secret),
    Renewing { renew: Arc<Renew>, current: Arc<Mutex<Current>> },
}

/// The current token of a renewing credential, and the number of tokens so far.
#[derive(Default)]
struct Current {
    token: Option<Secret>,
    generation: u64,
}

/// The number of the token that a request was sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

impl DicomWebCredentials {
    /// No credentials: for a server that needs none, or identifies its clients by another header or by address.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(Kind::Anonymous)
    }

    /// A user name and a password (RFC 7617), sent with every request.
    pub fn basic(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self(Kind::Basic { user: user.into(), password: Secret::new(password) })
    }

    /// A bearer token (RFC 6750) that stays valid for the whole export.
    pub fn bearer(token: impl Into<String>) -> Self {
        Self(Kind::Bearer(Secret::new(token)))
    }

    /// Bearer tokens that expire. `renew` returns a new token; it is called before the first request and after the server
    /// rejects a token with 401. Only one call runs at a time; other requests wait for its token.
    ///
    /// # Errors
    /// If `renew` fails with [`Throttled`](ErrorKind::Throttled) or [`Unavailable`](ErrorKind::Unavailable), the engine
    /// retries. Any other error becomes [`Unauthorized`](ErrorKind::Unauthorized), which fails the operation.
    pub fn renewing<F, Fut>(renew: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Secret>> + Send + 'static,
    {
        Self(Kind::Renewing { renew: Arc::new(move || renew().boxed()), current: Arc::default() })
    }

    /// # Errors
    /// [`ErrorKind::Invalid`] if they cannot be sent in a header.
    pub(super) fn check(&self) -> Result<()> {
        let usable = match &self.0 {
            Kind::Anonymous | Kind::Renewing { .. } => true,
            // RFC 7617 2: the first colon ends the user.
            Kind::Basic { user, .. } => !user.contains(':') && !user.chars().any(char::is_control),
            Kind::Bearer(token) => is_token(token),
        };
        let unusable = || Error::new(ErrorKind::Invalid, "the DICOMweb credentials cannot be used");
        usable.then_some(()).ok_or_else(unusable)
    }

    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self.0, Kind::Anonymous)
    }

    /// Adds them to a request. The returned generation is the argument of [`invalidate`](Self::invalidate).
    pub(super) async fn apply(
        &self,
        request: RequestBuilder,
    ) -> Result<(RequestBuilder, Option<Generation>)> {
        Ok(match &self.0 {
            Kind::Anonymous => (request, None),
            Kind::Basic { user, password } => (request.basic_auth(user, Some(password.expose())), None),
            Kind::Bearer(token) => (request.bearer_auth(token.expose()), None),
            Kind::Renewing { renew, current } => {
                let mut current = current.lock().await;
                if current.token.is_none() {
                    let token = renew().await.map_err(renewal_error)?;
                    if !is_token(&token) {
                        return Err(Error::new(
                            ErrorKind::Unauthorized,
                            "the renewed token is not a valid token",
                        ));
                    }
                    current.token = Some(token);
                    current.generation += 1;
                }
                let generation = Generation(current.generation);
                let token = current.token.as_ref().map(Secret::expose).unwrap_or_default();
                (request.bearer_auth(token), Some(generation))
            }
        })
    }

    /// Discards a token that the server rejected. The next request renews it.
    pub(super) async fn invalidate(&self, generation: Generation) {
        let Kind::Renewing { current, .. } = &self.0 else { return };
        let mut current = current.lock().await;
        // Another request may have renewed it already.
        if current.generation == generation.0 {
            current.token = None;
        }
    }
}

/// A lenient form of RFC 6750 2.1.
fn is_token(token: &Secret) -> bool {
    let token = token.expose();
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A missing token affects the whole archive, so it must not have a kind that skips an instance.
fn renewal_error(cause: Error) -> Error {
    match cause.kind() {
        ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::Unauthorized => cause,
        _ => Error::new(ErrorKind::Unauthorized, "the token cannot be renewed").with_source(cause),
    }
}

impl fmt::Debug for DicomWebCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Anonymous => "DicomWebCredentials(anonymous)",
            Kind::Basic { .. } => "DicomWebCredentials(basic ***)",
            Kind::Bearer(_) => "DicomWebCredentials(bearer ***)",
            Kind::Renewing { .. } => "DicomWebCredentials(renewing ***)",
        })
    }
}
