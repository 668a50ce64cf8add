//! Errors of the `object_store` crate: their [`ErrorKind`], and the part of them that can be shown.

use std::error::Error as StdError;
use std::io;
use std::iter;

use ::object_store::Error as StoreError;
use ::object_store::retry::RetryFailure;

use crate::error::{Error, ErrorKind};

/// How `object_store` begins the text of its (private) error for a response with an error status. The status follows, then
/// a colon and the body.
const STATUS_PREFIX: &str = "Server returned non-2xx status code: ";

/// How it begins the text of its error for a response with status 200 whose body is an error. The body follows.
const BODY_PREFIX: &str = "Server returned error response: ";

/// How it begins the text of its error for an object that S3 does not delete, in a response to a request for several objects.
/// The key and the message follow, then `(code: `, the code, and `)`.
const DELETE_PREFIX: &str = "DeleteObjects request failed for key ";

/// The text of its error for a redirect to nowhere.
const REDIRECT: &str = "Received redirect without LOCATION";

/// Codes by which stores ask for fewer requests: S3, Azure and Google.
pub(crate) const THROTTLING_CODES: [&str; 6] = [
    "SlowDown",
    "ServerBusy",
    "TooManyRequests",
    "RequestLimitExceeded",
    "rateLimitExceeded",
    "RESOURCE_EXHAUSTED",
];

/// Codes of responses with status 400 whose cause is the credential: S3.
pub(crate) const CREDENTIAL_CODES: [&str; 5] = [
    "ExpiredToken",
    "InvalidToken",
    "TokenRefreshRequired",
    "InvalidAccessKeyId",
    "AuthorizationHeaderMalformed",
];

/// The error that a client of this crate returned in place of a response.
fn own_error(error: &StoreError) -> Option<&Error> {
    chain(error).find_map(|cause| cause.downcast_ref())
}

/// Converts an error of a store, without its text. `message` is the message for a kind, unless a client of this crate returned
/// a better one.
pub(crate) fn sanitized(cause: &StoreError, message: impl FnOnce(ErrorKind) -> &'static str) -> Error {
    let source = SanitizedError::of(cause);
    let Some(own) = own_error(cause) else {
        let kind = error_kind(cause);
        return Error::new(kind, message(kind)).with_source(source);
    };
    let error = Error::new(own.kind(), own.message().to_owned()).with_source(source);
    match own.retry_after() {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

/// The longest error code or request id that is shown. Those of S3 have up to 50 letters.
const MAX_NAME_LENGTH: usize = 64;

/// What a store's error means.
///
/// Several calls, such as listing, return the same variant for every status, so the status takes precedence.
pub(crate) fn error_kind(error: &StoreError) -> ErrorKind {
    if let Some(own) = own_error(error) {
        return own.kind();
    }
    if let Some(response) = Response::of(error)
        && let Some(kind) = response.kind()
    {
        return kind;
    }
    match error {
        StoreError::NotFound { .. } => ErrorKind::NotFound,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => ErrorKind::Unauthorized,
        StoreError::AlreadyExists { .. }
        | StoreError::Precondition { .. }
        | StoreError::NotModified { .. } => ErrorKind::Conflict,
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => ErrorKind::Unsupported,
        StoreError::InvalidPath { .. } | StoreError::UnknownConfigurationKey { .. } => ErrorKind::Invalid,
        StoreError::JoinError { .. } => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    }
}

/// What a failure means that a store reports to its retry policy.
pub(crate) fn failure_kind(failure: RetryFailure) -> ErrorKind {
    match failure {
        RetryFailure::Status(status) => {
            let response = Response { status: status.as_u16(), body: String::new() };
            response.kind().unwrap_or(ErrorKind::Conflict)
        }
        _ => ErrorKind::Unavailable,
    }
}

/// The response that caused an error, as far as `object_store` reports it: only in its texts.
struct Response {
    status: u16,
    body: String,
}

impl Response {
    fn of(error: &StoreError) -> Option<Self> {
        chain(error).find_map(|cause| {
            let text = cause.to_string();
            if let Some(rest) = text.strip_prefix(STATUS_PREFIX) {
                let status = rest.get(..3)?.parse().ok()?;
                return Some(Self { status, body: rest.to_owned() });
            }
            if let Some(body) = text.strip_prefix(BODY_PREFIX) {
                return Some(Self { status: 200, body: body.to_owned() });
            }
            if text.starts_with(DELETE_PREFIX) {
                let (_, code) = text.rsplit_once("(code: ")?;
                let status = if code.starts_with("AccessDenied") { 403 } else { 200 };
                return Some(Self { status, body: code.to_owned() });
            }
            text.starts_with(REDIRECT).then(|| Self { status: 307, body: String::new() })
        })
    }

    fn has_code(&self, codes: &[&str]) -> bool {
        codes.iter().any(|code| self.body.contains(code))
    }

    /// `None` for statuses that the variants of [`StoreError`] tell apart better.
    fn kind(&self) -> Option<ErrorKind> {
        Some(match self.status {
            304 | 412 => return None,
            429 => ErrorKind::Throttled,
            200 | 500..=599 if self.has_code(&THROTTLING_CODES) => ErrorKind::Throttled,
            200 | 408 | 500..=599 => ErrorKind::Unavailable,
            // S3's code for a body that arrived too slowly.
            400 if self.has_code(&["RequestTimeout"]) => ErrorKind::Unavailable,
            400 if self.has_code(&CREDENTIAL_CODES) => ErrorKind::Unauthorized,
            401 | 403 => ErrorKind::Unauthorized,
            404 => ErrorKind::NotFound,
            409 => ErrorKind::Conflict,
            _ => ErrorKind::Invalid,
        })
    }

    /// The status, and the error code and the request id in the XML of S3.
    fn summary(&self) -> String {
        let mut summary = format!(", status {}", self.status);
        for (name, label) in [("Code", "code"), ("RequestId", "request id")] {
            if let Some(value) = self.element(name) {
                summary.push_str(&format!(", {label} {value}"));
            }
        }
        summary
    }

    /// The text of an XML element, if it is a name or an id.
    fn element(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.body.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once('<')?;
        let is_name = (1..=MAX_NAME_LENGTH).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_name.then_some(text)
    }
}

fn chain(error: &StoreError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    iter::successors(Some(error as &(dyn StdError + 'static)), |error| (*error).source())
}

/// The part of a store's error that can be shown: its variant, the status of the response and the system's error. The
/// texts of the error and its causes contain keys, URLs and bodies.
#[derive(Debug, thiserror::Error)]
#[error("the store's error is {variant}{}", response.as_deref().unwrap_or_default())]
pub(crate) struct SanitizedError {
    variant: &'static str,
    /// The status, the error code and the request id of the response.
    response: Option<String>,
    #[source]
    system: Option<io::Error>,
}

impl SanitizedError {
    pub(crate) fn of(error: &StoreError) -> Self {
        let variant = match error {
            StoreError::NotFound { .. } => "NotFound",
            StoreError::InvalidPath { .. } => "InvalidPath",
            StoreError::JoinError { .. } => "JoinError",
            StoreError::NotSupported { .. } => "NotSupported",
            StoreError::AlreadyExists { .. } => "AlreadyExists",
            StoreError::Precondition { .. } => "Precondition",
            StoreError::NotModified { .. } => "NotModified",
            StoreError::NotImplemented { .. } => "NotImplemented",
            StoreError::PermissionDenied { .. } => "PermissionDenied",
            StoreError::Unauthenticated { .. } => "Unauthenticated",
            StoreError::UnknownConfigurationKey { .. } => "UnknownConfigurationKey",
            _ => "Generic",
        };
        let system = chain(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).last();
        let system = system.map(|error| match error.raw_os_error() {
            Some(number) => io::Error::from_raw_os_error(number),
            None => error.kind().into(),
        });
        Self { variant, response: Response::of(error).map(|response| response.summary()), system }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(body: &str) -> String {
        let source = format!("{STATUS_PREFIX}403 Forbidden: {body}");
        SanitizedError::of(&StoreError::Generic { store: "S3", source: source.into() }).to_string()
    }

    #[test]
    fn error_code_and_request_id_are_shown_and_nothing_else() {
        let body = "<Error><Code>SignatureDoesNotMatch</Code><Message>hidden</Message><RequestId>4442587FB7D0A2F9\
                    </RequestId></Error>";
        assert_eq!(
            shown(body),
            "the store's error is Generic, status 403, code SignatureDoesNotMatch, request id 4442587FB7D0A2F9"
        );
        assert_eq!(shown("<Code>sig=hidden</Code>"), "the store's error is Generic, status 403");
        assert_eq!(shown(""), "the store's error is Generic, status 403");
    }
}
