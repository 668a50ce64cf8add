//! `Idempotency-Key` on `POST /export`.

use async_trait::async_trait;
use axum::http::request::Parts;
use dicom_export::http::{Authorize, HttpOptions, Rejection};
use dicom_export::store::MemoryOperationStore;
use dicom_export::{ExportRequest, OperationContext, OperationRecord};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    GatedSink, Response, Server, archive, builder_over, engine, engine_over, export_everything, export_of,
};

fn export_request(server: &Server, path: &str, key: &str, body: &Value) -> RequestBuilder {
    server.request(Method::POST, path).header("idempotency-key", key).json(body)
}

async fn export(server: &Server, path: &str, key: &str, body: &Value) -> Response {
    server.send(export_request(server, path, key, body)).await
}

/// Asserts that the export was accepted, and returns its id.
#[track_caller]
fn id(response: &Response) -> String {
    assert_eq!(response.status, StatusCode::ACCEPTED, "{response:?}");
    response.body["id"].as_str().unwrap().to_owned()
}

async fn count(server: &Server) -> usize {
    server.get("/operations").await.body["operations"].as_array().unwrap().len()
}

#[tokio::test]
async fn the_same_key_and_body_get_the_same_operation() {
    let (sink, store) = (GatedSink::new(true), MemoryOperationStore::new());
    let first = builder_over(archive(3), sink.clone(), store.clone()).max_running(1).build().unwrap();
    let server = Server::start(&first, HttpOptions::new()).await;
    let body = export_everything();
    let started = id(&export(&server, "/v1/export", "key-1", &body).await);
    // While it runs and afterwards, under another version, with quotes, and through another process.
    let repeated = export(&server, "/v1/export", "key-1", &body).await;
    assert_eq!(id(&repeated), started);
    server.wait(&format!("/v1/operations/{started}")).await;
    assert_eq!(id(&export(&server, "/v2/export", "\"key-1\"", &body).await), started);
    let second = Server::start(&engine_over(archive(3), sink.clone(), store), HttpOptions::new()).await;
    let repeated = export(&second, "/v1/export", "key-1", &body).await;
    assert_eq!(id(&repeated), started);
    assert_eq!(repeated.header("location"), format!("{}/v1/operations/{started}", second.url));
    assert_eq!((count(&server).await, sink.blobs(&started)), (1, 9));

    let other = export(&server, "/v1/export", "key-1", &export_of(json!(["1.2.0"]))).await;
    assert!(other.assert_problem(422).contains("Idempotency-Key"));
    assert_ne!(id(&export(&server, "/v1/export", "key-2", &body).await), started);
    assert_eq!(count(&server).await, 2);
}

#[tokio::test]
async fn concurrent_requests_with_the_same_key_start_one_operation() {
    let (sink, store) = (GatedSink::new(false), MemoryOperationStore::new());
    // Two processes over one store.
    let mut servers = Vec::new();
    for _ in 0..2 {
        let engine = engine_over(archive(3), sink.clone(), store.clone());
        servers.push(Server::start(&engine, HttpOptions::new()).await);
    }
    let body = export_everything();
    let requests = (0..20).map(|n| export(&servers[n % 2], "/v1/export", "key", &body));
    let responses = futures::future::join_all(requests).await;
    let ids: std::collections::BTreeSet<_> = responses.iter().map(id).collect();
    assert_eq!((ids.len(), count(&servers[0]).await), (1, 1));
    sink.set_open(true);
}

#[tokio::test]
async fn a_request_that_failed_can_be_repeated_with_the_same_key() {
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new()).await;
    let unknown = json!({ "destination": { "type": "ftp", "settings": {} } });
    export(&server, "/v1/export", "key", &unknown).await.assert_problem(400);
    id(&export(&server, "/v1/export", "key", &export_everything()).await);
}

#[tokio::test]
async fn callers_do_not_share_keys() {
    struct Callers;
    #[async_trait]
    impl Authorize for Callers {
        async fn start(
            &self,
            parts: &mut Parts,
            _: &ExportRequest,
            _: &str,
        ) -> Result<OperationContext, Rejection> {
            let header = |name: &str| parts.headers.get(name).map(|value| value.to_str().unwrap().to_owned());
            let mut context = OperationContext::default();
            (context.partition, context.caller) = (header("x-partition"), header("x-caller"));
            Ok(context)
        }

        async fn view(&self, _: &mut Parts, _: &OperationRecord) -> Result<(), Rejection> {
            Ok(())
        }
    }
    let options = HttpOptions::new().authorize(Callers);
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), options).await;
    let mut ids = std::collections::BTreeSet::new();
    for headers in
        [&[][..], &[("x-partition", "a")], &[("x-caller", "a")], &[("x-partition", "a"), ("x-caller", "b")]]
    {
        let mut request = export_request(&server, "/v1/export", "key", &export_everything());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        ids.insert(id(&server.send(request).await));
    }
    assert_eq!(ids.len(), 4);
}

#[tokio::test]
async fn an_invalid_key_is_400() {
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new()).await;
    for key in ["", " ", "\"\"", &"x".repeat(256)] {
        let response = export(&server, "/v1/export", key, &export_everything()).await;
        assert!(response.assert_problem(400).contains("Idempotency-Key"));
    }
    let twice =
        export_request(&server, "/v1/export", "a", &export_everything()).header("idempotency-key", "b");
    server.send(twice).await.assert_problem(400);
    assert_eq!(count(&server).await, 0);
}
