//! The S3 sink and source on moto and s3s-fs, and on a server with faults.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/port.rs"]
mod port;
#[path = "../support/process.rs"]
mod process;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/real_archive.rs"]
mod real_archive;
#[path = "../support/responder.rs"]
mod responder;
#[path = "../support/s3.rs"]
mod s3;

mod bounds;
mod identity;
mod kills;
mod outages;
mod permissions;
mod put;
mod responses;
mod settings;
mod source;

use std::time::Duration;

use bytes::Bytes;
use dicom_export::sink::s3::S3Policy;
use dicom_export::{
    BlobPath, Error, InstanceIdentifier, ObjectStoreSink, OperationId, RetryPolicy, UploadContext,
};
use serde_json::{Value, json};

use crate::responder::Responder;

const MIB: usize = 1 << 20;

/// A sink with these settings and the development policy.
fn sink(settings: &Value) -> ObjectStoreSink {
    ObjectStoreSink::open_s3(settings, &S3Policy::development()).unwrap()
}

/// A sink for a responder, with a key that it does not verify.
fn sink_at(server: &Responder) -> ObjectStoreSink {
    sink(&json!({
        "bucket": "bucket",
        "endpoint": server.url(),
        "accessKeyId": "key",
        "secretAccessKey": SECRET,
        "sessionToken": TOKEN,
    }))
}

const SECRET: &str = "very/secret+key";
const TOKEN: &str = "session-token-of-the-test";

fn instance() -> BlobPath {
    let identifier: InstanceIdentifier = "1.2.3/4.5.6/7.8.9".parse().unwrap();
    BlobPath::instance(OperationId::random(), &identifier)
}

fn log() -> BlobPath {
    BlobPath::error_log(OperationId::random())
}

fn upload(buffer_limit: usize) -> UploadContext {
    let retry =
        RetryPolicy::with_budget(Duration::from_secs(10)).with_initial_backoff(Duration::from_millis(10));
    UploadContext::new(buffer_limit as u64, retry, 16)
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
