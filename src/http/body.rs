//! Reads request bodies: limits their size and time, and checks that they are JSON.

use std::error::Error as StdError;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use http_body_util::LengthLimitError;
use mime::Mime;
use tokio::time::timeout;

use crate::error::Result;
use crate::http::options::HttpOptions;
use crate::http::problem::Problem;
use crate::sync::blocking;

/// Longer bodies, in bytes, are parsed on a blocking thread.
const MAX_INLINE_PARSE: usize = 64 << 10;

/// Reads a body that may be absent or empty, and is JSON otherwise.
pub(super) async fn read_optional(
    parts: &Parts,
    body: Body,
    options: &HttpOptions,
) -> Result<Option<Bytes>, Problem> {
    // A body of unknown length may be empty, so its type is checked after it is read.
    if body.is_end_stream() {
        return Ok(None);
    }
    let bytes = receive(body, options).await?;
    match bytes.is_empty() {
        true => Ok(None),
        false => require_json(parts).map(|()| Some(bytes)),
    }
}

/// Reads a JSON body.
pub(super) async fn read(parts: &Parts, body: Body, options: &HttpOptions) -> Result<Bytes, Problem> {
    require_json(parts)?;
    receive(body, options).await
}

/// Parses a body without blocking other requests.
pub(super) async fn parse<T: Send + 'static>(
    bytes: Bytes,
    parse: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
) -> Result<T, Problem> {
    match bytes.len() {
        0..=MAX_INLINE_PARSE => Ok(parse(&bytes)?),
        _ => Ok(blocking(move || parse(&bytes)).await?),
    }
}

/// Refuses a body that is not declared as JSON. A missing `Content-Type` is refused too: a web page can send a request
/// without one to another origin, and the browser does not ask the server first.
fn require_json(parts: &Parts) -> Result<(), Problem> {
    let declared = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = declared.and_then(|text| text.parse::<Mime>().ok()).is_some_and(|media_type| {
        media_type.type_() == mime::APPLICATION
            && (media_type.subtype() == mime::JSON || media_type.suffix() == Some(mime::JSON))
    });
    match is_json {
        true => Ok(()),
        false => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .with_detail("the 'Content-Type' of the body must be application/json")),
    }
}

async fn receive(body: Body, options: &HttpOptions) -> Result<Bytes, Problem> {
    let limit = options.body_limit;
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE)
            .with_detail(format!("the body is longer than {limit} bytes"))
            .with_header(CONNECTION, HeaderValue::from_static("close"))
    };
    // A declared length is refused before the body is sent: the client may be waiting for `100 Continue`.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match timeout(options.body_timeout, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST).with_detail("the body is incomplete")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT)
            .with_detail("the body was not received in time")
            .with_header(CONNECTION, HeaderValue::from_static("close"))),
    }
}

/// Whether the error is a length limit: this router's or one that the server has set around it.
fn is_length_limit(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (**error).source()).any(|error| error.is::<LengthLimitError>())
}
