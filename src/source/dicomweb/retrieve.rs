//! [`retrieve`] and [`retrieve_all`]: the stored bytes of instances by WADO-RS (PS3.18 10.4).

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};

use super::body_reader::PartHeaders;
use super::client::{Client, RequestKind};
use super::media_type::MediaType;
use super::multipart::Part;
use super::queries::Queries;
use super::query::{Query, Resource};
use super::response::Response;
use super::study_listing::StudyScope;
use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::model::InstanceIdentifier;

/// `*` is the stored transfer syntax: the server does not transcode (PS3.18 8.7.3.5.2).
const ACCEPT_MULTIPART: &str = r#"multipart/related; type="application/dicom"; transfer-syntax=*"#;

/// For servers that return single parts only.
const ACCEPT_SINGLE_PART: &str = "application/dicom; transfer-syntax=*";

const DICOM: &str = "application/dicom";

/// Retrieves an instance. The body is streamed.
///
/// # Errors
/// As documented for `open` in [`DicomWebSource`](crate::DicomWebSource).
pub(super) async fn retrieve(queries: &Queries, identifier: &InstanceIdentifier) -> Result<Content> {
    let path = format!(
        "studies/{}/series/{}/instances/{}",
        identifier.study_instance_uid(),
        identifier.series_instance_uid(),
        identifier.sop_instance_uid(),
    );
    let result = match request(&queries.client, &path).await {
        Ok(response) => content(response).await,
        Err(error) => Err(error),
    };
    match result {
        // A gateway whose server is down, or a login page, gives the same response for every instance.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unreadable) => {
            Err(classify_failure(queries, error).await)
        }
        result => result,
    }
}

/// Requests a multipart response, or a single part if that is all the server returns, which the client remembers.
async fn request(client: &Client, path: &str) -> Result<Response> {
    let get = |accept| client.get(RequestKind::Retrieve, path, None, accept);
    if client.returns_single_parts() {
        return get(ACCEPT_SINGLE_PART).await;
    }
    let error = match get(ACCEPT_MULTIPART).await {
        Err(error) if matches!(error.kind(), ErrorKind::Unreadable | ErrorKind::Invalid) => error,
        result => return result,
    };
    // 400, 406 and 415 may be about the media type.
    match get(ACCEPT_SINGLE_PART).await {
        Ok(response) => {
            client.set_returns_single_parts();
            Ok(response)
        }
        Err(_) => Err(error),
    }
}

/// Returns the error if the server answers queries, and otherwise an error of the server as a whole.
async fn classify_failure(queries: &Queries, error: Error) -> Error {
    match queries.page(&Query::all(Resource::Studies), 0, 1).await {
        Ok(_) => error,
        Err(cause) if cause.kind().is_transient() || cause.kind() == ErrorKind::Unauthorized => cause,
        Err(cause) => {
            let message = "the server answers neither queries nor retrievals";
            Error::new(ErrorKind::Unavailable, message).with_source(cause)
        }
    }
}

async fn content(response: Response) -> Result<Content> {
    check_status(&response)?;
    if response.media_type().is(DICOM) {
        // Some servers omit the multipart wrapper around a single part.
        response.check_encoding()?;
        if !response.detects_truncation() {
            return Err(unreadable("the length of the server's response is unknown"));
        }
        let length = response.content_length();
        return Ok(Content::from_stream(length, check_length(response.into_body(), length)));
    }
    let (_, headers, part) = open_parts(response).await?;
    Ok(Content::from_stream(headers.length, check_length(part.into_stream(), headers.length)))
}

fn check_status(response: &Response) -> Result<()> {
    match response.status().as_u16() {
        200 => Ok(()),
        204 => Err(Error::new(ErrorKind::NotFound, "the server returned no content for the instance")),
        // 206: partial content (PS3.18 10.4.3).
        status => Err(unreadable(format!("the server did not return the whole instance ({status})"))),
    }
}

/// Opens the first part of a multipart response with instances.
async fn open_parts(response: Response) -> Result<(MediaType, PartHeaders, Part)> {
    response.check_encoding()?;
    let media_type = response.media_type();
    if !media_type.is("multipart/related") {
        return Err(unreadable("the server's response is not DICOM"));
    }
    let boundary = media_type.parameter("boundary").unwrap_or_default();
    let (headers, part) = Part::open(response.into_body(), boundary).await?;
    check_part(&media_type, &headers)?;
    Ok((media_type, headers, part))
}

fn check_part(media_type: &MediaType, headers: &PartHeaders) -> Result<()> {
    // A part without a content type has the type that the multipart header states (RFC 2387 3.1).
    let part_type = headers.content_type.as_deref().or(media_type.parameter("type")).unwrap_or_default();
    if !MediaType::parse(part_type).is(DICOM) {
        return Err(unreadable("the server's response is not DICOM"));
    }
    match headers.transfer_encoding.as_deref() {
        None | Some("binary" | "8bit" | "7bit") => Ok(()),
        Some(_) => Err(unreadable("the server encoded its response although the request excludes it")),
    }
}

/// The instances of a study or series, in the order in which the server returns them, each read into memory.
pub(super) struct InstanceParts {
    media_type: MediaType,
    part: Part,
    headers: Option<PartHeaders>,
    max_len: u64,
}

/// Retrieves a study or series whose instances have at most `max_len` bytes each.
///
/// # Errors
/// As [`retrieve`], but the server is not asked whether it works for others.
pub(super) async fn retrieve_all(client: &Client, scope: &StudyScope, max_len: u64) -> Result<InstanceParts> {
    let path = match &scope.series {
        Some(series) => format!("studies/{}/series/{series}", scope.study),
        None => format!("studies/{}", scope.study),
    };
    let response = client.get(RequestKind::Retrieve, &path, None, ACCEPT_MULTIPART).await?;
    check_status(&response)?;
    let (media_type, headers, part) = open_parts(response).await?;
    Ok(InstanceParts { media_type, part, headers: Some(headers), max_len })
}

impl InstanceParts {
    /// Reads the next instance; `None` after the last one.
    ///
    /// # Errors
    /// [`ErrorKind::TooLarge`] for an instance above the maximum; [`ErrorKind::Unreadable`] for a part that is malformed or
    /// does not state its length, without which its content could contain the delimiter.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>> {
        let headers = match self.headers.take() {
            Some(headers) => headers,
            None => match self.part.next_part().await? {
                Some(headers) => headers,
                None => return Ok(None),
            },
        };
        check_part(&self.media_type, &headers)?;
        match headers.length {
            None | Some(0) => Err(unreadable("a part of the server's response does not state its length")),
            Some(length) if length > self.max_len => {
                Err(Error::new(ErrorKind::TooLarge, "an instance is too large to be read ahead"))
            }
            Some(length) => self.part.read(length as usize).await.map(Some),
        }
    }
}

/// Fails a body that is empty or does not have the stated length.
fn check_length(
    body: BoxStream<'static, Result<Bytes>>,
    stated: Option<u64>,
) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold((body, 0), move |(mut body, received)| async move {
        match body.next().await.transpose()? {
            Some(chunk) => {
                let received = received + chunk.len() as u64;
                Ok(Some((chunk, (body, received))))
            }
            None if received == 0 => Err(unreadable("the server returned an empty instance")),
            None if stated.is_some_and(|stated| stated != received) => {
                Err(unreadable("the instance does not have the length that the server stated"))
            }
            None => Ok(None),
        }
    })
    .boxed()
}

fn unreadable(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Unreadable, message)
}
