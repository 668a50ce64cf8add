//! Reading a request's body: so long, so large, and JSON.

use std::error::Error as StdError;

use axum::body::{Body, Bytes, HttpBody, to_bytes};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use http_body_util::LengthLimitError;
use tokio::time::timeout;

use crate::error::Result;
use crate::http::options::HttpOptions;
use crate::http::problem::Problem;
use crate::model::ExportDestination;
use crate::model::json::Json;

/// From this length on, parsing is a blocking thread's work.
const LONG: usize = 64 << 10;

/// Reads a body that is not needed: `None` when there is none.
pub(super) async fn read_optional(
    parts: &Parts,
    body: Body,
    options: &HttpOptions,
) -> Result<Option<Bytes>, Problem> {
    // A body that has not come cannot be told from an empty one until it is read.
    if body.is_end_stream() {
        return Ok(None);
    }
    let bytes = receive(body, options).await?;
    match bytes.is_empty() {
        true => Ok(None),
        false => is_json(parts).map(|()| Some(bytes)),
    }
}

/// Reads a body that has to be JSON.
pub(super) async fn read(parts: &Parts, body: Body, options: &HttpOptions) -> Result<Bytes, Problem> {
    is_json(parts)?;
    receive(body, options).await
}

/// Parses bytes without holding up other requests.
pub(super) async fn parse<T: Send + 'static>(
    bytes: Bytes,
    parse: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
) -> Result<T, Problem> {
    if bytes.len() < LONG {
        return Ok(parse(&bytes)?);
    }
    match tokio::task::spawn_blocking(move || parse(&bytes)).await {
        Ok(parsed) => Ok(parsed?),
        Err(_) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR)),
    }
}

/// The body of a resumption: `{ "destination": … }`, read as leniently and as strictly as that of an export.
pub(super) fn resumption(text: &[u8]) -> Result<Option<ExportDestination>> {
    let mut body = Json::parse(text)?.into_object("")?;
    let destination = body.take("destination");
    body.finish()?;
    destination.map(|destination| ExportDestination::read(destination, "/destination")).transpose()
}

/// A body without a type is refused as one of another type is: a web page can send both across origins without being
/// asked first.
fn is_json(parts: &Parts) -> Result<(), Problem> {
    let stated = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = stated.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let json = match essence.split_once('/') {
        Some(("application", subtype)) => subtype == "json" || subtype.ends_with("+json"),
        _ => false,
    };
    match json {
        true => Ok(()),
        false => Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE)
            .with_detail("the body's 'Content-Type' must be application/json")),
    }
}

async fn receive(body: Body, options: &HttpOptions) -> Result<Bytes, Problem> {
    let limit = options.body_limit;
    let too_large = || {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE)
            .with_detail(format!("a body has at most {limit} bytes"))
            .with_header(CONNECTION, HeaderValue::from_static("close"))
    };
    // A stated length is refused before it is sent: the client may be waiting for a 100.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    match timeout(options.body_timeout, to_bytes(body, limit)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(StatusCode::BAD_REQUEST).with_detail("the body did not come whole")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT)
            .with_detail("the body did not come in time")
            .with_header(CONNECTION, HeaderValue::from_static("close"))),
    }
}

/// Whether this limit, or one of the server's own around it, was met.
fn is_limit(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (**error).source()).any(|error| error.is::<LengthLimitError>())
}
