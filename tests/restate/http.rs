//! The HTTP API on Restate, as the example server provides it.

#[path = "../../examples/server.rs"]
#[allow(dead_code, unreachable_pub, clippy::print_stderr, reason = "it is an example")]
mod example;

use dicom_export::http::BaseUrl;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::archive::Archive;
use crate::azurite::{ACCOUNT, Azurite, KEY};
use crate::cluster::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn the_api_responds_as_with_the_engine_in_one_process() {
    let archive = Archive::new(100);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let cluster = Cluster::new(archive.root(), 1, &[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let settings = example::Settings {
        source: archive.root().to_owned(),
        listen: listener.local_addr().unwrap(),
        state: None,
        postgres: None,
        development: true,
        base_url: BaseUrl::Request,
        restate: Some((cluster.restate.ingress.clone(), cluster.restate.admin.clone())),
        events: None,
        metrics: false,
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let stopped = async { _ = stopped.await };
        example::serve(settings, listener, stopped).await.map_err(|error| error.to_string())
    });
    let http = reqwest::Client::new();
    let settings = |container: &str| {
        json!({
            "connectionString": format!(
                "BlobEndpoint=http://127.0.0.1:{}/{ACCOUNT};AccountName={ACCOUNT};AccountKey={KEY}",
                azurite.port(),
            ),
            "blobContainerName": container,
        })
    };
    let body = |container: &str| {
        let study = dicom_export::testing::fixtures::study_identifier(1);
        json!({
            "source": { "type": "identifiers", "settings": { "values": [study, "1.2.3.99"] } },
            "destination": { "type": "azureblob", "settings": settings(container) },
        })
    };

    let mut ids = Vec::new();
    for version in ["/v1", "/v2"] {
        let response =
            http.post(format!("{base}{version}/export")).json(&body(container.name())).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let accepted: Value = response.json().await.unwrap();
        assert_eq!(accepted["href"], location);
        let document = loop {
            let response = http.get(&location).send().await.unwrap();
            let status = response.status();
            let document: Value = response.json().await.unwrap();
            match status {
                StatusCode::ACCEPTED => {
                    assert!(["notStarted", "running"].contains(&document["status"].as_str().unwrap()))
                }
                StatusCode::OK => break document,
                other => panic!("{other}: {document}"),
            }
        };
        let completed = if version == "/v1" { "completed" } else { "succeeded" };
        assert_eq!(document["status"], completed, "{document}");
        assert_eq!(document["percentComplete"], 100, "{document}");
        let id = accepted["id"].as_str().unwrap().to_owned();
        let expected = json!({
            "errorHref": format!("{}/{id}/errors.log", container.url()), "exported": 50, "skipped": 1,
        });
        assert_eq!(document["results"], expected);
        ids.push(id);
    }
    // Newest first.
    let list: Value = http.get(format!("{base}/v1/operations")).send().await.unwrap().json().await.unwrap();
    let listed: Vec<_> = list["operations"]
        .as_array()
        .unwrap_or_else(|| panic!("{list}"))
        .iter()
        .map(|operation| operation["operationId"].as_str().unwrap().to_owned())
        .collect();
    ids.reverse();
    assert_eq!(listed, ids);

    let unknown = format!("{base}/v1/operations/{}", "0".repeat(32));
    assert_eq!(http.get(&unknown).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(http.delete(&unknown).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let ended = format!("{base}/v1/operations/{}", ids[0]);
    assert_eq!(http.delete(&ended).send().await.unwrap().status(), StatusCode::CONFLICT);
    let response =
        http.post(format!("{base}/v1/export")).json(&body("no-such-container")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let problem: Value = response.json().await.unwrap();
    assert!(problem["detail"].as_str().unwrap().contains("destination"), "{problem}");
    stop.send(()).unwrap();
    serving.await.unwrap().unwrap();
}
