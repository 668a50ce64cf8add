//! [`guard`]: tells trouble in the source from trouble at the destination.

use std::sync::{Arc, Mutex};
use std::task::Poll;

use futures::stream::{self, StreamExt};

use crate::content::Content;
use crate::error::{Error, ErrorKind};
use crate::sync::lock;

/// What the source did wrong while a sink was reading it. The error surfaces inside `put`; without this it would be
/// taken for the destination's.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceTrouble(Arc<Mutex<Option<Error>>>);

impl SourceTrouble {
    /// Takes the source's own error, if there was one.
    pub(crate) fn take(&self) -> Option<Error> {
        lock(&self.0).take()
    }

    /// Keeps the error, and gives a stand-in for the sink.
    fn note(&self, error: Error) -> Error {
        let stand_in = Error::new(error.kind(), "the source failed");
        *lock(&self.0) = Some(error);
        stand_in
    }
}

/// Holds a content to its length, or to the listed one when it states none, and remembers its errors.
pub(crate) fn guard(content: Content, listed: Option<u64>) -> (Content, SourceTrouble) {
    let trouble = SourceTrouble::default();
    if content.as_bytes().is_some() {
        return (content, trouble);
    }
    let length = content.length();
    let expected = length.or(listed);
    let noted = trouble.clone();
    let mut chunks = content.into_stream();
    let (mut seen, mut ended) = (0_u64, false);
    let guarded = stream::poll_fn(move |context| {
        if ended {
            return Poll::Ready(None);
        }
        let fault = match std::task::ready!(chunks.poll_next_unpin(context)) {
            Some(Ok(chunk)) => {
                seen += chunk.len() as u64;
                match expected {
                    Some(expected) if seen > expected => wrong_length("more than", expected),
                    _ => return Poll::Ready(Some(Ok(chunk))),
                }
            }
            Some(Err(error)) => error,
            None => match expected {
                Some(expected) if seen < expected => wrong_length("less than", expected),
                _ => {
                    ended = true;
                    return Poll::Ready(None);
                }
            },
        };
        ended = true;
        Poll::Ready(Some(Err(noted.note(fault))))
    });
    (Content::from_stream(length, guarded), trouble)
}

/// A file or row may be replaced while it is read, so this is worth another try.
fn wrong_length(relation: &str, expected: u64) -> Error {
    Error::new(ErrorKind::Conflict, format!("the source gave {relation} the {expected} bytes it stated"))
}
