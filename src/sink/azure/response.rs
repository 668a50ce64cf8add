//! [`Response`]: the status and headers of a response, and the errors they stand for.

use object_store::client::HttpError;
use reqwest::StatusCode;
use reqwest::header::{ETAG, HeaderMap};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::with_retry_after;

/// The longest error code that is repeated in a message. Those of Azure have up to 50 letters.
const MAX_CODE_LENGTH: usize = 64;

/// The head of a response.
#[derive(Debug)]
pub(super) struct Response {
    status: StatusCode,
    headers: HeaderMap,
}

impl Response {
    pub(super) fn new(status: StatusCode, headers: HeaderMap) -> Self {
        Self { status, headers }
    }

    /// Azure's error code; `""` if there is none, or if it is not a name.
    pub(super) fn code(&self) -> &str {
        let code = self.header("x-ms-error-code").unwrap_or_default();
        let is_name = code.len() <= MAX_CODE_LENGTH && code.bytes().all(|b| b.is_ascii_alphanumeric());
        if is_name { code } else { "" }
    }

    pub(super) fn etag(&self) -> Option<&str> {
        self.header(ETAG.as_str())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    pub(super) fn is_success(&self) -> bool {
        self.status.is_success()
    }

    pub(super) fn is_unauthorized(&self) -> bool {
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    /// Returns the response if the request was carried out.
    ///
    /// # Errors
    /// That of [`error`](Self::error).
    pub(super) fn error_for_status(self) -> Result<Self> {
        if self.is_success() { Ok(self) } else { Err(self.error()) }
    }

    /// The error that the status and the error code stand for. The message contains nothing else: the URL has the
    /// credential in its query.
    pub(super) fn error(&self) -> Error {
        let code = self.code();
        let (kind, message) = match (self.status.as_u16(), code) {
            (401 | 403, _) => (ErrorKind::Unauthorized, "the destination refused the credential"),
            (404, "ContainerNotFound") => (ErrorKind::NotFound, "the container does not exist"),
            (404, _) => (ErrorKind::NotFound, "the destination does not exist"),
            (409 | 412, _) => {
                (ErrorKind::Conflict, "the state of the destination does not allow the request")
            }
            (429 | 503, _) => (ErrorKind::Throttled, "the destination is busy"),
            // The body was damaged on the way, since its checksum was computed when it was sent.
            (400, "Crc64Mismatch" | "Md5Mismatch") => {
                (ErrorKind::Unavailable, "checksum mismatch: the request was damaged on the way")
            }
            // A concurrent commit of the same blob discarded the blocks, or our own whose response was lost.
            (400, "InvalidBlockList") => (ErrorKind::Unavailable, "the destination lost uncommitted blocks"),
            (408 | 500 | 502 | 504, _) => (ErrorKind::Unavailable, "the destination failed"),
            (501 | 505, _) => (ErrorKind::Unsupported, "the destination does not support the request"),
            (300..=399, _) => (
                ErrorKind::Unsupported,
                "the destination responded with a redirect, and redirects are not followed",
            ),
            (400..=499, _) => (ErrorKind::Invalid, "the destination refused the request"),
            _ => (ErrorKind::Unavailable, "the destination failed"),
        };
        let separator = if code.is_empty() { "" } else { " " };
        let message = format!("{message} ({}{separator}{code})", self.status.as_u16());
        with_retry_after(Error::new(kind, message), &self.headers)
    }
}

/// The error for a request without a response.
pub(super) fn unreachable(cause: HttpError) -> Error {
    // The cause contains no URL: object_store removes it from reqwest's errors.
    Error::new(ErrorKind::Unavailable, "the destination cannot be reached").with_source(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_code_that_is_not_a_name_is_not_repeated() {
        let headers =
            HeaderMap::from_iter([("x-ms-error-code".parse().unwrap(), "sig=a b".parse().unwrap())]);
        let error = Response::new(StatusCode::FORBIDDEN, headers).error();
        assert_eq!(error.message(), "the destination refused the credential (403)");
    }
}
