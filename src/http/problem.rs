//! [`Problem`]: an error response.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use axum::response::{IntoResponse, Response};

use crate::error::{Error, ErrorKind};
use crate::http::documents::{ProblemDocument, json};

/// The `Retry-After` of a 503.
const UNAVAILABLE_RETRY_AFTER: Duration = Duration::from_secs(5);

/// An error response of type `application/problem+json` (RFC 9457). A server can use it for its own routes too.
///
/// Its `type` is `about:blank`: the status is the kind of problem, and the detail describes it.
///
/// ```
/// use axum::http::StatusCode;
/// use dicom_export::http::Problem;
///
/// async fn study() -> Result<String, Problem> {
///     Err(Problem::new(StatusCode::NOT_FOUND).with_detail("the study does not exist"))
/// }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Problem {
    status: StatusCode,
    detail: Cow<'static, str>,
    pointer: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// A problem with this status; its detail is the status's reason phrase.
    pub fn new(status: StatusCode) -> Self {
        let detail = Cow::Borrowed(title(status));
        Self { status, detail, pointer: None, headers: Vec::new() }
    }

    /// Sets the description for people. It is public.
    pub fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    /// Sets the JSON pointer (RFC 6901) of the property that is wrong.
    pub fn with_pointer(mut self, pointer: impl Into<String>) -> Self {
        self.pointer = Some(pointer.into());
        self
    }

    /// Sets a header.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        self
    }

    /// Sets `Retry-After`, rounded up to whole seconds.
    pub fn with_retry_after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.with_header(RETRY_AFTER, seconds.into())
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn unavailable() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE)
            .with_detail("the server is shutting down or cannot do this now")
            .with_retry_after(UNAVAILABLE_RETRY_AFTER)
    }

    pub(super) fn no_such_operation() -> Self {
        Self::new(StatusCode::NOT_FOUND).with_detail("the operation does not exist")
    }
}

/// The message of an error that the request caused is part of the response. Its causes, and other errors, are logged.
impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let status = match error.kind() {
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::Conflict | ErrorKind::Unsupported => StatusCode::CONFLICT,
            ErrorKind::CredentialsNeeded => {
                let detail = format!("{}: resume with a 'destination'", error.message());
                return Self::new(StatusCode::CONFLICT).with_detail(detail);
            }
            ErrorKind::LimitReached => {
                let problem =
                    Self::new(StatusCode::TOO_MANY_REQUESTS).with_detail(error.message().to_owned());
                return error.retry_after().into_iter().fold(problem, Self::with_retry_after);
            }
            ErrorKind::Unavailable | ErrorKind::Throttled => {
                tracing::warn!(kind = error.kind().as_str(), error = %error.report(), "the response is 503");
                let wait = error.retry_after().unwrap_or(UNAVAILABLE_RETRY_AFTER);
                return Self::unavailable().with_retry_after(wait);
            }
            ErrorKind::Unauthorized | ErrorKind::Unreadable | ErrorKind::TooLarge | ErrorKind::Internal => {
                tracing::error!(kind = error.kind().as_str(), error = %error.report(), "the response is 500");
                return Self::new(StatusCode::INTERNAL_SERVER_ERROR)
                    .with_detail("the server failed; see its log");
            }
        };
        if std::error::Error::source(&error).is_some() {
            let status = status.as_u16();
            tracing::info!(status, kind = error.kind().as_str(), error = %error.report(), "a request was rejected");
        }
        let problem = Self::new(status).with_detail(error.message().to_owned());
        match error.pointer() {
            Some(pointer) => problem.with_pointer(pointer),
            None => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = ProblemDocument {
            r#type: "about:blank",
            title: title(self.status),
            status: self.status.as_u16(),
            detail: &self.detail,
            pointer: self.pointer.as_deref(),
        };
        let mut response = json(self.status, &document);
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        response
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("status", &self.status)
            .field("detail", &self.detail)
            .field("pointer", &self.pointer)
            .finish_non_exhaustive()
    }
}

fn title(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("Error")
}

/// A fallback that answers unknown paths in the form of this API's errors.
///
/// ```
/// use dicom_export::http;
///
/// let app: axum::Router = axum::Router::new().fallback(http::not_found);
/// ```
pub async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND).with_detail("not found")
}

pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED).with_detail("method not allowed; see 'Allow'")
}
