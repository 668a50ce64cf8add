//! [`Response`]: the status and headers of a response, and the errors they stand for.

use bytes::Bytes;
use object_store::client::HttpError;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap};

use crate::error::{Error, ErrorKind, Result};
use crate::limits::with_retry_after;

/// The longest error code that is repeated in a message. Those of Azure have up to 50 letters.
const MAX_CODE_LENGTH: usize = 64;

/// The error code if a policy of the container does not allow changing or replacing a blob.
pub(super) const IMMUTABLE: &str = "BlobImmutableDueToPolicy";

/// A response, with the part of its body that was asked for.
#[derive(Debug)]
pub(super) struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Response {
    pub(super) fn new(status: StatusCode, headers: HeaderMap, body: Bytes) -> Self {
        Self { status, headers, body }
    }

    /// Whether the service responded with this status and error code.
    pub(super) fn is(&self, status: u16, code: &str) -> bool {
        self.status.as_u16() == status && self.has_error(code)
    }

    /// Whether the service responded with this error code and any status of an error.
    pub(super) fn has_error(&self, code: &str) -> bool {
        (self.status.is_client_error() || self.status.is_server_error())
            && self.code() == code
            && !self.is_web_page()
    }

    /// Azure's error code; `""` if there is none, or if it is not a name.
    fn code(&self) -> &str {
        let code = self.header("x-ms-error-code").unwrap_or_default();
        let is_name = code.len() <= MAX_CODE_LENGTH && code.bytes().all(|b| b.is_ascii_alphanumeric());
        if is_name { code } else { "" }
    }

    /// The id under which Azure's support finds the request, if it is a UUID.
    fn request_id(&self) -> Option<&str> {
        let id = self.header("x-ms-request-id")?;
        let is_uuid = id.len() == 36 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        is_uuid.then_some(id)
    }

    /// The requested part of a blob and the length of the blob.
    pub(super) fn content(&self) -> Option<(&Bytes, u64)> {
        let length = self.header(CONTENT_RANGE.as_str())?.rsplit('/').next()?.parse().ok()?;
        (self.status == StatusCode::PARTIAL_CONTENT && !self.is_web_page()).then_some((&self.body, length))
    }

    pub(super) fn etag(&self) -> Option<&str> {
        self.header(ETAG.as_str())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the request was carried out. "Created" is the documented status of every write ("Put
    /// Blob", "Put Block", "Put Block From URL", "Put Block List", "Append Block", Azure Blob Storage REST API). Other
    /// success statuses come from something in front of the service.
    pub(super) fn is_success(&self) -> bool {
        self.status == StatusCode::CREATED && !self.is_web_page()
    }

    /// Whether something in front of the service responded, for example a gateway: the service responds with XML.
    fn is_web_page(&self) -> bool {
        let content_type = self.header(CONTENT_TYPE.as_str()).unwrap_or_default();
        content_type.get(..9).is_some_and(|start| start.eq_ignore_ascii_case("text/html"))
    }

    pub(super) fn has_status(&self, status: u16) -> bool {
        self.status.as_u16() == status
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
            (429 | 503, _) => (ErrorKind::Throttled, "the destination is busy"),
            _ if self.is_web_page() => {
                (ErrorKind::Unavailable, "a gateway responded with a web page in place of the destination")
            }
            (401 | 403, _) => (ErrorKind::Unauthorized, "the destination refused the credential"),
            (404, "ContainerNotFound") => (ErrorKind::NotFound, "the container does not exist"),
            (404, _) => (ErrorKind::NotFound, "the destination does not exist"),
            (409, IMMUTABLE) => {
                (ErrorKind::Conflict, "the immutability policy of the container does not allow the request")
            }
            (409 | 412, _) => {
                (ErrorKind::Conflict, "the state of the destination does not allow the request")
            }
            // The body was damaged on the way, since its checksum was computed when it was sent.
            (400, "Crc64Mismatch" | "Md5Mismatch") => {
                (ErrorKind::Unavailable, "checksum mismatch: the request was damaged on the way")
            }
            // A concurrent commit of the same blob discarded the blocks, or our own whose response was lost.
            (400, "InvalidBlockList") => (ErrorKind::Unavailable, "the destination lost uncommitted blocks"),
            (407, _) => {
                (ErrorKind::Unavailable, "a proxy in front of the destination requires authentication")
            }
            (501 | 505, _) => (ErrorKind::Unsupported, "the destination does not support the request"),
            (300..=399, _) => (
                ErrorKind::Unavailable,
                "the destination responded with a redirect, and redirects are not followed",
            ),
            (408 | 500.., _) => (ErrorKind::Unavailable, "the destination failed"),
            (400..=499, _) => (ErrorKind::Invalid, "the destination refused the request"),
            _ => (ErrorKind::Unavailable, "the destination responded with an unexpected status"),
        };
        let separator = if code.is_empty() { "" } else { " " };
        let message = format!("{message} ({}{separator}{code})", self.status.as_u16());
        let error = with_retry_after(Error::new(kind, message), &self.headers);
        match self.request_id() {
            Some(id) => error.with_source(FailedRequest { id: id.to_owned() }),
            None => error,
        }
    }
}

/// The request that failed, for the log.
#[derive(Debug, thiserror::Error)]
#[error("x-ms-request-id {id}")]
struct FailedRequest {
    id: String,
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
        let error = Response::new(StatusCode::FORBIDDEN, headers, Bytes::new()).error();
        assert_eq!(error.message(), "the destination refused the credential (403)");
    }

    #[test]
    fn report_contains_status_error_code_and_request_id() {
        let id = "1f2a6c1e-a01e-0079-0c54-2b4f3c000000";
        let error_with = |id: &str| {
            let headers = [("x-ms-error-code", "AuthorizationFailure"), ("x-ms-request-id", id)];
            let headers = headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            Response::new(StatusCode::FORBIDDEN, HeaderMap::from_iter(headers), Bytes::new()).error()
        };
        assert_eq!(
            error_with(id).report().to_string(),
            format!(
                "the destination refused the credential (403 AuthorizationFailure): x-ms-request-id {id}"
            )
        );
        let quoting = error_with("sig=a b");
        assert_eq!(
            quoting.report().to_string(),
            "the destination refused the credential (403 AuthorizationFailure)"
        );
    }
}
