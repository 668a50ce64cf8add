//! [`DicomWebCredentials`]: who asks.

use std::fmt;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::RequestBuilder;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Mutex;

use crate::error::{Error, ErrorKind, Result};

/// How a [`DicomWebSource`](crate::DicomWebSource) shows who it is.
///
/// They go to the server that the source was made for and to no other, wherever it redirects, and they are in no
/// error, log or `Debug`. Over plain http they cross the network readable by anybody on the way.
#[derive(Clone)]
pub struct DicomWebCredentials(Kind);

type Renew = dyn Fn() -> BoxFuture<'static, Result<SecretString>> + Send + Sync;

#[derive(Clone)]
enum Kind {
    Anonymous,
    Basic { user: String, password: SecretString },
    Bearer(SecretString),
    Renewing { renew: Arc<Renew>, current: Arc<Mutex<Current>> },
}

/// A renewing credential's token, if there is one, and how many there have been.
#[derive(Default)]
struct Current {
    token: Option<SecretString>,
    generation: u64,
}

/// Which token a request was sent with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation(u64);

impl DicomWebCredentials {
    /// None: the server is open, or knows its clients by a header of their own or by their address.
    pub fn anonymous() -> Self {
        Self(Kind::Anonymous)
    }

    /// A user and a password (RFC 7617), sent with every request.
    pub fn basic(user: impl Into<String>, password: impl Into<SecretString>) -> Self {
        Self(Kind::Basic { user: user.into(), password: password.into() })
    }

    /// A bearer token (RFC 6750) that lasts as long as the export does.
    pub fn bearer(token: impl Into<SecretString>) -> Self {
        Self(Kind::Bearer(token.into()))
    }

    /// Bearer tokens that are renewed: the function gives a fresh one, for the first request and whenever the server
    /// has refused the last one (401). It is called by one request at a time; the others wait for its token.
    ///
    /// Its [`Throttled`](ErrorKind::Throttled) and [`Unavailable`](ErrorKind::Unavailable) are repeated by the
    /// engine; any other error counts as [`Unauthorized`](ErrorKind::Unauthorized), which fails the operation.
    pub fn renewing<F, Fut>(renew: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<SecretString>> + Send + 'static,
    {
        Self(Kind::Renewing { renew: Arc::new(move || renew().boxed()), current: Arc::default() })
    }

    /// # Errors
    /// [`ErrorKind::Invalid`] when no request could carry them.
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

    /// Puts them on a request. What comes back is for [`refused`](Self::refused).
    pub(super) async fn put_on(
        &self,
        request: RequestBuilder,
    ) -> Result<(RequestBuilder, Option<Generation>)> {
        Ok(match &self.0 {
            Kind::Anonymous => (request, None),
            Kind::Basic { user, password } => {
                (request.basic_auth(user, Some(password.expose_secret())), None)
            }
            Kind::Bearer(token) => (request.bearer_auth(token.expose_secret()), None),
            Kind::Renewing { renew, current } => {
                let mut current = current.lock().await;
                if current.token.is_none() {
                    let fresh = renew().await.map_err(no_token)?;
                    if !is_token(&fresh) {
                        return Err(Error::new(ErrorKind::Unauthorized, "what renews the token gave none"));
                    }
                    current.token = Some(fresh);
                    current.generation += 1;
                }
                let generation = Generation(current.generation);
                let token = current.token.as_ref().map(SecretString::expose_secret).unwrap_or_default();
                (request.bearer_auth(token), Some(generation))
            }
        })
    }

    /// Notes that the server refused a token: the next request asks for another.
    pub(super) async fn refused(&self, generation: Generation) {
        let Kind::Renewing { current, .. } = &self.0 else { return };
        let mut current = current.lock().await;
        // Another request may have renewed it already.
        if current.generation == generation.0 {
            current.token = None;
        }
    }
}

/// RFC 6750 2.1, read leniently.
fn is_token(token: &SecretString) -> bool {
    let token = token.expose_secret();
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A missing token concerns the whole archive, so it must not pass for an instance's own fault.
fn no_token(cause: Error) -> Error {
    match cause.kind() {
        ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::Unauthorized => cause,
        _ => Error::new(ErrorKind::Unauthorized, "no token for the server could be had").with_source(cause),
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
