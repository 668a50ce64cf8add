//! [`Checksum`]: verifies that Azure stored the bytes that were sent.
//!
//! Each body is sent with its CRC64, so that Azure refuses a body that was damaged on the way. The response contains the
//! checksum of what was stored: the CRC64 for Put Block and Put Blob, on some servers only an MD5 ("Put Blob", "Put Block",
//! Azure Blob Storage REST API, version 2019-02-02 and later). A response without a checksum is not verified.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crc64fast_nvme::Digest;
use md5::Md5;
use md5::digest::Digest as _;
use object_store::PutPayload;
use reqwest::header::{HeaderName, HeaderValue};

use super::client::BlobRequest;
use super::response::Response;
use crate::error::{Error, ErrorKind, Result};

const CRC64: HeaderName = HeaderName::from_static("x-ms-content-crc64");

/// The checksum of a body: CRC-64/NVME, little endian, in base64.
pub(super) struct Checksum<'a> {
    body: &'a PutPayload,
    crc64: String,
}

impl<'a> Checksum<'a> {
    pub(super) fn new(body: &'a PutPayload) -> Self {
        let mut crc64 = Digest::new();
        for chunk in body {
            crc64.write(chunk);
        }
        Self { body, crc64: BASE64_STANDARD.encode(crc64.sum64().to_le_bytes()) }
    }

    /// Adds the checksum to a request, so that Azure verifies the body it receives.
    pub(super) fn add_to<'p>(&self, request: BlobRequest<'p>) -> BlobRequest<'p> {
        match HeaderValue::from_str(&self.crc64) {
            Ok(crc64) => request.header(CRC64, crc64),
            // Unreachable: base64 is a valid header value.
            Err(_) => request,
        }
    }

    /// Compares the checksum with that of the stored body.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if they differ: the request must be repeated.
    pub(super) fn verify(&self, response: &Response) -> Result<()> {
        let same = match (response.header(CRC64.as_str()), response.header("content-md5")) {
            (Some(crc64), _) => crc64 == self.crc64,
            (None, Some(md5)) => md5 == self.md5(),
            (None, None) => true,
        };
        match same {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Unavailable, "checksum mismatch at the destination")),
        }
    }

    /// Computed only if the response contains no CRC64, since it takes thirty times as long.
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
    fn checksums_cover_the_whole_body() {
        let body = PutPayload::from_iter([&b"1234"[..], b"", b"56789"].map(bytes::Bytes::from_static));
        let checksum = Checksum::new(&body);
        assert_eq!(checksum.crc64, BASE64_STANDARD.encode(0xae8b_1486_0a79_9888_u64.to_le_bytes()));
        assert_eq!(checksum.md5(), "JfnnlDI7RTiF9RgfG2JNCw==");
    }
}
