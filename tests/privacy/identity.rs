//! The server's managed identity: its token is sent to the destination and disclosed nowhere.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use chrono::Utc;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider, AzureBlobSink};
use dicom_export::{
    BlobPath, BlobSink, DirectorySource, ExportDestination, ExportEngine, ExportSource, NewOperation,
    OperationId, OperationStatus,
};
use serde_json::{Value, json};

use crate::azurite::Azurite;
use crate::canary::{Canaries, all_of};
use crate::responder::{Reply, Responder};
use crate::{archive, log};

/// The signature of a token. Azurite validates the claims only.
const SIGNED: &str = "Y2FuYXJ5LWJlYXJlci10b2tlbi1zaWduYXR1cmU";

fn token() -> String {
    let now = Utc::now().timestamp();
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = json!({
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "iat": now - 60, "nbf": now - 60, "exp": now + 3600,
    });
    format!("{}.{}.{SIGNED}", part(json!({ "alg": "none", "typ": "JWT" })), part(claims))
}

fn canaries() -> Canaries {
    archive::canaries().with("the bearer token", SIGNED)
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_6_and_7_a_managed_identity_token_is_sent_to_the_destination_only() {
    log::start();
    let (azurite, root) = Azurite::with_tokens();
    let container = azurite.container().await;

    let expiry = (Utc::now().timestamp() + 3600).to_string();
    let response = json!({ "access_token": token(), "expires_on": expiry, "token_type": "Bearer" });
    let identities = Responder::start(move |_| Reply::status(200).body(&response)).await;
    let policy = AzureBlobPolicy::development()
        .with_root_certificate(root)
        .with_identity_endpoint(format!("{}/token", identities.url()));
    let archive = archive::folder(5);
    let engine = ExportEngine::builder(DirectorySource::open(archive.path()).unwrap())
        .destination("azureblob", AzureBlobProvider::new(policy.clone()))
        .build()
        .unwrap();
    let destination = ExportDestination::azure_blob_with_managed_identity(&container.url());
    let started = engine.start(NewOperation::new(ExportSource::Everything, destination)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 5), "{ended:?}");
    assert!(!identities.requests().is_empty());
    canaries().assert_absent("a status", format!("{ended:?}{}", serde_json::to_string(&ended).unwrap()));
    canaries().assert_absent("a policy's Debug", format!("{policy:?}{engine:?}"));
    log::assert_no_leak(&canaries(), &["dicom_export", "hyper_util", "reqwest"]);
}

/// The identity service returns the token in an invalid form, or fails and echoes it.
#[tokio::test]
async fn guarantee_6_an_invalid_token_response_is_not_quoted() {
    log::start();
    let replies = [
        Reply::status(200).body(token()),
        Reply::status(200).body(json!({ "access_token": token() })),
        Reply::status(200).body(json!({ "access_token": token(), "expires_on": token() })),
        Reply::status(200).body(json!({ "access_token": [token()], "expires_on": "1" })),
        Reply::status(200)
            .body(json!({ "access_token": format!("{}\n", token()), "expires_on": "99999999999" })),
        Reply::status(400).body(json!({ "error": token() })),
        Reply::status(500).body(token()).header("x-ms-error-code", token()),
        Reply::status(302).header("location", format!("http://127.0.0.1:1/{}", token())),
        Reply::Disconnect,
    ];
    for reply in replies {
        let identities = Responder::start(move |_| reply.clone()).await;
        let policy = AzureBlobPolicy::new().with_identity_endpoint(identities.url());
        let settings = json!({ "blobContainerUri": "https://account.blob.core.windows.net/container", "useManagedIdentity": true });
        let sink = AzureBlobSink::from_settings(&settings, &policy).unwrap();
        let error = sink.prepare(&BlobPath::error_log(OperationId::random())).await.unwrap_err();
        canaries().assert_absent("an error", all_of(&error));
        canaries().assert_absent("a sink's Debug", format!("{sink:?}"));
        assert!(!identities.requests().is_empty());
    }
    log::assert_no_leak(&canaries(), &["hyper_util", "reqwest"]);
}

#[tokio::test]
async fn guarantee_7_the_identity_is_sent_to_no_host_that_the_policy_does_not_list() {
    let identities = Responder::start(|_| Reply::status(500)).await;
    let destination = Responder::start(|_| Reply::status(201)).await;
    let policies = [AzureBlobPolicy::new(), AzureBlobPolicy::development()];
    for policy in policies.map(|policy| policy.with_identity_endpoint(identities.url())) {
        for uri in [
            "https://account.blob.core.windows.net.nobody.example/container",
            "https://nobody.example/container",
            "https://account.blob.core.windows.net:8443/container",
            "https://account-secondary.blob.core.windows.net/container",
            "http://account.blob.core.windows.net/container",
            "https://a.account.blob.core.windows.net/container",
            "https://account.blob.core.windows.net@nobody.example/container",
            "https://169.254.169.254/container",
            "https://127.0.0.1/devstoreaccount1/container",
            &format!("{}/devstoreaccount1/container", destination.url()),
        ] {
            let settings = json!({ "blobContainerUri": uri, "useManagedIdentity": true });
            let refused = AzureBlobSink::from_settings(&settings, &policy);
            assert!(refused.is_err(), "{uri}");
        }
    }
    assert!(identities.requests().is_empty() && destination.requests().is_empty());
    // For a listed host, a token is requested first; without one, nothing is sent.
    let policy = AzureBlobPolicy::new().with_identity_endpoint(identities.url());
    let settings = json!({ "blobContainerUri": "https://account.blob.core.windows.net/container", "useManagedIdentity": true });
    let sink = AzureBlobSink::from_settings(&settings, &policy).unwrap();
    let log = BlobPath::error_log(OperationId::random());
    let key = dicom_export::sink::LogKey::new(0, 0);
    assert!(sink.append(&log, key, Bytes::from("{}\n")).await.is_err());
    assert_eq!(identities.requests().len(), 1);
}
