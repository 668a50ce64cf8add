//! Proxies from the environment: only https requests use them, through a tunnel.
//!
//! The environment of a process cannot be changed safely while other threads read it, so each test starts its own binary
//! again with the variables set.

use std::process::Stdio;

use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobSink, Identity};
use dicom_export::{BlobSink, ErrorKind};
use serde_json::json;

use crate::responder::{Reply, Responder};
use crate::{SIGNATURE, faulty, log};

/// Holds the URL of the destination, or of the identity service, in the second process.
const TARGET: &str = "DICOM_EXPORT_TEST_TARGET";

/// The target if this is the second process. Otherwise runs the test there, with this proxy for everything.
async fn target(test: &str, target: &str, proxy: &Responder) -> Option<String> {
    if let Ok(target) = std::env::var(TARGET) {
        return Some(target);
    }
    let proxy = proxy.url();
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(TARGET, target).env_remove("REQUEST_METHOD");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, &proxy).env(name.to_lowercase(), &proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    None
}

/// A SAS is part of the URL, which a proxy for http receives in the clear.
#[tokio::test]
async fn guarantee_6_http_requests_use_no_proxy() {
    let proxy = Responder::start(|_| Reply::status(201)).await;
    let server = Responder::start(|_| Reply::status(201)).await;
    let test = "proxies::guarantee_6_http_requests_use_no_proxy";
    if let Some(target) = target(test, &server.url(), &proxy).await {
        faulty(&target).prepare(&log()).await.unwrap();
        return;
    }
    assert_eq!(server.requests().len(), 1);
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
}

#[tokio::test]
async fn guarantee_6_https_requests_use_a_tunnel_through_the_proxy() {
    let proxy = Responder::start(|_| Reply::status(502)).await;
    let test = "proxies::guarantee_6_https_requests_use_a_tunnel_through_the_proxy";
    if target(test, "", &proxy).await.is_some() {
        for policy in [AzureBlobPolicy::new(), AzureBlobPolicy::development()] {
            let uri =
                format!("https://account.blob.core.windows.net/container?sv=2022-11-02&sig={SIGNATURE}");
            let sink = AzureBlobSink::from_settings(&json!({ "blobContainerUri": uri }), &policy).unwrap();
            assert_eq!(sink.prepare(&log()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        }
        return;
    }
    assert_eq!(proxy.requests().len(), 2);
    for request in proxy.requests() {
        // The target of CONNECT.
        assert_eq!(request.path, "account.blob.core.windows.net:443");
        assert!(request.query.is_empty() && request.body.is_empty());
        let printed = format!("{:?}", request.headers);
        assert!(!printed.contains("c2VjcmV0") && !printed.contains("authorization"), "{printed}");
    }
}

/// The metadata service is link-local, and its tokens are sent in the clear.
#[tokio::test]
async fn guarantee_7_tokens_are_requested_without_a_proxy() {
    let proxy = Responder::start(|_| Reply::status(502)).await;
    let token = json!({ "access_token": "secret-token", "expires_in": 3600 });
    let identities = Responder::start(move |_| Reply::status(200).body(&token)).await;
    let test = "proxies::guarantee_7_tokens_are_requested_without_a_proxy";
    if let Some(target) = target(test, &identities.url(), &proxy).await {
        let policy = AzureBlobPolicy::development().with_identity_endpoint(target);
        let uri = "https://account.blob.core.windows.net/container";
        let settings = json!({ "blobContainerUri": uri, "useManagedIdentity": true });
        let sink = AzureBlobSink::from_settings(&settings, &policy).unwrap();
        assert_eq!(sink.prepare(&log()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        return;
    }
    assert_eq!(identities.requests().len(), 1);
    let requests = proxy.requests();
    assert_eq!(requests.iter().map(|r| &*r.path).collect::<Vec<_>>(), ["account.blob.core.windows.net:443"]);
    assert!(!format!("{requests:?}").contains("secret-token"));
}

/// The federated token and the token of Entra ID are as secret as a SAS.
#[tokio::test]
async fn guarantee_7_federated_token_is_exchanged_without_a_proxy_for_http() {
    let proxy = Responder::start(|_| Reply::status(502)).await;
    let identities = Responder::start(|_| Reply::status(200)).await;
    let test = "proxies::guarantee_7_federated_token_is_exchanged_without_a_proxy_for_http";
    if let Some(target) = target(test, &identities.url(), &proxy).await {
        let folder = tempfile::tempdir().unwrap();
        let token_file = folder.path().join("token");
        std::fs::write(&token_file, "secret-token").unwrap();
        let policy =
            AzureBlobPolicy::development().with_authority_host(target).with_identity(Identity::Workload {
                tenant_id: "tenant".into(),
                client_id: "client".into(),
                token_file,
            });
        let uri = "https://account.blob.core.windows.net/container";
        let settings = json!({ "blobContainerUri": uri, "useManagedIdentity": true });
        let sink = AzureBlobSink::from_settings(&settings, &policy).unwrap();
        assert_eq!(sink.prepare(&log()).await.unwrap_err().kind(), ErrorKind::Unavailable);
        return;
    }
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
}
