//! [`BodyReader`]: reads a multipart body outside the content of its parts.

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt};
use memchr::memmem::Finder;

use crate::error::{Error, ErrorKind, Result};

/// The maximum length of the text before the first delimiter.
const MAX_PREAMBLE: usize = 64 << 10;

/// The maximum length of the white space after the closing delimiter.
const MAX_EPILOGUE: usize = 64 << 10;

/// The maximum length of a part's headers.
const MAX_HEADERS_LEN: usize = 16 << 10;

const MAX_HEADERS: usize = 32;

/// The headers of a part.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHeaders {
    pub(super) content_type: Option<String>,
    pub(super) length: Option<u64>,
    /// In lower case; `None` if the bytes are not encoded.
    pub(super) transfer_encoding: Option<String>,
}

/// The two kinds of delimiters.
pub(super) enum Delimiter {
    /// A part follows.
    Part,
    /// `--`: the end of the body.
    Close,
}

/// Reads the body outside the parts' content.
pub(super) struct BodyReader {
    pub(super) body: BoxStream<'static, Result<Bytes>>,
    pub(super) buffer: BytesMut,
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
    pub(super) async fn check_epilogue(mut self) -> Result<()> {
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
    pub(super) async fn skip_first<'a>(
        &mut self,
        delimiters: &'a [Finder<'static>],
    ) -> Result<&'a Finder<'static>> {
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
    pub(super) async fn delimiter_end(&mut self) -> Result<Delimiter> {
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
    pub(super) async fn headers(&mut self) -> Result<PartHeaders> {
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

/// The number of bytes at the end that may be the start of the delimiter, which has a CR at its start only.
pub(super) fn partial_match_len(bytes: &[u8], delimiter: &[u8]) -> usize {
    let tail = &bytes[bytes.len().saturating_sub(delimiter.len() - 1)..];
    match memchr::memrchr(b'\r', tail) {
        Some(at) if delimiter.starts_with(&tail[at..]) => tail.len() - at,
        _ => 0,
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

pub(super) fn unreadable(message: &'static str) -> Error {
    Error::new(ErrorKind::Unreadable, message)
}

/// The next attempt may return the whole body.
pub(super) fn truncated() -> Error {
    Error::new(ErrorKind::Unavailable, "the server's response is truncated")
}
