//! [`Answer`]: what the server said, and what a refusal means.

use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use reqwest::header::{AsHeaderName, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};
use reqwest::{Response, StatusCode, Version};

use super::lane::Place;
use super::media_type::MediaType;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::with_retry_after;

/// An answer with a 2xx status; its body is still to come, and its place among the requests is kept until then.
pub(super) struct Answer {
    response: Response,
    _place: Place,
    patience: Duration,
}

impl Answer {
    pub(super) fn new(response: Response, place: Place, patience: Duration) -> Self {
        Self { response, _place: place, patience }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    pub(super) fn media_type(&self) -> MediaType {
        MediaType::parse(self.header(CONTENT_TYPE).unwrap_or_default())
    }

    /// The bytes that the body must have, if it is stated.
    pub(super) fn length(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// Whether a body that breaks off can be told from one that ends. In HTTP/1 one that has neither a length nor
    /// chunks ends with its connection (RFC 9112 6.3).
    pub(super) fn shows_its_end(&self) -> bool {
        self.response.version() >= Version::HTTP_2
            || self.length().is_some()
            || self.header(TRANSFER_ENCODING).is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"))
    }

    /// # Errors
    /// [`ErrorKind::Unreadable`] when the body is compressed, which was not asked for.
    pub(super) fn check_encoding(&self) -> Result<()> {
        match self.header(CONTENT_ENCODING) {
            Some(coding) if !coding.eq_ignore_ascii_case("identity") => {
                Err(Error::new(ErrorKind::Unreadable, "the server encoded its answer though not asked to"))
            }
            _ => Ok(()),
        }
    }

    /// The body. An error ends it.
    pub(super) fn into_body(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(self, |mut answer| async move {
            // Each read is timed for itself: whoever takes the bytes may be slow.
            let chunk = match tokio::time::timeout(answer.patience, answer.response.chunk()).await {
                Ok(chunk) => chunk,
                Err(_) => return Err(Error::new(ErrorKind::Unavailable, "the server stopped sending")),
            };
            let broken = |cause: reqwest::Error| {
                Error::new(ErrorKind::Unavailable, "the server's answer broke off")
                    .with_source(cause.without_url())
            };
            Ok(chunk.map_err(broken)?.map(|chunk| (chunk, answer)))
        })
        .boxed()
    }
}

/// What a status that is no success means to the engine.
pub(super) fn refusal(status: StatusCode, headers: &HeaderMap) -> Error {
    let (kind, what) = match status.as_u16() {
        401 | 403 | 407 => (ErrorKind::Unauthorized, "the server refused the credential"),
        404 | 410 => (ErrorKind::NotFound, "the server does not have it"),
        406 | 415 => (ErrorKind::Unreadable, "the server cannot give it in its stored form"),
        429 | 503 => (ErrorKind::Throttled, "the server is busy"),
        408 | 425 => (ErrorKind::Unavailable, "the server gave up waiting"),
        501 | 505 => (ErrorKind::Unsupported, "the server cannot do this"),
        300..=399 => (ErrorKind::Unsupported, "the server answered with a redirect that leads nowhere"),
        400..=499 => (ErrorKind::Invalid, "the server refused the request"),
        _ => (ErrorKind::Unavailable, "the server failed"),
    };
    with_retry_after(Error::new(kind, format!("{what} ({})", status.as_u16())), headers)
}
