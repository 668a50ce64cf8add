//! Reads request bodies: limits their size and time, and checks that they are JSON.

use std::error::Error as StdError;
use std::ops::Deref;
use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use axum::http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use axum::http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError};
use mime::Mime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::error::Result;
use crate::http::options::HttpOptions;
use crate::http::problem::Problem;
use crate::sync::blocking;

/// Longer bodies, in bytes, count against [`BodyMemory`] and are parsed on a blocking thread.
const MAX_SHORT_BODY: usize = 64 << 10;

/// The bytes of one permit of [`BodyMemory`].
const PERMIT_LEN: usize = 1 << 10;

/// A body, which counts against [`BodyMemory`] as long as it is held.
pub(super) struct ReceivedBody {
    bytes: Vec<u8>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Deref for ReceivedBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Bounds the memory of request bodies that are read at the same time.
pub(super) struct BodyMemory(Arc<Semaphore>);

impl BodyMemory {
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.div_ceil(PERMIT_LEN).min(Semaphore::MAX_PERMITS))))
    }

    /// Extends a permit to a body of this length. Short bodies need none.
    ///
    /// It does not wait: bodies that wait for each other would hold the memory until their clients time out.
    fn extend(&self, permit: &mut Option<OwnedSemaphorePermit>, length: usize) -> Result<(), Problem> {
        if length <= MAX_SHORT_BODY {
            return Ok(());
        }
        let held = permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let missing = u32::try_from(length.div_ceil(PERMIT_LEN).saturating_sub(held)).unwrap_or(u32::MAX);
        let more = Arc::clone(&self.0).try_acquire_many_owned(missing).map_err(|_| {
            Problem::unavailable().with_detail("the server is reading as many large bodies as it can hold")
        })?;
        match permit {
            Some(permit) => permit.merge(more),
            None => *permit = Some(more),
        }
        Ok(())
    }
}

/// Reads a body that may be absent or empty, and is JSON otherwise.
pub(super) async fn read_optional(
    parts: &Parts,
    body: Body,
    options: &HttpOptions,
    memory: &BodyMemory,
) -> Result<Option<ReceivedBody>, Problem> {
    // A body of unknown length may be empty, so its type is checked after it is read.
    if body.is_end_stream() {
        return Ok(None);
    }
    let body = receive(body, options, memory).await?;
    match body.is_empty() {
        true => Ok(None),
        false => require_json(parts).map(|()| Some(body)),
    }
}

/// Reads a JSON body.
pub(super) async fn read(
    parts: &Parts,
    body: Body,
    options: &HttpOptions,
    memory: &BodyMemory,
) -> Result<ReceivedBody, Problem> {
    require_json(parts)?;
    receive(body, options, memory).await
}

/// Parses a body without blocking other requests.
pub(super) async fn parse<T: Send + 'static>(
    body: ReceivedBody,
    parse: impl FnOnce(&[u8]) -> Result<T> + Send + 'static,
) -> Result<T, Problem> {
    match body.len() {
        0..=MAX_SHORT_BODY => Ok(parse(&body)?),
        _ => Ok(blocking(move || parse(&body)).await?),
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

async fn receive(body: Body, options: &HttpOptions, memory: &BodyMemory) -> Result<ReceivedBody, Problem> {
    // A declared length is refused before the body is sent: the client may be waiting for `100 Continue`.
    if body.size_hint().lower() > options.body_limit as u64 {
        return Err(too_large(options.body_limit));
    }
    match timeout(options.body_timeout, collect(body, options.body_limit, memory)).await {
        Ok(received) => received,
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT)
            .with_detail("the body was not received in time")
            .with_header(CONNECTION, HeaderValue::from_static("close"))),
    }
}

async fn collect(mut body: Body, limit: usize, memory: &BodyMemory) -> Result<ReceivedBody, Problem> {
    let (mut bytes, mut permit) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| match is_length_limit(&error) {
            true => too_large(limit),
            false => Problem::new(StatusCode::BAD_REQUEST).with_detail("the body is incomplete"),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        let length = bytes.len() + data.len();
        if length > limit {
            return Err(too_large(limit));
        }
        memory.extend(&mut permit, length)?;
        if bytes.len() <= MAX_SHORT_BODY && length > MAX_SHORT_BODY {
            // Exactly the declared length, if there is one, so that the buffer does not grow beyond it.
            let rest = usize::try_from(body.size_hint().lower()).unwrap_or(0);
            bytes.reserve_exact(data.len() + rest.min(limit - length));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(ReceivedBody { bytes, _permit: permit })
}

fn too_large(limit: usize) -> Problem {
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE)
        .with_detail(format!("the body is longer than {limit} bytes"))
        .with_header(CONNECTION, HeaderValue::from_static("close"))
}

/// Whether the error is a length limit: this router's or one that the server has set around it.
fn is_length_limit(error: &(dyn StdError + 'static)) -> bool {
    std::iter::successors(Some(error), |error| (**error).source()).any(|error| error.is::<LengthLimitError>())
}
