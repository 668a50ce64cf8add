//! The server's own identity.

use std::sync::Arc;

use dicom_export::object_store::StaticCredentialProvider;
use dicom_export::object_store::aws::AwsCredential;
use dicom_export::sink::s3::{BucketAddressing, S3Policy};
use dicom_export::{BlobSink, ErrorKind, ObjectStoreSink};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use crate::responder::{Reply, Responder};
use crate::{all_of, log};

/// A sink for a server without TLS at an https endpoint, which no request can reach.
fn sink(server: &Responder, policy: S3Policy) -> ObjectStoreSink {
    let certificate = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let pem = certificate.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
    let endpoint = server.url().replace("http://", "https://");
    let policy = policy.allow_endpoint(&endpoint, BucketAddressing::Path).unwrap().with_root_certificate(pem);
    let settings = json!({ "bucket": "bucket", "endpoint": endpoint, "useInstanceIdentity": true });
    ObjectStoreSink::open_s3(&settings, &policy).unwrap()
}

#[tokio::test]
async fn guarantee_7_nothing_is_sent_without_credentials() {
    let cases = [
        (400, ErrorKind::Unauthorized),
        (403, ErrorKind::Unauthorized),
        (404, ErrorKind::Unauthorized),
        (429, ErrorKind::Throttled),
        (500, ErrorKind::Unavailable),
        (302, ErrorKind::Unsupported),
    ];
    let elsewhere = Responder::start(|_| Reply::status(200)).await;
    for (status, kind) in cases {
        let target = elsewhere.url();
        let metadata = Responder::start(move |_| {
            Reply::status(status).header("location", &target).header("retry-after", 7).body("a secret")
        })
        .await;
        let store = Responder::start(|_| Reply::status(200)).await;
        let sink = sink(&store, S3Policy::new().with_metadata_endpoint(metadata.url()));
        let error = sink.prepare(&log()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert!(error.message().contains(&format!("({status})")), "{error}");
        assert_eq!(error.retry_after().is_some(), kind.is_transient());
        assert!(!all_of(&error).contains("secret"));
        assert_eq!(store.connections(), 0);
    }
    assert!(elsewhere.requests().is_empty());
}

/// object_store panics on credentials that cannot be part of a header.
#[tokio::test]
async fn guarantee_6_invalid_credentials_of_the_metadata_service_are_not_quoted() {
    let credentials = json!({
        "AccessKeyId": "ASIAEXAMPLE",
        "SecretAccessKey": "secret-key",
        "Token": "secret\ntoken",
        "Expiration": "2999-01-01T00:00:00Z",
    });
    let metadata = Responder::start(move |request| match request.path.as_str() {
        "/latest/api/token" => Reply::status(200).body("session"),
        "/latest/meta-data/iam/security-credentials/" => Reply::status(200).body("role"),
        _ => Reply::status(200).body(credentials.to_string()),
    })
    .await;
    let store = Responder::start(|_| Reply::status(200)).await;
    let sink = sink(&store, S3Policy::new().with_metadata_endpoint(metadata.url()));
    let error = sink.prepare(&log()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(error.message(), "the identity service returned invalid credentials");
    assert!(!all_of(&error).contains("secret"));
    assert_eq!(store.connections(), 0);
    // Version 2 of the service: the requests have the token of a session.
    let requests = metadata.requests();
    assert!(
        requests[1..].iter().all(|request| request.header("x-aws-ec2-metadata-token") == Some("session"))
    );
}

/// A server without a certificate receives nothing, also if the host provides the credentials.
#[tokio::test]
async fn guarantee_7_identity_is_not_sent_without_tls() {
    let credential = AwsCredential {
        key_id: "key".to_owned(),
        secret_key: "secret-key".to_owned(),
        token: Some("secret-token".to_owned()),
    };
    let store = Responder::start(|_| Reply::status(200)).await;
    let identity = Arc::new(StaticCredentialProvider::new(credential));
    let error = sink(&store, S3Policy::new().with_identity(identity)).prepare(&log()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!all_of(&error).contains("secret"));
    assert!(store.requests().is_empty());
}
