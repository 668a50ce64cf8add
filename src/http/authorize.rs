//! [`Authorize`]: who may start, see, cancel and resume what.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use axum::http::StatusCode;
use axum::http::header::{HeaderValue, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use crate::engine::OperationRecord;
use crate::http::problem::Problem;
use crate::model::OperationContext;
use crate::model::{ExportDestination, ExportRequest};

/// Decides who may do what.
///
/// # Contract
/// Every request first passes [`authenticate`](Self::authenticate), before its body is read or an operation looked for, and then the
/// method of what it wants. All get the request's parts, so axum's extractors run in them
/// ([`FromRequestParts`](axum::extract::FromRequestParts)) and the parameters of a prefix that the routes are nested
/// under are there; what one leaves in the parts' extensions, the next finds.
///
/// # Errors
/// A [`Rejection`] becomes the answer; its detail is public. One of [`view`](Self::view) is answered as if there were no
/// such operation: 404.
///
/// # Cancellation
/// A client that hangs up drops the future.
///
/// # Concurrency
/// Many calls run at once.
#[async_trait]
pub trait Authorize: Send + Sync + 'static {
    /// Whether the request comes any further: the place to authenticate. Default: it does.
    async fn authenticate(&self, parts: &mut Parts) -> Result<(), Rejection> {
        let _ = parts;
        Ok(())
    }

    /// Whether this export may be started towards this destination, and what is stored with it.
    async fn start(&self, parts: &mut Parts, request: &ExportRequest) -> Result<OperationContext, Rejection>;

    /// Whether this operation may be seen. A listing shows what may be seen.
    async fn view(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection>;

    /// Whether this operation, which may be seen, may be canceled. Default: yes.
    async fn cancel(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
        let _ = (parts, record);
        Ok(())
    }

    /// Whether this operation, which may be seen, may be resumed; `destination` is the one with new credentials, if
    /// the request has one. The engine refuses another container. Default: yes.
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

/// Everybody may do everything, and nothing is stored with an operation: for a server whose network decides.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllowAll;

#[async_trait]
impl Authorize for AllowAll {
    async fn start(&self, _: &mut Parts, _: &ExportRequest) -> Result<OperationContext, Rejection> {
        Ok(OperationContext::default())
    }

    async fn view(&self, _: &mut Parts, _: &OperationRecord) -> Result<(), Rejection> {
        Ok(())
    }
}

#[async_trait]
impl<A: Authorize + ?Sized> Authorize for Arc<A> {
    async fn authenticate(&self, parts: &mut Parts) -> Result<(), Rejection> {
        (**self).authenticate(parts).await
    }

    async fn start(&self, parts: &mut Parts, request: &ExportRequest) -> Result<OperationContext, Rejection> {
        (**self).start(parts, request).await
    }

    async fn view(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
        (**self).view(parts, record).await
    }

    async fn cancel(&self, parts: &mut Parts, record: &OperationRecord) -> Result<(), Rejection> {
        (**self).cancel(parts, record).await
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

/// Why a request is refused. Its detail goes into the answer.
#[derive(Debug, Clone)]
pub struct Rejection {
    pub(super) reason: Reason,
    detail: Cow<'static, str>,
}

#[derive(Debug, Clone)]
pub(super) enum Reason {
    Unauthenticated(HeaderValue),
    Forbidden,
    Unavailable,
}

impl Rejection {
    /// 401: nobody knows who asks. `challenge` is the `WWW-Authenticate` header that such an answer must have
    /// (RFC 9110 15.5.2): `HeaderValue::from_static("Bearer")`, say.
    pub fn unauthenticated(challenge: HeaderValue, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Reason::Unauthenticated(challenge), detail: detail.into() }
    }

    /// 403: who asks may not do it.
    pub fn forbidden(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Reason::Forbidden, detail: detail.into() }
    }

    /// 503 with `Retry-After`: it cannot be told at the moment.
    pub fn unavailable(detail: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: Reason::Unavailable, detail: detail.into() }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Rejection {}

impl From<Rejection> for Problem {
    fn from(refusal: Rejection) -> Self {
        let problem = match refusal.reason {
            Reason::Unauthenticated(challenge) => {
                Problem::new(StatusCode::UNAUTHORIZED).with_header(WWW_AUTHENTICATE, challenge)
            }
            Reason::Forbidden => Problem::new(StatusCode::FORBIDDEN),
            Reason::Unavailable => Problem::unavailable(),
        };
        problem.with_detail(refusal.detail)
    }
}

/// So that an extractor can refuse with it.
impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
