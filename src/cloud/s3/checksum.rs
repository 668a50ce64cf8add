//! [`Crc64Nvme`]: the checksums of bodies in requests to S3.

use async_trait::async_trait;
use object_store::client::HttpRequest;
use reqwest::header::{HeaderMap, HeaderName};

use crate::cloud::BodyChecksum;

/// The store verifies the checksum of a request and repeats it in the response ("Checking object integrity for data uploads in
/// Amazon S3").
const CHECKSUM: HeaderName = HeaderName::from_static("x-amz-checksum-crc64nvme");

/// The CRC64-NVME, which `object_store` computes.
#[derive(Debug)]
pub(crate) struct Crc64Nvme;

#[async_trait]
impl BodyChecksum for Crc64Nvme {
    async fn sent(&self, request: &mut HttpRequest) -> Option<String> {
        self.stored(request.headers())
    }

    fn stored(&self, headers: &HeaderMap) -> Option<String> {
        headers.get(CHECKSUM)?.to_str().ok().map(str::to_owned)
    }
}
