//! Pausing, canceling by POST, and limiting an operation.

use std::time::Duration;

use dicom_export::ExportEngine;
use dicom_export::http::HttpOptions;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{GatedSink, Response, Server, archive, engine, export_everything};

async fn serve(sink: &GatedSink) -> (ExportEngine, Server) {
    let engine = engine(archive(3), sink.clone());
    let server = Server::start(&engine, HttpOptions::new()).await;
    (engine, server)
}

async fn post(server: &Server, path: &str) -> Response {
    server.send(server.request(Method::POST, path)).await
}

async fn patch(server: &Server, path: &str, body: &Value) -> Response {
    server.send(server.request(Method::PATCH, path).json(body)).await
}

/// Polls until the operation is paused. A paused operation is `running` in the published API.
async fn wait_until_paused(server: &Server, path: &str) -> Response {
    let poll = async {
        loop {
            let response = server.get(path).await;
            assert_eq!(response.status, StatusCode::ACCEPTED, "{response:?}");
            if response.body["paused"] == true {
                return response;
            }
        }
    };
    timeout(Duration::from_secs(120), poll).await.expect("the operation is paused")
}

#[tokio::test]
async fn operation_is_paused_until_it_is_resumed() {
    let sink = GatedSink::new(false);
    let (_, server) = serve(&sink).await;
    let id = server.export("/v2/export", &export_everything()).await;
    let path = format!("/v2/operations/{id}");
    let href = format!("{}{path}", server.url);
    for _ in 0..2 {
        let accepted = post(&server, &format!("{path}/pause")).await;
        assert_eq!(accepted.status, StatusCode::ACCEPTED);
        assert_eq!(accepted.body, json!({ "id": id, "href": href }));
        assert_eq!(accepted.header("location"), href);
        let paused = wait_until_paused(&server, &path).await;
        assert_eq!(paused.body["status"], "running");
        assert_eq!(paused.header("location"), href);
    }
    sink.set_open(true);
    let listed = server.get("/v2/operations?status=paused").await;
    assert_eq!(listed.body["operations"][0]["operationId"], id);
    assert_eq!(server.get("/v2/operations?status=running").await.body["operations"], json!([]));
    assert_eq!(sink.blobs(&id), 0);

    assert_eq!(post(&server, &format!("{path}/resume")).await.status, StatusCode::ACCEPTED);
    let ended = server.wait(&path).await;
    assert_eq!((&ended["status"], &ended["results"]["exported"]), (&json!("succeeded"), &json!(9)));
    assert!(ended.get("paused").is_none());
    assert_eq!(post(&server, &format!("{path}/pause")).await.assert_problem(409), "the operation has ended");
    post(&server, "/v2/operations/00000000000000000000000000000000/pause").await.assert_problem(404);
}

#[tokio::test]
async fn operation_is_canceled_by_post_also_while_it_is_paused() {
    let sink = GatedSink::new(false);
    let (_, server) = serve(&sink).await;
    for is_paused in [false, true] {
        let path = format!("/v1/operations/{}", server.export("/export", &export_everything()).await);
        if is_paused {
            post(&server, &format!("{path}/pause")).await;
            wait_until_paused(&server, &path).await;
        }
        assert_eq!(post(&server, &format!("{path}/cancel")).await.status, StatusCode::ACCEPTED);
        assert_eq!(server.wait(&path).await["status"], "canceled");
        post(&server, &format!("{path}/cancel")).await.assert_problem(409);
        post(&server, &format!("{path}/resume")).await.assert_problem(409);
    }
}

#[tokio::test]
async fn limit_is_changed_while_the_operation_runs() {
    let sink = GatedSink::new(false);
    let (_, server) = serve(&sink).await;
    let path = format!("/v1/operations/{}", server.export("/export", &export_everything()).await);
    assert!(server.get(&path).await.body.get("bytesPerSecond").is_none());
    for (body, limit) in [
        (json!({ "bytesPerSecond": 25_000_000 }), json!(25_000_000)),
        (json!({}), json!(25_000_000)),
        (json!({ "BYTESPERSECOND": u64::MAX }), json!(u64::MAX)),
        (json!({ "bytesPerSecond": null }), Value::Null),
    ] {
        let changed = patch(&server, &path, &body).await;
        assert_eq!(changed.status, StatusCode::OK);
        for document in [changed.body, server.get(&path).await.body] {
            assert_eq!(document["bytesPerSecond"], limit, "{body}");
        }
    }
    sink.set_open(true);
    server.wait(&path).await;
    patch(&server, &path, &json!({ "bytesPerSecond": 1 })).await.assert_problem(409);
}

#[tokio::test]
async fn invalid_limit_is_refused() {
    let sink = GatedSink::new(false);
    let (engine, server) = serve(&sink).await;
    let path = format!("/v1/operations/{}", server.export("/export", &export_everything()).await);
    for value in [json!(0), json!(-1), json!(1.5), json!("1"), json!(true), json!([]), json!({})] {
        let refused = patch(&server, &path, &json!({ "bytesPerSecond": value })).await;
        refused.assert_problem_at(400, "/bytesPerSecond");
    }
    patch(&server, &path, &json!({ "status": "paused" })).await.assert_problem_at(400, "/status");
    patch(&server, &path, &json!([])).await.assert_problem(400);
    let text = server.request(Method::PATCH, &path).header("content-type", "text/plain").body("{}");
    server.send(text).await.assert_problem(415);
    let merge = server.request(Method::PATCH, &path).header("content-type", "application/merge-patch+json");
    assert_eq!(server.send(merge.body("{}")).await.status, StatusCode::OK);
    engine.shutdown(Duration::ZERO).await;
}
