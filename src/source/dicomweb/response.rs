//! [`Response`]: a successful response, and [`status_error`]: the error for any other.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use reqwest::header::{AsHeaderName, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use reqwest::{StatusCode, Version};

use super::media_type::MediaType;
use super::request_limiter::RequestPermit;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::with_retry_after;

/// A response with a 2xx status whose body has not been read. It holds its request's permit.
pub(super) struct Response {
    inner: reqwest::Response,
    _permit: RequestPermit,
    timeout: Duration,
}

impl Response {
    pub(super) fn new(inner: reqwest::Response, permit: RequestPermit, timeout: Duration) -> Self {
        Self { inner, _permit: permit, timeout }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.inner.status()
    }

    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    pub(super) fn media_type(&self) -> MediaType {
        MediaType::parse(self.header(CONTENT_TYPE).unwrap_or_default())
    }

    /// The length of the body in bytes, if the server states it.
    pub(super) fn content_length(&self) -> Option<u64> {
        self.inner.content_length()
    }

    /// Whether a truncated body can be told from a complete one. An HTTP/1 body that has neither a length nor chunks
    /// ends when the connection does (RFC 9112 6.3).
    pub(super) fn detects_truncation(&self) -> bool {
        self.inner.version() >= Version::HTTP_2
            || self.content_length().is_some()
            || self.header(TRANSFER_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    /// # Errors
    /// [`ErrorKind::Unreadable`] if the body is compressed, which the request excludes.
    pub(super) fn check_encoding(&self) -> Result<()> {
        match self.header(CONTENT_ENCODING) {
            Some(coding) if !coding.eq_ignore_ascii_case("identity") => Err(Error::new(
                ErrorKind::Unreadable,
                "the server compressed its response although the request excludes it",
            )),
            _ => Ok(()),
        }
    }

    /// The body. It ends after the first error.
    pub(super) fn into_body(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(self, |mut response| async move {
            // The timeout applies to each read, because the consumer may be slow.
            let Ok(chunk) = tokio::time::timeout(response.timeout, response.inner.chunk()).await else {
                return Err(Error::new(ErrorKind::Unavailable, "the server stopped sending its response"));
            };
            let interrupted = |cause: reqwest::Error| {
                Error::new(ErrorKind::Unavailable, "the server's response was interrupted")
                    .with_source(cause.without_url())
            };
            Ok(chunk.map_err(interrupted)?.map(|chunk| (chunk, response)))
        })
        .boxed()
    }
}

/// The error for a status other than 2xx.
pub(super) fn status_error(status: StatusCode, headers: &HeaderMap) -> Error {
    let (kind, message) = match status.as_u16() {
        401 | 403 | 407 => (ErrorKind::Unauthorized, "the server rejected the credentials"),
        404 | 410 => (ErrorKind::NotFound, "not found on the server"),
        406 | 415 => (ErrorKind::Unreadable, "the server cannot return it in its stored form"),
        429 | 503 => (ErrorKind::Throttled, "the server is busy"),
        408 => (ErrorKind::Unavailable, "the server timed out"),
        // The archive's storage is locked, cannot be reached or is not ready: not a failure of the instance.
        423..=425 => (ErrorKind::Unavailable, "the server cannot reach its storage"),
        501 | 505 => (ErrorKind::Unsupported, "the server does not support the request"),
        // A login page or a proxy that is set up wrongly concerns every request.
        300..=399 => (ErrorKind::Unavailable, "the server returned a redirect without a usable target"),
        400..=499 => (ErrorKind::Invalid, "the server rejected the request"),
        _ => (ErrorKind::Unavailable, "the server failed"),
    };
    with_retry_after(Error::new(kind, format!("{message} ({})", status.as_u16())), headers)
}
