//! The statuses of a store's responses, in requests of the source and the sink.

use std::sync::Arc;

use bytes::Bytes;
use dicom_export::source::{Instance, ListRequest, Scope};
use dicom_export::testing::fixtures;
use dicom_export::{
    BlobPath, BlobSink, Content, ErrorKind, InstanceSource, ObjectStoreSink, ObjectStoreSource, OperationId,
    RetryPolicy, UploadContext,
};
use object_store::aws::AmazonS3Builder;
use object_store::{ClientOptions, ObjectStore, RetryConfig};

use crate::responder::{Reply, Responder};

/// An S3 client without retries of its own.
pub(crate) fn s3_store(server: &Responder) -> Arc<dyn ObjectStore> {
    let store = AmazonS3Builder::new()
        .with_endpoint(server.url())
        .with_bucket_name("bucket")
        .with_access_key_id("AKIDCANARY")
        .with_secret_access_key("secret canary")
        .with_client_options(ClientOptions::new().with_allow_http(true))
        .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
    Arc::new(store.build().unwrap())
}

/// Every request fails with this status and body: its kind, for each call of the source and the sink.
async fn kinds(status: u16, body: &'static str) -> Vec<(&'static str, ErrorKind)> {
    let server = Responder::start(move |_| Reply::status(status).body(body)).await;
    let (source, sink) =
        (ObjectStoreSource::new(s3_store(&server)), ObjectStoreSink::new(s3_store(&server), &server.url()));
    let id = OperationId::random();
    let (log, path) = (BlobPath::error_log(id), BlobPath::instance(id, &fixtures::instance(1, 1, 1)));
    let upload = UploadContext::new(32 << 20, RetryPolicy::none(), 8);
    let instance = Instance::new(fixtures::instance(1, 1, 1));
    let large = Content::from_bytes(Bytes::from(vec![0; 11 << 20]));
    let errors = [
        ("list", source.list(ListRequest::new(Scope::Everything, None, 10)).await.err()),
        ("open", source.open(&instance).await.err()),
        ("prepare", sink.prepare(&log).await.err()),
        ("put", sink.put(&path, Content::from_bytes(&b"small"[..]), &upload).await.err()),
        ("put in parts", sink.put(&path, large, &upload).await.err()),
        ("finish", sink.finish(&log).await.err()),
    ];
    errors
        .into_iter()
        .map(|(call, error)| {
            let error = error.unwrap_or_else(|| panic!("{call} succeeds with {status}"));
            let (mut text, mut cause) = (String::new(), Some(&error as &dyn std::error::Error));
            while let Some(error) = cause {
                text.push_str(&format!("{error} {error:?} "));
                cause = error.source();
            }
            for secret in ["CANARY", "canary", "127.0.0.1"] {
                assert!(!text.contains(secret), "the error of {call} contains a secret or a URL: {text}");
            }
            (call, error.kind())
        })
        .collect()
}

/// A list that is refused was retried for ten minutes, after everything had been exported.
#[tokio::test]
async fn statuses_are_recognized_in_all_requests() {
    for (status, body, expected) in [
        (401, "", ErrorKind::Unauthorized),
        (
            403,
            "<Error><Code>AccessDenied</Code><AWSAccessKeyId>AKIDCANARY</AWSAccessKeyId></Error>",
            ErrorKind::Unauthorized,
        ),
        (400, "<Error><Code>ExpiredToken</Code></Error>", ErrorKind::Unauthorized),
        (404, "<Error><Code>NoSuchBucket</Code></Error>", ErrorKind::NotFound),
        (429, "", ErrorKind::Throttled),
        (503, "<Error><Code>SlowDown</Code></Error>", ErrorKind::Throttled),
        (503, "", ErrorKind::Unavailable),
        (500, "", ErrorKind::Unavailable),
        (400, "<Error><Code>RequestTimeout</Code></Error>", ErrorKind::Unavailable),
        (400, "<Error><Code>InvalidRequest</Code></Error>", ErrorKind::Invalid),
        (301, "", ErrorKind::Invalid),
    ] {
        for (call, kind) in kinds(status, body).await {
            assert_eq!(kind, expected, "{call} with {status} {body}");
        }
    }
}
