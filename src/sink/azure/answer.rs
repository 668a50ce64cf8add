//! [`Answer`]: what Azure said, and what that means.

use object_store::client::HttpError;
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::with_retry_after;

/// The longest error code that is repeated in a message; Azure's have up to 50 letters.
const LONGEST_CODE: usize = 64;

/// The head of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
}

impl Answer {
    pub(super) fn new(status: StatusCode, headers: HeaderMap) -> Self {
        Self { status, headers }
    }

    /// Azure's name for what went wrong; `""` when there is none, or it is not a name.
    pub(super) fn code(&self) -> &str {
        let code = self.header("x-ms-error-code").unwrap_or_default();
        let named = code.len() <= LONGEST_CODE && code.bytes().all(|b| b.is_ascii_alphanumeric());
        if named { code } else { "" }
    }

    pub(super) fn etag(&self) -> Option<&str> {
        self.header(ETAG.as_str())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn is_done(&self) -> bool {
        self.status.is_success()
    }

    pub(super) fn is_unauthorized(&self) -> bool {
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    /// The answer of a request that was carried out, or else the error.
    pub(super) fn into_done(self) -> Result<Self> {
        if self.is_done() { Ok(self) } else { Err(self.error()) }
    }

    /// What a refusal or failure means to the engine. Only the status and the code are repeated, never the URL:
    /// its query is a credential.
    pub(super) fn error(&self) -> Error {
        let code = self.code();
        let (kind, what) = match (self.status.as_u16(), code) {
            (401 | 403, _) => (ErrorKind::Unauthorized, "the destination refused the credential"),
            (404, "ContainerNotFound") => (ErrorKind::NotFound, "the container does not exist"),
            (404, _) => (ErrorKind::NotFound, "the destination does not have it"),
            (409 | 412, _) => (ErrorKind::Conflict, "the destination is in another state"),
            (429 | 503, _) => (ErrorKind::Throttled, "the destination is busy"),
            // It is as it was when it was sent, so it was damaged on the way.
            (400, "Crc64Mismatch" | "Md5Mismatch") => {
                (ErrorKind::Unavailable, "the destination got other bytes than it was sent")
            }
            // The blocks went with somebody else's commit of the same blob, or with our own whose answer was lost.
            (400, "InvalidBlockList") => (ErrorKind::Unavailable, "the destination lost uncommitted blocks"),
            (408 | 500 | 502 | 504, _) => (ErrorKind::Unavailable, "the destination failed"),
            (501 | 505, _) => (ErrorKind::Unsupported, "the destination cannot do this"),
            (300..=399, _) => {
                (ErrorKind::Unsupported, "the destination answered with a redirect, which is not followed")
            }
            (400..=499, _) => (ErrorKind::Invalid, "the destination refused the request"),
            _ => (ErrorKind::Unavailable, "the destination failed"),
        };
        let separator = if code.is_empty() { "" } else { " " };
        let message = format!("{what} ({}{separator}{code})", self.status.as_u16());
        with_retry_after(Error::new(kind, message), &self.headers)
    }
}

/// The error when there is no answer.
pub(super) fn unreachable(cause: HttpError) -> Error {
    // Its chain has no URL: object_store takes it out of reqwest's errors.
    Error::new(ErrorKind::Unavailable, "the destination cannot be reached").with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_code_that_is_not_a_name_is_not_repeated() {
        let headers =
            HeaderMap::from_iter([("x-ms-error-code".parse().unwrap(), "sig=a b".parse().unwrap())]);
        let error = Answer::new(StatusCode::FORBIDDEN, headers).error();
        assert_eq!(error.message(), "the destination refused the credential (403)");
    }
}
