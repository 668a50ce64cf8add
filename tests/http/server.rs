//! The example server: a folder of DICOM files, exported to a real container.

#[path = "../../examples/server.rs"]
#[allow(dead_code, unreachable_pub, clippy::print_stderr, reason = "it is an example")]
pub(crate) mod example;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use dicom_export::ErrorLogEntry;
use dicom_export::http::BaseUrl;
use dicom_export::testing::fixtures;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::azurite::{ACCOUNT, Azurite};
use crate::support::{DOCUMENT, Server};

/// Three studies with different numbers of series.
fn nine_instances() -> BTreeMap<String, Bytes> {
    let numbers =
        [(1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1), (2, 1, 2), (2, 1, 3), (3, 1, 1), (3, 1, 2), (3, 1, 3)];
    numbers
        .into_iter()
        .map(|(study, series, sop)| {
            (fixtures::instance(study, series, sop).to_string(), fixtures::ct_slice(study, series, sop))
        })
        .collect()
}

/// The instances as a study, a series and instances, and an unknown one of each.
fn requested() -> (Vec<String>, Vec<String>) {
    let known = [
        fixtures::study_identifier(1).to_string(),
        fixtures::series_identifier(2, 1).to_string(),
        fixtures::instance(3, 1, 1).to_string(),
        fixtures::instance(3, 1, 2).to_string(),
        fixtures::instance(3, 1, 3).to_string(),
    ];
    let unknown = [
        fixtures::study_identifier(9).to_string(),
        fixtures::series_identifier(2, 9).to_string(),
        fixtures::instance(3, 1, 9).to_string(),
    ];
    let mut unknown = unknown.to_vec();
    let requested = known.iter().chain(&unknown).cloned().collect();
    unknown.sort();
    (requested, unknown)
}

struct Running {
    server: Server,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), String>>,
}

async fn run(source: &Path, base_url: BaseUrl) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listen = listener.local_addr().unwrap();
    let settings = example::Settings {
        source: source.to_owned(),
        listen,
        state: None,
        postgres: None,
        development: true,
        base_url,
        restate: None,
        events: None,
        metrics: false,
    };
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(async move {
        let stopped = async { _ = stopped.await };
        example::serve(settings, listener, stopped).await.map_err(|error| error.to_string())
    });
    let server = Server::at(format!("http://{listen}"));
    Running { server, stop, task }
}

#[tokio::test]
async fn the_example_serves_the_document_health_and_problems_and_stops() {
    let folder = tempfile::tempdir().unwrap();
    let Running { server, stop, task } = run(folder.path(), BaseUrl::Request).await;
    let get = |path: &str| server.client.get(format!("{}{path}", server.url)).send();
    assert_eq!(get("/openapi.json").await.unwrap().json::<Value>().await.unwrap(), *DOCUMENT);
    let health = get("/healthz").await.unwrap();
    assert_eq!((health.status(), health.text().await.unwrap().as_str()), (StatusCode::OK, "ok"));
    let nothing = get("/").await.unwrap();
    assert_eq!(
        (nothing.status(), &nothing.headers()["content-type"]),
        (StatusCode::NOT_FOUND, &"application/problem+json".parse().unwrap())
    );
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
    assert!(get("/healthz").await.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_send_a_head_is_disconnected() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = axum::Router::new().route("/", axum::routing::get(async || "ok"));
    let serving =
        example::serve::serve_with(listener, app, std::future::pending(), Duration::from_millis(200));
    let serving = tokio::spawn(serving);
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    let mut response = [0; 15];
    client.read_exact(&mut response).await.unwrap();
    assert_eq!(&response, b"HTTP/1.1 200 OK");
    client.write_all(b"GET / HTTP/1.1\r\nHost: ").await.unwrap();
    // The server closes the connection.
    client.read_to_end(&mut Vec::new()).await.unwrap();
    serving.abort();
}

#[tokio::test]
async fn a_missing_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let Running { task, .. } = run(&missing, BaseUrl::Request).await;
    assert_eq!(task.await.unwrap().unwrap_err(), "the source's folder does not exist");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Azurite: tests/run.sh"]
async fn the_reference_case_under_all_three_routes() {
    let folder = tempfile::tempdir().unwrap();
    let instances = nine_instances();
    for (nth, bytes) in instances.values().enumerate() {
        std::fs::write(folder.path().join(format!("{nth}.dcm")), bytes).unwrap();
    }
    let Running { server, stop, task } = run(folder.path(), BaseUrl::Request).await;
    let (identifiers, unknown) = requested();
    let container = Azurite::shared().container().await;
    // A SAS with write permission only is sufficient.
    let by_uri = json!({ "blobContainerUri": container.sas_url("w") });
    let (endpoint, name) =
        container.url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    let by_connection = json!({
        "connectionString": format!("DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={};BlobEndpoint={endpoint}", crate::azurite::KEY),
        "blobContainerName": name,
    });
    for (prefix, completed, settings) in
        [("", "completed", &by_uri), ("/v1", "completed", &by_connection), ("/v2", "succeeded", &by_uri)]
    {
        let body = json!({
            "source": { "type": "identifiers", "settings": { "values": identifiers } },
            "destination": { "type": "azureblob", "settings": settings },
        });
        let started = server.post(&format!("{prefix}/export"), &body).await;
        assert_eq!(started.status, StatusCode::ACCEPTED, "{started:?}");
        let id = started.body["id"].as_str().unwrap();
        let log = format!("{id}/errors.log");
        assert!(container.get(&log).await.is_some(), "errors.log does not exist when the export is accepted");
        let ended = server.wait(started.body["href"].as_str().unwrap()).await;
        assert_eq!(ended["status"], completed, "{ended}");
        let href = format!("{}/{log}", container.url());
        assert_eq!(ended["results"], json!({ "errorHref": href, "exported": 9, "skipped": 3 }));
        for (identifier, bytes) in &instances {
            let blob = container.get(&format!("{id}/results/{identifier}.dcm")).await.expect("the instance");
            assert_eq!((&blob.bytes, blob.content_type.as_str()), (bytes, "application/dicom"));
        }
        let log = container.get(&log).await.unwrap().bytes;
        let lines = std::str::from_utf8(&log).unwrap().lines();
        let mut logged: Vec<_> = lines
            .map(|line| serde_json::from_str::<ErrorLogEntry>(line).unwrap().identifier().to_owned())
            .collect();
        logged.sort();
        assert_eq!(logged, unknown);
    }
    stop.send(()).unwrap();
    task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Azurite: tests/run.sh"]
async fn a_container_that_cannot_be_written_is_400() {
    let folder = tempfile::tempdir().unwrap();
    let Running { server, stop: _stop, task: _ } = run(folder.path(), BaseUrl::Request).await;
    let (missing, container) = (Azurite::shared().missing_container(), Azurite::shared().container().await);
    let expired = container.sas_url_until("w", chrono::Utc::now() - chrono::TimeDelta::hours(1));
    for uri in [missing.sas_url("w"), container.sas_url("r"), expired] {
        let signature = uri.split("sig=").nth(1).unwrap();
        let body = json!({ "destination": { "type": "azureblob", "settings": { "blobContainerUri": uri } } });
        let response =
            tokio::time::timeout(Duration::from_secs(20), server.post("/v1/export", &body)).await.unwrap();
        assert!(
            response.assert_problem_at(400, "/destination").starts_with("the destination cannot be used: ")
        );
        assert!(!response.body.to_string().contains(signature));
    }
}
