//! The checksums in responses.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::http::HeaderValue;
use md5::Md5;
use md5::digest::Digest;

use crate::server::Reply;

/// The requested checksums of a body, computed while it arrives.
pub struct Checksums {
    crc64: Option<crc64fast_nvme::Digest>,
    md5: Option<Md5>,
}

impl Checksums {
    pub fn new(crc64: bool, md5: bool) -> Self {
        Self { crc64: crc64.then(crc64fast_nvme::Digest::new), md5: md5.then(Md5::new) }
    }

    pub fn add(&mut self, data: &[u8]) {
        if let Some(crc64) = &mut self.crc64 {
            crc64.write(data);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(data);
        }
    }

    /// Adds the checksums to the headers of a response.
    pub fn apply(self, mut reply: Reply) -> Reply {
        let crc64 = self.crc64.map(|crc64| ("x-ms-content-crc64", crc64.sum64().to_le_bytes().to_vec()));
        let md5 = self.md5.map(|md5| ("content-md5", md5.finalize().to_vec()));
        for (name, sum) in crc64.into_iter().chain(md5) {
            if let Ok(value) = HeaderValue::from_str(&BASE64_STANDARD.encode(sum)) {
                reply.headers_mut().insert(name, value);
            }
        }
        reply
    }
}
