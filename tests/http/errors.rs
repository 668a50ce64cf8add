//! Every error status, and that no error response discloses internal information.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dicom_export::http::HttpOptions;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::store::{Checkpoint, MemoryOperationStore, OperationKey, OperationStore};
use dicom_export::{Error, ErrorKind, ExportEngine, OperationId, OperationSpec, Result, RetryPolicy};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::captured_log::Log;
use crate::port::Port;
use crate::support::{GatedSink, Server, archive, builder_over, engine, export_everything, export_of};

#[tokio::test]
async fn malformed_json_is_400_and_another_media_type_is_415() {
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new()).await;
    let post = |kind: Option<&str>, body: &'static str| {
        let request = server.request(Method::POST, "/v1/export").body(body);
        match kind {
            Some(kind) => server.send(request.header("content-type", kind)),
            None => server.send(request),
        }
    };
    for body in ["", "{", "\u{0}", "{\"destination\": {,}}"] {
        assert!(
            post(Some("application/json"), body).await.assert_problem_at(400, "").starts_with("not JSON")
        );
    }
    let deep: &'static str = Box::leak("[".repeat(100_000).into_boxed_str());
    post(Some("application/json"), deep).await.assert_problem_at(400, "");
    let body = r#"{"destination": {"type": "azureblob", "settings": {}}}"#;
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json"), Some("")]
    {
        post(kind, body).await.assert_problem(415);
    }
}

#[tokio::test]
async fn an_unusable_destination_is_400() {
    // No server listens on this port, so connections are refused.
    let port = Port::reserve();
    let azure = AzureBlobProvider::new(AzureBlobPolicy::development());
    let server = Server::start(&engine(archive(3), azure), HttpOptions::new()).await;
    let uri = format!("http://127.0.0.1:{}/devstoreaccount1/export?sv=1&sig=c2VjcmV0", port.number());
    let body = json!({ "destination": { "type": "azureblob", "settings": { "blobContainerUri": uri } } });
    let response = server.post("/v1/export", &body).await;
    assert!(response.assert_problem_at(400, "/destination").starts_with("the destination cannot be used"));
    assert!(!response.body.to_string().contains("c2VjcmV0"));
    assert_eq!(server.get("/operations").await.body, json!({ "operations": [] }));
}

#[tokio::test]
async fn exporting_everything_is_403_if_it_is_disabled() {
    let server =
        Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new().allow_export_all(false))
            .await;
    server.post("/v1/export", &export_everything()).await.assert_problem_at(403, "/source");
    server.export("/v1/export", &export_of(json!(["1.2.0"]))).await;
}

#[tokio::test]
async fn an_unknown_operation_is_404_and_a_wrong_method_405() {
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new()).await;
    let unknown = format!("/v2/operations/{}", OperationId::random());
    server.get(&unknown).await.assert_problem(404);
    server.delete(&unknown).await.assert_problem(404);
    server.post(&format!("{unknown}/resume"), &json!({})).await.assert_problem(404);
    for (method, path, allow) in [
        (Method::GET, "/v1/export", "POST"),
        (Method::PUT, "/export", "POST"),
        (Method::POST, unknown.as_str(), "DELETE,GET,HEAD,PATCH"),
        (Method::DELETE, "/operations", "GET,HEAD"),
        (Method::GET, &format!("{unknown}/resume"), "POST"),
    ] {
        let response = server.send(server.request(method, path)).await;
        response.assert_problem(405);
        let mut allowed: Vec<_> = response.header("allow").split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow);
    }
}

#[tokio::test]
async fn an_operation_above_the_limit_is_429() {
    let (sink, store) = (GatedSink::new(false), MemoryOperationStore::new());
    let engine = || builder_over(archive(3), sink.clone(), store.clone()).max_running(2).build().unwrap();
    let first = engine();
    let server = Server::start(&first, HttpOptions::new()).await;
    // Of concurrent requests, two are accepted.
    let all = (0..10).map(|_| async { server.post("/v1/export", &export_everything()).await });
    let responses = futures::future::join_all(all).await;
    let started: Vec<_> =
        responses.iter().filter(|response| response.status == StatusCode::ACCEPTED).collect();
    assert_eq!(started.len(), 2);
    for response in responses.iter().filter(|response| response.status != StatusCode::ACCEPTED) {
        response.assert_problem(429);
        assert_eq!(response.header("retry-after"), "10");
    }
    // A refused request does not count towards the limit, and an invalid request is still a 400.
    server.post("/v1/export", &json!({})).await.assert_problem(400);

    // After a restart, operations left by the previous process count too.
    first.shutdown(Duration::ZERO).await;
    let second = engine();
    let server = Server::start(&second, HttpOptions::new()).await;
    server.post("/v1/export", &export_everything()).await.assert_problem(429);
    let path = format!("/v1/operations/{}", started[0].body["id"].as_str().unwrap());
    // Resuming an operation that already counts is allowed.
    let resumed = server.post(&format!("{path}/resume"), &json!({})).await;
    assert_eq!(resumed.status, StatusCode::ACCEPTED, "{resumed:?}");
    server.delete(&path).await;
    server.wait(&path).await;
    server.export("/v1/export", &export_everything()).await;
    server.post("/v1/export", &export_everything()).await.assert_problem(429);
    sink.set_open(true);
    second.resume_all().await.unwrap();
    for operation in server.get("/operations").await.body["operations"].as_array().unwrap() {
        server.wait(&format!("/operations/{}", operation["operationId"].as_str().unwrap())).await;
    }
    server.export("/v1/export", &export_everything()).await;
}

#[tokio::test]
async fn during_shutdown_starts_are_503_and_polls_succeed() {
    let sink = GatedSink::new(false);
    let engine = engine(archive(3), sink);
    let server = Server::start(&engine, HttpOptions::new()).await;
    let id = server.export("/v1/export", &export_everything()).await;
    engine.shutdown(Duration::ZERO).await;
    let rejected = server.post("/v1/export", &export_everything()).await;
    rejected.assert_problem(503);
    assert_eq!(rejected.header("retry-after"), "5");
    server.post(&format!("/v1/operations/{id}/resume"), &json!({})).await.assert_problem(503);
    assert_eq!(server.get(&format!("/v1/operations/{id}")).await.status, StatusCode::ACCEPTED);
}

/// A store whose errors contain internal information.
struct FailingStore(ErrorKind);

const INTERNAL: &str = "connection to postgres://operator:hunter2@db failed";

impl FailingStore {
    fn fail<T>(&self) -> Result<T> {
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(Error::new(self.0, INTERNAL).with_source(cause))
    }
}

#[async_trait]
impl OperationStore for FailingStore {
    async fn create(&self, _: &OperationSpec, _: &Checkpoint) -> Result<()> {
        self.fail()
    }

    async fn spec(&self, _: OperationId) -> Result<Arc<OperationSpec>> {
        self.fail()
    }

    async fn load(&self, _: OperationId) -> Result<Checkpoint> {
        self.fail()
    }

    async fn save(&self, _: OperationId, _: &Checkpoint) -> Result<u64> {
        self.fail()
    }

    async fn list(&self, _: Option<OperationKey>, _: usize) -> Result<Vec<OperationKey>> {
        self.fail()
    }

    async fn delete(&self, _: OperationId) -> Result<()> {
        self.fail()
    }
}

#[tokio::test]
async fn internal_errors_are_not_disclosed() {
    for (kind, status) in
        [(ErrorKind::Internal, 500), (ErrorKind::Unavailable, 503), (ErrorKind::Unauthorized, 500)]
    {
        let engine = ExportEngine::builder(archive(3))
            .destination("azureblob", GatedSink::new(true))
            .operation_store(Arc::new(FailingStore(kind)))
            .build()
            .unwrap();
        let server = Server::start(&engine, HttpOptions::new()).await;
        let id = OperationId::random();
        let responses = [
            server.post("/v1/export", &export_everything()).await,
            server.get(&format!("/v1/operations/{id}")).await,
            server.delete(&format!("/v1/operations/{id}")).await,
            server.post(&format!("/v1/operations/{id}/resume"), &json!({})).await,
            server.get("/v1/operations").await,
        ];
        for response in responses {
            response.assert_problem(status);
            assert!(!response.body.to_string().contains("postgres"), "{response:?}");
        }
    }
}

#[tokio::test]
async fn internal_errors_are_logged_with_their_causes() {
    let (log, _guard) = Log::start();
    let engine = ExportEngine::builder(archive(3))
        .operation_store(Arc::new(FailingStore(ErrorKind::Internal)))
        .build()
        .unwrap();
    let server = Server::start(&engine, HttpOptions::new()).await;
    server.get("/v1/operations").await.assert_problem(500);
    let events = log.events();
    assert_eq!(
        events,
        [format!("ERROR the response is 500 kind=\"internal\" error={INTERNAL}: connection refused")]
    );
}

#[tokio::test]
async fn the_cause_of_an_unusable_destination_is_logged_without_its_credential() {
    let (log, _guard) = Log::start();
    let port = Port::reserve();
    let azure = AzureBlobProvider::new(AzureBlobPolicy::development());
    let engine = ExportEngine::builder(archive(3))
        .destination("azureblob", azure)
        .retry(RetryPolicy::none())
        .build()
        .unwrap();
    let server = Server::start(&engine, HttpOptions::new()).await;
    let uri = format!("http://127.0.0.1:{}/devstoreaccount1/export?sv=1&sig=c2VjcmV0", port.number());
    let body = json!({ "destination": { "type": "azureblob", "settings": { "blobContainerUri": uri } } });
    server.post("/v1/export", &body).await.assert_problem_at(400, "/destination");
    let [event] = &log.events()[..] else { panic!("{:?}", log.events()) };
    let expected = "INFO a request was rejected status=400 kind=\"invalid\" error=the destination cannot be used: the \
                    destination cannot be reached: HTTP error: ";
    assert!(event.starts_with(expected), "{event}");
    assert!(event.to_lowercase().contains("connection refused") && !event.contains("c2VjcmV0"), "{event}");
}
