//! [`Crc32c`]: the checksums of bodies in requests to Google Cloud Storage.

use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crc_fast::{CrcAlgorithm, Digest};
use http_body_util::BodyExt;
use object_store::client::HttpRequest;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::cloud::BodyChecksum;

/// The store verifies the checksums of a request, for an object as well as for a part, and returns those of what it has stored
/// ("Request headers" in "Upload a part" of the XML API). The value is a list: `crc32c=…,md5=…`.
const HASH: HeaderName = HeaderName::from_static("x-goog-hash");

const CRC32C: &str = "crc32c=";

/// The CRC32C. `object_store` sends none to Google Cloud Storage.
#[derive(Debug)]
pub(crate) struct Crc32c;

#[async_trait]
impl BodyChecksum for Crc32c {
    async fn sent(&self, request: &mut HttpRequest) -> Option<String> {
        if *request.method() != Method::PUT {
            return None;
        }
        let mut digest = Digest::new(CrcAlgorithm::Crc32Iscsi);
        // A clone shares the bytes, which are in memory.
        let mut body = request.body().clone();
        while let Some(frame) = body.frame().await {
            digest.update(frame.ok()?.data_ref()?);
        }
        let checksum = u32::try_from(digest.finalize()).ok()?;
        let checksum = BASE64_STANDARD.encode(checksum.to_be_bytes());
        let header = HeaderValue::try_from(format!("{CRC32C}{checksum}")).ok()?;
        request.headers_mut().insert(HASH, header);
        Some(checksum)
    }

    fn stored(&self, headers: &HeaderMap) -> Option<String> {
        let mut hashes = headers
            .get_all(HASH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        hashes.find_map(|hash| hash.trim().strip_prefix(CRC32C)).map(str::to_owned)
    }
}
