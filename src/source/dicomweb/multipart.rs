//! [`Part`]: streams the parts of a `multipart/related` body (RFC 2387, RFC 2046 5.1).
//!
//! Published parsers do not fit. `multer` buffers a body of any size until it finds the boundary, reads ahead of the
//! consumer, and drops bytes without an error if a part has no headers; `multipart-stream` holds a whole part. This
//! parser holds one chunk and never ends a part without its delimiter.

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use memchr::memmem::Finder;

use crate::error::{Error, ErrorKind, Result};

/// The maximum length of the text before the first delimiter.
const MAX_PREAMBLE: usize = 64 << 10;

/// The maximum length of the white space after the closing delimiter.
const MAX_EPILOGUE: usize = 64 << 10;

/// The maximum length of a part's headers.
const MAX_HEADERS_LEN: usize = 16 << 10;

const MAX_HEADERS: usize = 32;

/// The maximum length of a boundary. RFC 2046 5.1.1 allows 70 characters; some servers exceed it.
const MAX_BOUNDARY_LEN: usize = 256;

/// The headers of a part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHeaders {
    pub(super) content_type: Option<String>,
    pub(super) length: Option<u64>,
    /// In lower case; `None` if the bytes are not encoded.
    pub(super) transfer_encoding: Option<String>,
}

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

/// The two kinds of delimiters.
enum Delimiter {
    /// A part follows.
    Part,
    /// `--`: the end of the body.
    Close,
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

/// The number of bytes at the end that may be the start of the delimiter, which has a CR at its start only.
fn partial_match_len(bytes: &[u8], delimiter: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(delimiter.len() - 1)..];
    match memchr::memrchr(b'\r', tail) {
        Some(at) if delimiter.starts_with(&tail[at..]) => tail.len() - at,
        _ => 0,
    }
}

/// Reads the body outside the parts' content.
struct BodyReader {
    body: BoxStream<'static, Result<Bytes>>,
    buffer: BytesMut,
}

impl BodyReader {
    /// Reads on; `false`: the body has ended.
    async fn more(&mut self) -> Result<bool> {
        match self.body.next().await {
            Some(chunk) => {
                self.buffer.extend_from_slice(&chunk?);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// Reads the rest of the body, which may only be white space. Anything else may be the rest of content that contains
    /// the delimiter.
    async fn check_epilogue(mut self) -> Result<()> {
        let mut read = 0;
        // The dashes of the closing delimiter.
        self.buffer.advance(2);
        loop {
            read += self.buffer.len();
            if !self.buffer.iter().all(u8::is_ascii_whitespace) || read > MAX_EPILOGUE {
                return Err(unreadable("the server's multipart response continues after its end"));
            }
            self.buffer.clear();
            if !self.more().await? {
                return Ok(());
            }
        }
    }

    /// Skips the first delimiter, which may be one of several. The buffer starts with an added line end, because a body may
    /// start with the delimiter.
    async fn skip_first<'a>(&mut self, delimiters: &'a [Finder<'static>]) -> Result<&'a Finder<'static>> {
        loop {
            for delimiter in delimiters {
                if let Some(at) = delimiter.find(&self.buffer) {
                    self.buffer.advance(at + delimiter.needle().len());
                    return Ok(delimiter);
                }
            }
            let not_found = || unreadable("the server's multipart response does not contain its boundary");
            if self.buffer.len() > MAX_PREAMBLE {
                return Err(not_found());
            }
            if !self.more().await? {
                // The body ended inside what may have become the delimiter.
                let is_cut = |delimiter: &Finder<'_>| {
                    partial_match_len(&self.buffer, delimiter.needle()) == self.buffer.len()
                };
                return Err(if delimiters.iter().any(is_cut) { truncated() } else { not_found() });
            }
        }
    }

    /// Reads the rest of the delimiter's line.
    async fn delimiter_end(&mut self) -> Result<Delimiter> {
        loop {
            let blanks = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            match &self.buffer[blanks..] {
                // The dashes follow the boundary immediately (RFC 2046 5.1.1).
                [b'-', b'-', ..] if blanks == 0 => return Ok(Delimiter::Close),
                [b'\r', b'\n', ..] => {
                    self.buffer.advance(blanks + 2);
                    return Ok(Delimiter::Part);
                }
                [] | [b'\r'] if blanks < MAX_HEADERS_LEN => {}
                [b'-'] if blanks == 0 => {}
                _ => return Err(unreadable("the server's multipart response is malformed")),
            }
            if !self.more().await? {
                return Err(truncated());
            }
        }
    }

    /// Reads a part's headers and the empty line after them.
    async fn headers(&mut self) -> Result<PartHeaders> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            match httparse::parse_headers(&self.buffer, &mut headers) {
                Ok(httparse::Status::Complete((length, headers))) => {
                    let headers = part_headers(headers)?;
                    self.buffer.advance(length);
                    return Ok(headers);
                }
                Ok(httparse::Status::Partial) if self.buffer.len() <= MAX_HEADERS_LEN => {}
                Ok(httparse::Status::Partial) | Err(_) => {
                    return Err(unreadable("a part of the server's response has invalid headers"));
                }
            }
            if !self.more().await? {
                return Err(truncated());
            }
        }
    }
}

fn part_headers(headers: &[httparse::Header<'_>]) -> Result<PartHeaders> {
    let value = |name: &str| {
        let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(header.value).trim().to_owned())
    };
    let length = value("content-length").map(|length| length.parse()).transpose();
    Ok(PartHeaders {
        content_type: value("content-type"),
        length: length
            .map_err(|_| unreadable("a part of the server's response has an invalid Content-Length"))?,
        transfer_encoding: value("content-transfer-encoding").map(|text| text.to_ascii_lowercase()),
    })
}

fn unreadable(message: &'static str) -> Error {
    Error::new(ErrorKind::Unreadable, message)
}

/// The next attempt may return the whole body.
fn truncated() -> Error {
    Error::new(ErrorKind::Unavailable, "the server's response is truncated")
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt, stream};

    use super::*;

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
