//! Proxies from the environment: only https requests use them, through a tunnel.
//!
//! The environment of a process cannot be changed safely while other threads read it, so each test starts its own binary
//! again with the variables set.

use dicom_export::source::{DicomWebCredentials, Instance};
use dicom_export::testing::fixtures;
use dicom_export::{DicomWebSource, ErrorKind, InstanceSource};

use crate::server::{Quirks, Reply, Server};
use crate::{archive, read, server};

/// Holds the service root in the second process.
const ROOT: &str = "DICOM_EXPORT_TEST_SERVICE_ROOT";

/// The service root if this is the second process. Otherwise runs the test there, with this proxy for everything.
async fn service_root(test: &str, root: &str, proxy: &Server) -> Option<String> {
    if let Ok(root) = std::env::var(ROOT) {
        return Some(root);
    }
    let proxy = format!("http://127.0.0.1:{}", proxy.port());
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(ROOT, root).env_remove("REQUEST_METHOD");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env(name, &proxy).env(name.to_lowercase(), &proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    let output = command.output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    None
}

fn source(root: &str) -> DicomWebSource {
    let credentials = DicomWebCredentials::basic("exporter", "secret");
    DicomWebSource::builder(root).credentials(credentials).header("x-key", "secret").build().unwrap()
}

/// A proxy for http would receive the credentials and the instances in the clear.
#[tokio::test]
async fn guarantee_6_http_requests_use_no_proxy() {
    let archive = archive();
    let proxy = server(&archive, Quirks::default(), |_| Some(Reply::html())).await;
    let pacs = server(&archive, Quirks::default(), |_| None).await;
    let test = "proxies::guarantee_6_http_requests_use_no_proxy";
    let instance = Instance::new(fixtures::instance(1, 1, 1));
    if let Some(root) = service_root(test, &pacs.root(), &proxy).await {
        read(&source(&root), &instance).await.unwrap();
        return;
    }
    assert_eq!(pacs.requests().len(), 1);
    assert!(proxy.requests().is_empty(), "{:?}", proxy.requests());
}

#[tokio::test]
async fn guarantee_6_https_requests_use_a_tunnel_through_the_proxy() {
    let archive = archive();
    let proxy = server(&archive, Quirks::default(), |_| Some(Reply::new(502))).await;
    let test = "proxies::guarantee_6_https_requests_use_a_tunnel_through_the_proxy";
    let instance = Instance::new(fixtures::instance(1, 1, 1));
    if let Some(root) = service_root(test, "https://pacs.example/dicom-web", &proxy).await {
        let error = source(&root).open(&instance).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        return;
    }
    let requests = proxy.requests();
    // The target of CONNECT.
    assert_eq!(requests.iter().map(|request| &*request.path).collect::<Vec<_>>(), ["pacs.example:443"]);
    let printed = format!("{:?}", requests[0].headers);
    assert!(!printed.contains("secret") && !printed.contains("authorization"), "{printed}");
}
