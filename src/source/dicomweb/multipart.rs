//! [`Part`]: streams the parts of a `multipart/related` body (RFC 2387, RFC 2046 5.1).
//!
//! Published parsers do not fit. `multer` buffers a body of any size until it finds the boundary, reads ahead of the
//! consumer, and drops bytes without an error if a part has no headers; `multipart-stream` holds a whole part. This
//! parser holds one chunk and never ends a part without its delimiter.

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use memchr::memmem::Finder;

use super::body_reader::{BodyReader, Delimiter, PartHeaders, partial_match_len, truncated, unreadable};
use crate::error::Result;

/// The maximum length of a boundary. RFC 2046 5.1.1 allows 70 characters; some servers exceed it.
const MAX_BOUNDARY_LEN: usize = 256;

/// A multipart body, read up to the content of one of its parts.
pub(super) struct Part {
    body: BoxStream<'static, Result<Bytes>>,
    /// Finds `CRLF "--" boundary`.
    delimiter: Finder<'static>,
    /// The number of bytes until the delimiter, if the part states its length.
    remaining: Option<u64>,
    /// Bytes that were read and not yet returned.
    buffer: Bytes,
    state: State,
}

enum State {
    Content,
    AfterDelimiter,
    Ended,
}

impl Part {
    /// Reads up to the first part's content.
    ///
    /// # Errors
    /// The body's own; [`ErrorKind::Unavailable`] if it is truncated; [`ErrorKind::Unreadable`] if it is not a multipart
    /// body with this boundary.
    pub(super) async fn open(
        body: BoxStream<'static, Result<Bytes>>,
        boundary: &str,
    ) -> Result<(PartHeaders, Self)> {
        if boundary.is_empty() || boundary.len() > MAX_BOUNDARY_LEN {
            return Err(unreadable("the server's multipart response has no valid boundary"));
        }
        // Some servers put the boundary in single quotes, which are allowed in a boundary too.
        let unquoted = boundary.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
        let boundaries = [Some(boundary), unquoted.filter(|boundary| !boundary.is_empty())];
        let delimiters: Vec<_> = boundaries
            .into_iter()
            .flatten()
            .map(|boundary| Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned())
            .collect();
        let mut input = BodyReader { body, buffer: BytesMut::from("\r\n") };
        let delimiter = input.skip_first(&delimiters).await?.clone();
        if matches!(input.delimiter_end().await?, Delimiter::Close) {
            return Err(unreadable("the server's multipart response has no part"));
        }
        let headers = input.headers().await?;
        let BodyReader { body, buffer } = input;
        let remaining = headers.length;
        Ok((headers, Self { body, delimiter, remaining, buffer: buffer.freeze(), state: State::Content }))
    }

    /// Reads the whole content of a part that states its length.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`ErrorKind::Unreadable`] if the part does not have the stated length.
    pub(super) async fn read(&mut self, length: usize) -> Result<Bytes> {
        let mut content = BytesMut::with_capacity(length);
        while let Some(chunk) = self.content().await? {
            content.extend_from_slice(&chunk);
        }
        Ok(content.freeze())
    }

    /// Moves to the next part after the content of this one was [read](Self::read). Returns its headers; `None` at the end
    /// of the body.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(super) async fn next_part(&mut self) -> Result<Option<PartHeaders>> {
        let mut input = self.input();
        if matches!(input.delimiter_end().await?, Delimiter::Close) {
            return Ok(None);
        }
        let headers = input.headers().await?;
        (self.body, self.buffer, self.remaining) = (input.body, input.buffer.freeze(), headers.length);
        Ok(Some(headers))
    }

    /// The content of the body's only part. The stream ends without an error only after the closing delimiter.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(self, |mut part| async move { Ok(part.next().await?.map(|chunk| (chunk, part))) })
            .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.state {
                State::Content => {
                    if let Some(chunk) = self.content().await? {
                        return Ok(Some(chunk));
                    }
                    self.state = State::AfterDelimiter;
                }
                State::AfterDelimiter => {
                    let mut input = self.input();
                    match input.delimiter_end().await? {
                        Delimiter::Close => {
                            // After content of the stated length, what follows does not matter.
                            let epilogue = input.check_epilogue().await;
                            if self.remaining.is_none() {
                                epilogue?;
                            }
                            self.state = State::Ended;
                        }
                        Delimiter::Part => {
                            return Err(unreadable("the server returned several parts for one instance"));
                        }
                    }
                }
                State::Ended => return Ok(None),
            }
        }
    }

    /// Takes the rest of the body, to read outside the content of parts.
    fn input(&mut self) -> BodyReader {
        let body = std::mem::replace(&mut self.body, stream::empty().boxed());
        BodyReader { body, buffer: BytesMut::from(&self.buffer[..]) }
    }

    /// The next bytes of the part; `None` after the delimiter.
    async fn content(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(remaining) = self.remaining.filter(|remaining| *remaining > 0) {
                if !self.buffer.is_empty() {
                    // Content of a stated length may contain the delimiter.
                    let length = usize::try_from(remaining).unwrap_or(usize::MAX).min(self.buffer.len());
                    self.remaining = Some(remaining - length as u64);
                    return Ok(Some(self.buffer.split_to(length)));
                }
            } else if self.remaining.is_some() && self.buffer.len() >= self.delimiter.needle().len() {
                if !self.buffer.starts_with(self.delimiter.needle()) {
                    return Err(unreadable("the instance does not have the length that the server stated"));
                }
                self.buffer.advance(self.delimiter.needle().len());
                return Ok(None);
            } else if self.remaining.is_none() {
                if let Some(at) = self.delimiter.find(&self.buffer) {
                    if at > 0 {
                        // The next call finds the delimiter again at the start of the buffer.
                        return Ok(Some(self.buffer.split_to(at)));
                    }
                    self.buffer.advance(self.delimiter.needle().len());
                    return Ok(None);
                }
                let safe = self.buffer.len() - partial_match_len(&self.buffer, self.delimiter.needle());
                if safe > 0 {
                    return Ok(Some(self.buffer.split_to(safe)));
                }
            }
            let chunk = self.body.next().await.ok_or_else(truncated)??;
            self.buffer = match self.buffer.is_empty() {
                true => chunk,
                false => [&self.buffer[..], &chunk[..]].concat().into(),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt, stream};

    use super::*;
    use crate::error::ErrorKind;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    /// The first part of a body that arrives in chunks of this size.
    fn read(body: &[u8], size: usize) -> Result<(PartHeaders, Vec<u8>)> {
        let chunks: Vec<_> = body.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        block_on(async {
            let (head, part) = Part::open(stream::iter(chunks).boxed(), "b-1").await?;
            let chunks: Vec<Bytes> = part.into_stream().try_collect().await?;
            Ok((head, chunks.concat()))
        })
    }

    /// Bytes full of what almost is a delimiter.
    const TRICKY: &[u8] = b"\r\n\r\n--b-\r\r\n--\r\n--b\r\n-\n--b-1\r";

    #[test]
    fn a_part_is_the_same_however_it_is_cut() {
        let mut body =
            b"preamble\r\n--b-1 \r\nContent-Type: application/dicom\r\ncontent-length: 28\r\n\r\n".to_vec();
        body.extend_from_slice(TRICKY);
        body.extend_from_slice(b"\r\n--b-1--\r\n \r\n");
        for size in 1..=body.len() {
            let (head, bytes) = read(&body, size).unwrap();
            assert_eq!(bytes, TRICKY, "in chunks of {size}");
            assert_eq!(head.content_type.as_deref(), Some("application/dicom"));
            assert_eq!(head.length, Some(28));
        }
    }

    #[test]
    fn no_prefix_of_a_body_passes_for_the_whole() {
        let body = [b"--b-1\r\nContent-Type: application/dicom\r\n\r\n", TRICKY, b"\r\n--b-1--"].concat();
        assert_eq!(read(&body, 7).unwrap().1, TRICKY);
        for cut in 0..body.len() {
            let error = read(&body[..cut], 7).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "cut at {cut}");
        }
    }

    #[test]
    fn what_is_malformed_is_an_error() {
        for body in [
            &b"--other\r\nContent-Type: application/dicom\r\n\r\nx\r\n--other--"[..],
            b"<html>sign in</html>",
            b"--b-1--",
            b"--b-1x\r\n\r\nx\r\n--b-1--",
            b"--b-1\r\n\0\0 no headers\r\n\r\nx\r\n--b-1--",
            b"--b-1\r\nContent-Length: many\r\n\r\nx\r\n--b-1--",
            b"--b-1\r\n\r\none\r\n--b-1\r\n\r\ntwo\r\n--b-1--",
            // The content may contain the closing delimiter.
            b"--b-1\r\n\r\none\r\n--b-1--\r\ntwo\r\n--b-1--",
            b"--b-1\r\n\r\none\r\n--b-1--two",
            b"--b-1\r\nContent-Length: 2\r\n\r\none\r\n--b-1--",
            b"--b-1\r\nContent-Length: 4\r\n\r\none\r\n--b-1--  ",
        ] {
            for size in [1, 1000] {
                let error = read(body, size).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unreadable, "{}", String::from_utf8_lossy(body));
            }
        }
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096]))).boxed();
        let error = block_on(Part::open(endless, "b-1")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unreadable);
    }

    #[test]
    fn a_part_without_headers_loses_nothing() {
        let (head, bytes) = read(b"--b-1\r\n\r\nhead: no\r\n\r\nbody\r\n--b-1--", 5).unwrap();
        assert_eq!((head, &bytes[..]), (PartHeaders::default(), &b"head: no\r\n\r\nbody"[..]));
        let (_, bytes) = read(b"--b-1\r\nA: b\n\nx\r\n\r\ny\r\n--b-1--", 5).unwrap();
        assert_eq!(bytes, b"x\r\n\r\ny");
    }

    #[test]
    fn content_of_a_stated_length_may_contain_the_delimiter() {
        let content = b"one\r\n--b-1--\r\n\r\n--b-1\r\n\r\ntwo";
        let head = format!("--b-1\r\nContent-Length: {}\r\n\r\n", content.len());
        for end in [&b"\r\n--b-1--"[..], b"\r\n--b-1--\r\nepilogue"] {
            let body = [head.as_bytes(), content, end].concat();
            for size in 1..=body.len() {
                assert_eq!(read(&body, size).unwrap().1, content, "in chunks of {size}");
            }
        }
    }
}
