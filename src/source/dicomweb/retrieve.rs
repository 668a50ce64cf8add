//! WADO-RS (PS3.18 10.4): one instance's stored bytes.

use futures::StreamExt;
use futures::stream::{self, BoxStream};

use bytes::Bytes;

use super::answer::Answer;
use super::client::{Client, Kind};
use super::multipart::Part;
use super::query::{Target, rows};
use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::model::InstanceIdentifier;

/// `*`: whatever it is stored in, so that nothing is transcoded (PS3.18 8.7.3.5.2).
const STORED_DICOM: &str = r#"multipart/related; type="application/dicom"; transfer-syntax=*"#;

const DICOM: &str = "application/dicom";

/// Asks for an instance. The body is streamed.
///
/// # Errors
/// As [`DicomWebSource`](crate::DicomWebSource) says of `open`.
pub(super) async fn instance(client: &Client, identifier: &InstanceIdentifier) -> Result<Content> {
    let path = format!(
        "studies/{}/series/{}/instances/{}",
        identifier.study_instance_uid(),
        identifier.series_instance_uid(),
        identifier.sop_instance_uid(),
    );
    let outcome = match client.get(Kind::Reading, &path, None, STORED_DICOM).await {
        Ok(answer) => content(answer).await,
        Err(error) => Err(error),
    };
    match outcome {
        // A gateway in front of a server that is down, or a page to sign in at, says such things of every instance.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unreadable) => {
            Err(blame(client, error).await)
        }
        outcome => outcome,
    }
}

/// The error, if the server otherwise does its work; the trouble of the whole server, if not.
async fn blame(client: &Client, error: Error) -> Error {
    match rows(client, &Target::Studies, None, 0, 1).await {
        Ok(_) => error,
        Err(trouble) if trouble.kind().is_transient() || trouble.kind() == ErrorKind::Unauthorized => trouble,
        Err(trouble) => {
            let message = "the server answers neither queries nor retrievals";
            Error::new(ErrorKind::Unavailable, message).with_source(trouble)
        }
    }
}

async fn content(answer: Answer) -> Result<Content> {
    match answer.status().as_u16() {
        200 => {}
        204 => {
            return Err(Error::new(ErrorKind::NotFound, "the server has nothing under the instance's UIDs"));
        }
        // 206: only a part could be given (PS3.18 10.4.3).
        status => return Err(unreadable(format!("the server did not give the whole instance ({status})"))),
    }
    answer.check_encoding()?;
    let media_type = answer.media_type();
    if media_type.is(DICOM) {
        // Servers that have but one part to give may leave the multipart out.
        if !answer.shows_its_end() {
            return Err(unreadable("the server's answer does not show where it ends"));
        }
        let length = answer.length();
        return Ok(Content::from_stream(length, whole(answer.into_body(), length)));
    }
    if !media_type.is("multipart/related") {
        return Err(unreadable("the server sent something other than DICOM"));
    }
    let boundary = media_type.parameter("boundary").unwrap_or_default();
    let (head, part) = Part::first(answer.into_body(), boundary).await?;
    // Without a type of its own, the part is what the whole says it is (RFC 2387 3.1).
    let inner = head.content_type.as_deref().or(media_type.parameter("type")).unwrap_or_default();
    if !super::media_type::MediaType::parse(inner).is(DICOM) {
        return Err(unreadable("the server sent something other than DICOM"));
    }
    if !matches!(head.transfer_encoding.as_deref(), None | Some("binary" | "8bit" | "7bit")) {
        return Err(unreadable("the server encoded its answer though not asked to"));
    }
    Ok(Content::from_stream(head.length, whole(part.into_stream(), head.length)))
}

/// Holds a body to the length that was stated for it, and to having any.
fn whole(body: BoxStream<'static, Result<Bytes>>, stated: Option<u64>) -> BoxStream<'static, Result<Bytes>> {
    stream::try_unfold((body, 0), move |(mut body, seen)| async move {
        match body.next().await.transpose()? {
            Some(chunk) => {
                let seen = seen + chunk.len() as u64;
                Ok(Some((chunk, (body, seen))))
            }
            None if seen == 0 => Err(unreadable("the server sent no bytes for the instance")),
            None if stated.is_some_and(|stated| stated != seen) => {
                Err(unreadable("the server sent another number of bytes than it stated"))
            }
            None => Ok(None),
        }
    })
    .boxed()
}

fn unreadable(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Unreadable, message)
}
