//! Tokens of the server's identity.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use chrono::Utc;
use dicom_export::sink::LogKey;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobSink, Identity};
use dicom_export::{BlobSink, Content, ErrorKind};
use serde_json::json;

use crate::azurite::Azurite;
use crate::responder::{Reply, Responder};
use crate::{MIB, all_of, bytes, instance, log, upload};

/// A token of this age in seconds. Azurite verifies the claims only, and accepts a token for an hour.
pub(crate) fn token(age: i64) -> String {
    let now = Utc::now().timestamp() - age;
    let part = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "iat": now - 60, "nbf": now - 60, "exp": now + 3600,
    });
    format!("{}.{}.c2ln", part(json!({ "alg": "none", "typ": "JWT" })), part(claims))
}

/// A response of an identity service.
pub(crate) fn token_response(token: String) -> Reply {
    let expiry = (Utc::now().timestamp() + 3600).to_string();
    let response = json!({ "access_token": token, "expires_on": expiry, "token_type": "Bearer" });
    Reply::status(200).header("content-type", "application/json").body(response)
}

async fn identity_service() -> Responder {
    Responder::start(|_| token_response(token(0))).await
}

fn sink(container: &str, policy: &AzureBlobPolicy) -> AzureBlobSink {
    let settings = json!({ "blobContainerUri": container, "useManagedIdentity": true });
    AzureBlobSink::from_settings(&settings, policy).unwrap()
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn managed_identity_writes_logs_and_instances() {
    let (azurite, root) = Azurite::with_tokens();

    let identities = identity_service().await;
    let policy = AzureBlobPolicy::development()
        .with_root_certificate(root)
        .with_identity(Identity::UserAssigned { client_id: "the-client".into() })
        .with_identity_endpoint(format!("{}/token", identities.url()));
    let container = azurite.container().await;
    let (sink, log) = (sink(&container.url(), &policy), log());
    sink.prepare(&log).await.unwrap();
    sink.append(&log, LogKey::new(0, 0), Bytes::from("{}\n")).await.unwrap();
    assert_eq!(container.get(log.as_str()).await.unwrap().bytes, "{}\n");
    for length in [10, 9 * MIB] {
        let path = instance();
        sink.put(&path, Content::from_bytes(bytes(length)), &upload(32 * MIB)).await.unwrap();
        assert!(container.get(path.as_str()).await.unwrap().bytes == bytes(length));
    }
    // Requested once, and cached.
    let [request] = &identities.requests()[..] else { panic!("not exactly one token request") };
    assert_eq!((&*request.path, request.header("metadata")), ("/token", Some("true")));
    assert_eq!(request.query["client_id"], "the-client");
}

/// The destination is not reachable here, so a request to it would be `Unavailable`.
#[tokio::test]
async fn guarantee_7_nothing_is_sent_without_a_token() {
    let cases = [
        (400, ErrorKind::Unauthorized),
        (403, ErrorKind::Unauthorized),
        (404, ErrorKind::Unavailable),
        (429, ErrorKind::Throttled),
        (500, ErrorKind::Unavailable),
        (302, ErrorKind::Unsupported),
    ];
    let elsewhere = identity_service().await;
    for (status, kind) in cases {
        let target = elsewhere.url();
        let identities = Responder::start(move |_| {
            Reply::status(status).header("location", &target).header("retry-after", 7).body("a secret")
        });
        let identities = identities.await;
        let policy = AzureBlobPolicy::new().with_identity_endpoint(identities.url());
        let sink = sink("https://account.blob.core.windows.net/container", &policy);
        let error = sink.prepare(&log()).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
        assert!(error.message().contains(&format!("({status})")), "{error}");
        assert_eq!(error.retry_after().is_some(), kind.is_transient());
        assert!(!all_of(&error).contains("secret"));
        assert_eq!(identities.requests().len(), 1, "only the engine retries");
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn invalid_token_is_not_sent() {
    for body in ["{}", "no JSON: a secret", r#"{"access_token":"a\nsecret","expires_on":"99999999999"}"#] {
        let identities = Responder::start(move |_| Reply::status(200).body(body)).await;
        let policy = AzureBlobPolicy::new().with_identity_endpoint(identities.url());
        let sink = sink("https://account.blob.core.windows.net/container", &policy);
        let error = sink.prepare(&log()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(!all_of(&error).contains("secret"), "{}", all_of(&error));
    }
}

#[tokio::test]
async fn unreachable_identity_service_is_unavailable() {
    let gone = identity_service().await.url();
    let policy = AzureBlobPolicy::new().with_identity_endpoint(gone);
    let sink = sink("https://account.blob.core.windows.net/container", &policy);
    assert_eq!(sink.prepare(&log()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}
