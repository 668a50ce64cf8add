//! [`Checksum`]: whether what Azure stored is what it was sent.
//!
//! Each body goes with its CRC64, so that Azure refuses one that arrives damaged before anybody can see it; and the
//! answer says what was stored: Put Block and Put Blob a CRC64, some servers only an MD5 ("Put Blob", "Put Block", Azure
//! Blob Storage REST API, version 2019-02-02 and later). What the answer does not say is not checked.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crc64fast_nvme::Digest;
use md5::Md5;
use md5::digest::Digest as _;
use object_store::PutPayload;
use reqwest::header::{HeaderName, HeaderValue};

use super::answer::Answer;
use super::client::Put;
use crate::error::{Error, ErrorKind, Result};

const CRC64: HeaderName = HeaderName::from_static("x-ms-content-crc64");

/// Of a body: CRC-64/NVME, little endian, in base64.
pub(super) struct Checksum<'a> {
    body: &'a PutPayload,
    crc64: String,
}

impl<'a> Checksum<'a> {
    pub(super) fn of(body: &'a PutPayload) -> Self {
        let mut crc64 = Digest::new();
        for chunk in body {
            crc64.write(chunk);
        }
        Self { body, crc64: BASE64_STANDARD.encode(crc64.sum64().to_le_bytes()) }
    }

    /// Lets Azure check what arrives.
    pub(super) fn send_with<'p>(&self, put: Put<'p>) -> Put<'p> {
        match HeaderValue::from_str(&self.crc64) {
            Ok(crc64) => put.header(CRC64, crc64),
            // Base64 always is a header's value.
            Err(_) => put,
        }
    }

    /// Compares the body with what the answer says was stored.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when that is something else: it is to be sent again.
    pub(super) fn compare(&self, answer: &Answer) -> Result<()> {
        let same = match (answer.header(CRC64.as_str()), answer.header("content-md5")) {
            (Some(crc64), _) => crc64 == self.crc64,
            (None, Some(md5)) => md5 == self.md5(),
            (None, None) => true,
        };
        match same {
            true => Ok(()),
            false => Err(Error::new(
                ErrorKind::Unavailable,
                "the destination stored other bytes than it was sent (checksum)",
            )),
        }
    }

    /// Computed only for an answer that has nothing else: it costs thirty times what the CRC64 does.
    fn md5(&self) -> String {
        let mut md5 = Md5::new();
        for chunk in self.body {
            md5.update(chunk);
        }
        BASE64_STANDARD.encode(md5.finalize())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// CRC-64/NVME of "123456789" is ae8b14860a799888 (NVM Command Set Specification 1.0d, 5.2.1.3.4).
    #[test]
    fn the_checksum_is_that_of_the_whole_body() {
        let body = PutPayload::from_iter([&b"1234"[..], b"", b"56789"].map(bytes::Bytes::from_static));
        let sum = Checksum::of(&body);
        assert_eq!(sum.crc64, BASE64_STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_le_bytes()));
        assert_eq!(sum.md5(), "JfnnlDI7RTiF9RgfG2JNCw==");
    }
}
