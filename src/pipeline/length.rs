//! Lengths: [`enforce_length`] for what the source gives, [`check_length`] for what the destination stored.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tokio::time::sleep;

use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::limited_source::SOURCE;
use crate::sink::PutResult;
use crate::sync::{lock, timed_out};

/// Receives an error of the source that occurs while a sink reads the content. The error surfaces in `put`; without the
/// slot it would count as a destination failure.
#[derive(Debug, Clone, Default)]
pub(crate) struct SourceErrorSlot(Arc<Mutex<Option<Error>>>);

impl SourceErrorSlot {
    /// Takes the source's error, if there was one.
    pub(crate) fn take(&self) -> Option<Error> {
        lock(&self.0).take()
    }

    /// Stores the error and returns one of the same kind for the sink.
    fn put(&self, error: Error) -> Error {
        let for_sink = Error::new(error.kind(), "the source failed");
        *lock(&self.0) = Some(error);
        for_sink
    }
}

/// Makes a content fail unless it has its stated length, or the listed one if it states none, and if no chunk arrives for
/// `max_pause`. Errors of the content go into the returned slot.
pub(crate) fn enforce_length(
    content: Content,
    listed: Option<u64>,
    max_pause: Duration,
) -> (Content, SourceErrorSlot) {
    let slot = SourceErrorSlot::default();
    if content.as_bytes().is_some() {
        return (content, slot);
    }
    let length = content.length();
    let expected = length.or(listed);
    let errors = slot.clone();
    let mut chunks = content.into_stream();
    let (mut read, mut ended) = (0_u64, false);
    let mut pause = None;
    let checked = stream::poll_fn(move |context| {
        if ended {
            return Poll::Ready(None);
        }
        let polled = catch_unwind(AssertUnwindSafe(|| chunks.poll_next_unpin(context)));
        let chunk = match polled {
            Ok(Poll::Pending) => {
                let pause = pause.get_or_insert_with(|| Box::pin(sleep(max_pause)));
                ready!(pause.as_mut().poll(context));
                Some(Err(timed_out(SOURCE, max_pause)))
            }
            Ok(Poll::Ready(chunk)) => {
                pause = None;
                chunk
            }
            Err(_) => Some(Err(Error::new(ErrorKind::Internal, "the source panicked"))),
        };
        let error = match chunk {
            Some(Ok(chunk)) => {
                read += chunk.len() as u64;
                match expected {
                    Some(expected) if read > expected => wrong_length("more than", expected),
                    _ => return Poll::Ready(Some(Ok(chunk))),
                }
            }
            Some(Err(error)) => error,
            None => match expected {
                Some(expected) if read < expected => wrong_length("less than", expected),
                _ => {
                    ended = true;
                    return Poll::Ready(None);
                }
            },
        };
        ended = true;
        Poll::Ready(Some(Err(errors.put(error))))
    });
    (Content::from_stream(length, checked), slot)
}

/// A file or row may be replaced while it is read, so another attempt may succeed.
fn wrong_length(relation: &str, expected: u64) -> Error {
    Error::new(ErrorKind::Conflict, format!("the source returned {relation} the stated {expected} bytes"))
}

/// Compares the stored length with the expected one, if that is known.
///
/// # Errors
/// [`ErrorKind::Internal`], which fails the operation, if they differ.
pub(crate) fn check_length(result: &PutResult, expected: Option<u64>) -> Result<()> {
    match expected {
        Some(expected) if expected != result.size => {
            let message = format!("the destination stored {} of {expected} bytes", result.size);
            Err(Error::new(ErrorKind::Internal, message))
        }
        _ => Ok(()),
    }
}
