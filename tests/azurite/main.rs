//! The Azure sink on Azurite, and on a server with faults.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/azurite.rs"]
mod azurite;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/responder.rs"]
mod responder;

mod append;
mod connections;
mod copy;
mod faults;
mod identity;
mod immutable;
mod integrity;
mod lengths;
mod lost_responses;
mod outages;
mod proxies;
mod put;
mod refusals;
mod statuses;
mod tokens;

use std::time::Duration;

use bytes::Bytes;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobSink};
use dicom_export::{BlobPath, Error, InstanceIdentifier, OperationId, RetryPolicy, UploadContext};
use serde_json::json;

const MIB: usize = 1 << 20;

/// A sink for this container URI, with the development policy.
fn sink(uri: &str) -> AzureBlobSink {
    let settings = json!({ "blobContainerUri": uri });
    AzureBlobSink::from_settings(&settings, &AzureBlobPolicy::development()).unwrap()
}

/// A sink for a responder, with a SAS that it does not verify.
fn faulty(url: &str) -> AzureBlobSink {
    sink(&format!("{url}/devstoreaccount1/container?sv=2022-11-02&sp=w&sig={SIGNATURE}"))
}

/// Encoded as in a URI, and the part without escapes.
const SIGNATURE: &str = "c2VjcmV0LXNpZ25hdHVyZQ%3D%3D";
const SECRET: &str = "c2VjcmV0LXNpZ25hdHVyZQ";

fn instance() -> BlobPath {
    let identifier: InstanceIdentifier = "1.2.3/4.5.6/7.8.9".parse().unwrap();
    BlobPath::instance(OperationId::random(), &identifier)
}

fn log() -> BlobPath {
    BlobPath::error_log(OperationId::random())
}

fn upload(buffer_limit: usize) -> UploadContext {
    UploadContext::new(buffer_limit as u64, RetryPolicy::with_budget(Duration::from_secs(10)), 16)
}

/// Bytes of this length that depend on their position.
fn bytes(length: usize) -> Bytes {
    let words = (0..length.div_ceil(8)).flat_map(|word| (word as u64 * 0x9e37_79b9).to_le_bytes());
    words.take(length).collect()
}

/// Everything that can be printed of an error.
fn all_of(error: &Error) -> String {
    let mut text = format!("{error} {error:?}");
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text.push_str(&format!(" {cause} {cause:?}"));
        next = cause.source();
    }
    text
}
