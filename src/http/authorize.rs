//! [`Authorize`]: decides who may start, view, cancel and resume operations.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::StatusCode;
use axum::http::header::{HeaderName, HeaderValue, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use crate::http::problem::Problem;
use crate::model::{ExportDestination, ExportRequest, OperationContext};
use crate::service::OperationRecord;

/// Authenticates requests and decides what each caller may do.
///
/// # Contract
/// Every request first passes [`authenticate`](Self::authenticate), before its body is read or an operation is looked
/// up, and then the method for its route. Each method gets the request's parts, so it can run axum's extractors
/// ([`FromRequestParts`](axum::extract::FromRequestParts)), including those for path parameters of a prefix that the
/// routes are nested under. Values that one method inserts into the extensions are visible to the next.
///
/// # Errors
/// A [`Rejection`] becomes the response; its detail is public. A 401, 403 or 404 from [`view`](Self::view) is answered with
/// 404, as if the operation did not exist; other statuses, for example 429 and 503, are answered as they are.
///
/// # Cancellation
/// The future is dropped when the client disconnects.
///
/// # Concurrency
/// Methods are called concurrently.
///
/// # Examples
/// Callers see the operations that they started:
///
/// ```
/// use async_trait::async_trait;
/// use axum::http::header::{AUTHORIZATION, HeaderValue};
/// use axum::http::request::Parts;
/// use dicom_export::http::{Authorize, HttpOptions, Rejection};
/// use dicom_export::{ExportRequest, OperationContext, OperationRecord};
///
/// #[derive(Clone)]
/// struct Caller(String);
///
/// struct Owners;
///
/// fn caller(parts: &Parts) -> Result<String, Rejection> {
///     let caller = parts.extensions.get::<Caller>().map(|caller| caller.0.clone());
///     caller.ok_or_else(|| Rejection::unavailable("the caller is not known"))
/// }
///
/// #[async_trait]
/// impl Authorize for Owners {
///     async fn authenticate(&self, parts: &mut Parts) -> Result<(), Rejection> {
///         let token = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
///         // Verify the token here.
///         let Some(name) = token.and_then(|token| token.strip_prefix("Bearer ")) else {
///             let challenge = HeaderValue::from_static("Bearer");
///             return Err(Rejection::unauthenticated(challenge, "a bearer token is required"));
///         };
///         let caller = Caller(name.to_owned());
///         parts.extensions.insert(caller);
///         Ok(())
///     }
///
///     async fn start(
///         &self,
///         parts: &mut Parts,
///         _: &ExportRequest,
///         location: &str,
///     ) -> Result<OperationContext, Rejection> {
///         // The location is validated and normalized; the settings of the request are not.
///         if !location.starts_with("https://exports.blob.core.windows.net/") {
///             return Err(Rejection::forbidden("exports go to the account 'exports' only"));
///         }
///         Ok(OperationContext::default().with_caller(caller(parts)?))
///     }
///
///     async fn view(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
///         match record.context.caller == Some(caller(parts)?) {
///             true => Ok(()),
///             false => Err(Rejection::forbidden("the operation belongs to another caller")),
///         }
///     }
/// }
///
/// let options = HttpOptions::new().authorize(Owners);
/// ```
#[async_trait]
pub trait Authorize: Send + Sync + 'static {
    /// Authenticates the request. Default: accepts every request.
    async fn authenticate(&self, parts: &mut Parts) -> Result<(), Rejection> {
        let _ = parts;
        Ok(())
    }

    /// Decides whether this export may be started, and returns the context that is stored with the operation.
    ///
    /// `location` identifies the container and the prefix in it that the destination's settings lead to, as validated by
    /// its [`SinkProvider`](crate::SinkProvider); for Azure it is the URL of the container. Restrict destinations by it and
    /// not by the settings: their names are case-insensitive, and one location can be written in several ways.
    ///
    /// With an `Idempotency-Key`, this is called for each repetition of the request too.
    async fn start(
        &self,
        parts: &mut Parts,
        request: &ExportRequest,
        location: &str,
    ) -> Result<OperationContext, Rejection>;

    /// Decides whether this operation may be viewed. A listing omits operations that may not.
    async fn view(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection>;

    /// Decides whether this operation, which may be viewed, may be canceled. Default: yes.
    async fn cancel(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
        let _ = (parts, record);
        Ok(())
    }

    /// Decides whether this operation, which may be viewed, may be paused. Default: as [`cancel`](Self::cancel).
    async fn pause(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
        self.cancel(parts, record).await
    }

    /// Decides whether the bytes per second of this operation, which may be viewed, may be limited to `bytes_per_second`;
    /// `None` removes the limit. Default: as [`cancel`](Self::cancel).
    async fn limit(
        &self,
        parts: &mut Parts,
        record: &OperationRecord,
        bytes_per_second: Option<NonZeroU64>,
    ) -> Result<(), Rejection> {
        let _ = bytes_per_second;
        self.cancel(parts, record).await
    }

    /// Decides whether this operation, which may be viewed, may be resumed. `destination` is the request's destination
    /// with new credentials, if it has one; the engine refuses another container. Default: yes.
    async fn resume(
        &self,
        parts: &mut Parts,
        record: &OperationRecord,
        destination: Option<&ExportDestination>,
    ) -> Result<(), Rejection> {
        let _ = (parts, record, destination);
        Ok(())
    }
}

/// Allows everything and stores an empty context: for a server that is protected by its network.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

#[async_trait]
impl Authorize for AllowAll {
    async fn start(&self, _: &mut Parts, _: &ExportRequest, _: &str) -> Result<OperationContext, Rejection> {
        Ok(OperationContext::default())
    }

    async fn view(&self, _: &mut Parts, _: &OperationRecord) -> Result<(), Rejection> {
        Ok(())
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<A: Authorize + ?Sized> Authorize for $pointer<A> {
            async fn authenticate(&self, parts: &mut Parts) -> Result<(), Rejection> {
                (**self).authenticate(parts).await
            }

            async fn start(
                &self,
                parts: &mut Parts,
                request: &ExportRequest,
                location: &str,
            ) -> Result<OperationContext, Rejection> {
                (**self).start(parts, request, location).await
            }

            async fn view(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
                (**self).view(parts, record).await
            }

            async fn cancel(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
                (**self).cancel(parts, record).await
            }

            async fn pause(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
                (**self).pause(parts, record).await
            }

            async fn limit(
                &self,
                parts: &mut Parts,
                record: &OperationRecord,
                bytes_per_second: Option<NonZeroU64>,
            ) -> Result<(), Rejection> {
                (**self).limit(parts, record, bytes_per_second).await
            }

            async fn resume(
                &self,
                parts: &mut Parts,
                record: &OperationRecord,
                destination: Option<&ExportDestination>,
            ) -> Result<(), Rejection> {
                (**self).resume(parts, record, destination).await
            }
        }
    )*};
}

forward!(Arc, Box);

/// The reason why a request is refused. Its detail is part of the response.
///
/// ```
/// use std::time::Duration;
///
/// use axum::http::StatusCode;
/// use dicom_export::http::Rejection;
///
/// let quota = Rejection::too_many_requests(Duration::from_secs(60), "the tenant runs five exports already");
/// assert_eq!(quota.status(), StatusCode::TOO_MANY_REQUESTS);
/// let unknown = Rejection::new(StatusCode::BAD_REQUEST, "the partition does not exist");
/// assert_eq!(unknown.to_string(), "the partition does not exist");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Rejection(Problem);

impl Rejection {
    /// A response with this status. It must be a 4xx or 503; any other is answered with 500, and logged.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        match status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE {
            true => Self(Problem::new(status).with_detail(detail)),
            false => {
                tracing::error!(%status, "a rejection must be a 4xx or 503; the response is 500");
                Self(Problem::new(StatusCode::INTERNAL_SERVER_ERROR))
            }
        }
    }

    /// 401: the caller is not known. `challenge` is the `WWW-Authenticate` header that the response must have
    /// (RFC 9110, section 15.5.2), for example `HeaderValue::from_static("Bearer")`.
    pub fn unauthenticated(challenge: HeaderValue, detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail).with_header(WWW_AUTHENTICATE, challenge)
    }

    /// 403: the caller may not do this.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 429 with `Retry-After`: a quota of the caller is exhausted.
    pub fn too_many_requests(retry_after: Duration, detail: impl Into<Cow<'static, str>>) -> Self {
        let rejection = Self::new(StatusCode::TOO_MANY_REQUESTS, detail);
        Self(rejection.0.with_retry_after(retry_after))
    }

    /// 503 with `Retry-After`: the decision cannot be made now.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Problem::unavailable().with_detail(detail))
    }

    /// Sets a header of the response.
    pub fn with_header(self, name: HeaderName, value: HeaderValue) -> Self {
        Self(self.0.with_header(name, value))
    }

    /// The status of the response.
    pub fn status(&self) -> StatusCode {
        self.0.status()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.detail())
    }
}

impl std::error::Error for Rejection {}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        rejection.0
    }
}

/// Lets an extractor use `Rejection` as its rejection type.
impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}
