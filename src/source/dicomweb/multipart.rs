//! The one part of a `multipart/related` body (RFC 2387, RFC 2046 5.1), streamed.
//!
//! The job is small and the parsers at hand do not fit it: those made for forms buffer a body of any size until they
//! find the boundary, read ahead of whoever uses the part, and lose bytes without an error where a part has no
//! headers; the others hold a whole part. This one holds a chunk, and never ends a part without its delimiter.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use memchr::memmem::Finder;

use crate::error::{Error, ErrorKind, Result};

/// How much may stand before the first delimiter: a preamble is a sentence for old mail readers.
const LONGEST_PREAMBLE: usize = 64 << 10;

/// How much behind the last delimiter is read, and for how long, so that the connection can be used again.
const LONGEST_EPILOGUE: usize = 64 << 10;
const EPILOGUE_TIMEOUT: Duration = Duration::from_secs(1);

/// How long the headers of a part may be.
const LONGEST_HEAD: usize = 16 << 10;

const MOST_HEADERS: usize = 32;

/// RFC 2046 5.1.1 allows 70 characters, and servers in the field take a few more.
const LONGEST_BOUNDARY: usize = 256;

/// What the headers of a part say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHead {
    pub(super) content_type: Option<String>,
    pub(super) length: Option<u64>,
    /// In lower case; none means that the bytes stand as they are.
    pub(super) transfer_encoding: Option<String>,
}

/// A multipart body, read as far as the bytes of its first part.
pub(super) struct Part {
    body: BoxStream<'static, Result<Bytes>>,
    /// Finds `CRLF "--" boundary`.
    delimiter: Finder<'static>,
    /// Read, and not yet handed out.
    held: Bytes,
    stage: Stage,
}

enum Stage {
    Data,
    AfterDelimiter,
    Ended,
}

/// What follows a delimiter.
enum After {
    /// A part.
    Line,
    /// `--`: the end of the body.
    Close,
}

impl Part {
    /// Reads up to the first part's bytes.
    ///
    /// # Errors
    /// The body's own; [`ErrorKind::Unavailable`] when it ends too early; [`ErrorKind::Unreadable`] when it is no
    /// multipart body with this boundary.
    pub(super) async fn first(
        body: BoxStream<'static, Result<Bytes>>,
        boundary: &str,
    ) -> Result<(PartHead, Self)> {
        if boundary.is_empty() || boundary.len() > LONGEST_BOUNDARY {
            return Err(unreadable("the server's multipart answer has no usable boundary"));
        }
        let delimiter = Finder::new(format!("\r\n--{boundary}").as_bytes()).into_owned();
        let mut input = Input { body, buffer: BytesMut::from("\r\n") };
        input.skip_to(&delimiter).await?;
        if matches!(input.line().await?, After::Close) {
            return Err(unreadable("the server's multipart answer has no part"));
        }
        let head = input.head().await?;
        let Input { body, buffer } = input;
        Ok((head, Self { body, delimiter, held: buffer.freeze(), stage: Stage::Data }))
    }

    /// The part's bytes. The stream ends without an error only after the delimiter that closes the body.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Bytes>> {
        stream::try_unfold(self, |mut part| async move { Ok(part.next().await?.map(|chunk| (chunk, part))) })
            .boxed()
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.stage {
                Stage::Data => {
                    if let Some(chunk) = self.data().await? {
                        return Ok(Some(chunk));
                    }
                    self.stage = Stage::AfterDelimiter;
                }
                Stage::AfterDelimiter => {
                    let body = std::mem::replace(&mut self.body, stream::empty().boxed());
                    let mut input = Input { body, buffer: BytesMut::from(&self.held[..]) };
                    match input.line().await? {
                        After::Close => {
                            input.drain().await;
                            self.stage = Stage::Ended;
                        }
                        After::Line => {
                            return Err(unreadable("the server sent several parts for one instance"));
                        }
                    }
                }
                Stage::Ended => return Ok(None),
            }
        }
    }

    /// The next bytes of the part; `None`: the delimiter has been passed.
    async fn data(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(at) = self.delimiter.find(&self.held) {
                if at > 0 {
                    // The delimiter is found again by the next call, at once.
                    return Ok(Some(self.held.split_to(at)));
                }
                self.held.advance(self.delimiter.needle().len());
                return Ok(None);
            }
            let sure = self.held.len() - may_begin(&self.held, self.delimiter.needle());
            if sure > 0 {
                return Ok(Some(self.held.split_to(sure)));
            }
            let chunk = self.body.next().await.ok_or_else(truncated)??;
            self.held = match self.held.is_empty() {
                true => chunk,
                false => [&self.held[..], &chunk[..]].concat().into(),
            };
        }
    }
}

/// How many bytes at the end may be the beginning of the delimiter. It has a CR at its start and nowhere else.
fn may_begin(bytes: &[u8], delimiter: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(delimiter.len() - 1)..];
    match memchr::memrchr(b'\r', tail) {
        Some(at) if delimiter.starts_with(&tail[at..]) => tail.len() - at,
        _ => 0,
    }
}

/// The body before and between parts.
struct Input {
    body: BoxStream<'static, Result<Bytes>>,
    buffer: BytesMut,
}

impl Input {
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

    /// Reads what little is left, so that the connection can be used again. Nothing of it matters.
    async fn drain(mut self) {
        let rest = async {
            let mut read = 0;
            while let Some(Ok(chunk)) = self.body.next().await {
                read += chunk.len();
                if read > LONGEST_EPILOGUE {
                    return;
                }
            }
        };
        _ = tokio::time::timeout(EPILOGUE_TIMEOUT, rest).await;
    }

    /// Goes behind the first delimiter. The buffer begins with a line end of its own, since a body may begin with
    /// the delimiter.
    async fn skip_to(&mut self, delimiter: &Finder<'_>) -> Result<()> {
        loop {
            if let Some(at) = delimiter.find(&self.buffer) {
                self.buffer.advance(at + delimiter.needle().len());
                return Ok(());
            }
            let foreign = || unreadable("the server's multipart answer has another boundary than it says");
            if self.buffer.len() > LONGEST_PREAMBLE {
                return Err(foreign());
            }
            if !self.more().await? {
                // What could still have become the delimiter was cut off.
                let cut = may_begin(&self.buffer, delimiter.needle()) == self.buffer.len();
                return Err(if cut { truncated() } else { foreign() });
            }
        }
    }

    /// Reads what is left of the line that a delimiter begins.
    async fn line(&mut self) -> Result<After> {
        loop {
            let blanks = self.buffer.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            match &self.buffer[blanks..] {
                // The dashes stand right behind the boundary (RFC 2046 5.1.1).
                [b'-', b'-', ..] if blanks == 0 => return Ok(After::Close),
                [b'\r', b'\n', ..] => {
                    self.buffer.advance(blanks + 2);
                    return Ok(After::Line);
                }
                [] | [b'\r'] if blanks < LONGEST_HEAD => {}
                [b'-'] if blanks == 0 => {}
                _ => return Err(unreadable("the server's multipart answer is malformed")),
            }
            if !self.more().await? {
                return Err(truncated());
            }
        }
    }

    /// Reads a part's headers and the empty line behind them.
    async fn head(&mut self) -> Result<PartHead> {
        loop {
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            match httparse::parse_headers(&self.buffer, &mut headers) {
                Ok(httparse::Status::Complete((length, headers))) => {
                    let head = read_head(headers)?;
                    self.buffer.advance(length);
                    return Ok(head);
                }
                Ok(httparse::Status::Partial) if self.buffer.len() <= LONGEST_HEAD => {}
                // httparse's error says nothing of the bytes, and is of no use to anybody.
                Ok(httparse::Status::Partial) | Err(_) => {
                    return Err(unreadable("the part that the server sent has no usable headers"));
                }
            }
            if !self.more().await? {
                return Err(truncated());
            }
        }
    }
}

fn read_head(headers: &[httparse::Header<'_>]) -> Result<PartHead> {
    let value = |name: &str| {
        let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        Some(String::from_utf8_lossy(header.value).trim().to_owned())
    };
    let length = value("content-length").map(|length| length.parse()).transpose();
    Ok(PartHead {
        content_type: value("content-type"),
        length: length.map_err(|_| unreadable("the part that the server sent states no usable length"))?,
        transfer_encoding: value("content-transfer-encoding").map(|text| text.to_ascii_lowercase()),
    })
}

fn unreadable(message: &'static str) -> Error {
    Error::new(ErrorKind::Unreadable, message)
}

/// What broke off may come whole the next time.
fn truncated() -> Error {
    Error::new(ErrorKind::Unavailable, "the server's answer ends too early")
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt, stream};

    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(work)
    }

    /// The first part of a body that arrives in chunks of this size.
    fn read(body: &[u8], size: usize) -> Result<(PartHead, Vec<u8>)> {
        let chunks: Vec<_> = body.chunks(size).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
        block_on(async {
            let (head, part) = Part::first(stream::iter(chunks).boxed(), "b-1").await?;
            let chunks: Vec<Bytes> = part.into_stream().try_collect().await?;
            Ok((head, chunks.concat()))
        })
    }

    /// Bytes full of what almost is a delimiter.
    const TRICKY: &[u8] = b"\r\n\r\n--b-\r\r\n--\r\n--b\r\n-\n--b-1\r";

    #[test]
    fn a_part_is_the_same_however_it_is_cut() {
        let mut body =
            b"preamble\r\n--b-1 \r\nContent-Type: application/dicom\r\ncontent-length: 31\r\n\r\n".to_vec();
        body.extend_from_slice(TRICKY);
        body.extend_from_slice(b"\r\n--b-1--\r\nepilogue");
        for size in 1..=body.len() {
            let (head, bytes) = read(&body, size).unwrap();
            assert_eq!(bytes, TRICKY, "in chunks of {size}");
            assert_eq!(head.content_type.as_deref(), Some("application/dicom"));
            assert_eq!(head.length, Some(31));
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
        ] {
            for size in [1, 1000] {
                let error = read(body, size).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Unreadable, "{}", String::from_utf8_lossy(body));
            }
        }
        let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096]))).boxed();
        let error = block_on(Part::first(endless, "b-1")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unreadable);
    }

    #[test]
    fn a_part_without_headers_loses_nothing() {
        let (head, bytes) = read(b"--b-1\r\n\r\nhead: no\r\n\r\nbody\r\n--b-1--", 5).unwrap();
        assert_eq!((head, &bytes[..]), (PartHead::default(), &b"head: no\r\n\r\nbody"[..]));
        let (_, bytes) = read(b"--b-1\r\nA: b\n\nx\r\n\r\ny\r\n--b-1--", 5).unwrap();
        assert_eq!(bytes, b"x\r\n\r\ny");
    }
}
