//! Every error code, and that none of them tells what is nobody's business.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dicom_export::http::HttpOptions;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::store::{Checkpoint, MemoryOperationStore, OperationKey, OperationStore};
use dicom_export::{Error, ErrorKind, ExportEngine, OperationId, OperationSpec, Result};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Gated, Server, archive, engine, engine_over, everything, of};

#[tokio::test]
async fn a_body_that_is_not_json_is_400_and_one_not_said_to_be_415() {
    let server = Server::of(&engine(archive(3), Gated::open()), HttpOptions::new()).await;
    let post = |kind: Option<&str>, body: &'static str| {
        let request = server.request(Method::POST, "/v1/export").body(body);
        match kind {
            Some(kind) => server.send(request.header("content-type", kind)),
            None => server.send(request),
        }
    };
    for body in ["", "{", "\u{0}", "{\"a\": 1,}"] {
        assert!(post(Some("application/json"), body).await.problem_at(400, "").starts_with("not JSON"));
    }
    let deep: &'static str = Box::leak("[".repeat(100_000).into_boxed_str());
    post(Some("application/json"), deep).await.problem_at(400, "");
    let body = r#"{"destination": {"type": "azureblob", "settings": {}}}"#;
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("json"), Some("")]
    {
        post(kind, body).await.problem(415);
    }
}

#[tokio::test]
async fn an_unusable_destination_is_400() {
    // Nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let azure = AzureBlobProvider::new(AzureBlobPolicy::development());
    let server = Server::of(&engine(archive(3), azure), HttpOptions::new()).await;
    let uri = format!("http://127.0.0.1:{port}/devstoreaccount1/export?sv=1&sig=c2VjcmV0");
    let body = json!({ "destination": { "type": "azureblob", "settings": { "blobContainerUri": uri } } });
    let answer = server.post("/v1/export", &body).await;
    assert!(answer.problem_at(400, "/destination").starts_with("the destination cannot be used"));
    assert!(!answer.body.to_string().contains("c2VjcmV0"));
    assert_eq!(server.get("/operations").await.body, json!({ "operations": [] }));
}

#[tokio::test]
async fn export_all_switched_off_is_403() {
    let server =
        Server::of(&engine(archive(3), Gated::open()), HttpOptions::new().allow_export_all(false)).await;
    server.post("/v1/export", &everything()).await.problem_at(403, "/source");
    server.start("/v1/export", &of(json!(["1.2.0"]))).await;
}

#[tokio::test]
async fn an_unknown_operation_is_404_and_a_wrong_method_405() {
    let server = Server::of(&engine(archive(3), Gated::open()), HttpOptions::new()).await;
    let unknown = format!("/v2/operations/{}", OperationId::random());
    server.get(&unknown).await.problem(404);
    server.delete(&unknown).await.problem(404);
    server.post(&format!("{unknown}/resume"), &json!({})).await.problem(404);
    for (method, path, allow) in [
        (Method::GET, "/v1/export", "POST"),
        (Method::PUT, "/export", "POST"),
        (Method::POST, unknown.as_str(), "DELETE,GET,HEAD"),
        (Method::DELETE, "/operations", "GET,HEAD"),
        (Method::GET, &format!("{unknown}/resume"), "POST"),
    ] {
        let answer = server.send(server.request(method, path)).await;
        answer.problem(405);
        let mut allowed: Vec<_> = answer.header("allow").split(',').map(str::trim).collect();
        allowed.sort_unstable();
        assert_eq!(allowed.join(","), allow);
    }
}

#[tokio::test]
async fn one_operation_more_than_allowed_is_429() {
    let (sink, store) = (Gated::shut(), MemoryOperationStore::new());
    let options = || HttpOptions::new().max_running(2);
    let first = engine_over(archive(3), sink.clone(), store.clone());
    let server = Server::of(&first, options()).await;
    // All at once: two pass.
    let all = (0..10).map(|_| async { server.post("/v1/export", &everything()).await });
    let answers = futures::future::join_all(all).await;
    let started: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).collect();
    assert_eq!(started.len(), 2);
    for answer in answers.iter().filter(|answer| answer.status != StatusCode::ACCEPTED) {
        answer.problem(429);
        assert_eq!(answer.header("retry-after"), "10");
    }
    // What is refused before does not count, and bad input is told first.
    server.post("/v1/export", &json!({})).await.problem(400);

    // After a restart, what a crash left counts too.
    first.shutdown(Duration::ZERO).await;
    let second = engine_over(archive(3), sink.clone(), store);
    let server = Server::of(&second, options()).await;
    server.post("/v1/export", &everything()).await.problem(429);
    let path = format!("/v1/operations/{}", started[0].body["id"].as_str().unwrap());
    // It counts already, so it is no more when it is resumed.
    let resumed = server.post(&format!("{path}/resume"), &json!({})).await;
    assert_eq!(resumed.status, StatusCode::ACCEPTED, "{resumed:?}");
    server.delete(&path).await;
    server.ended(&path).await;
    server.start("/v1/export", &everything()).await;
    server.post("/v1/export", &everything()).await.problem(429);
    sink.set(true);
    second.resume_all().await.unwrap();
    for answer in server.get("/operations").await.body["operations"].as_array().unwrap() {
        server.ended(&format!("/operations/{}", answer["operationId"].as_str().unwrap())).await;
    }
    server.start("/v1/export", &everything()).await;
}

#[tokio::test]
async fn shutting_down_is_503_and_polls_go_on() {
    let sink = Gated::shut();
    let engine = engine(archive(3), sink);
    let server = Server::of(&engine, HttpOptions::new()).await;
    let id = server.start("/v1/export", &everything()).await;
    engine.shutdown(Duration::ZERO).await;
    let refused = server.post("/v1/export", &everything()).await;
    refused.problem(503);
    assert_eq!(refused.header("retry-after"), "5");
    server.post(&format!("/v1/operations/{id}/resume"), &json!({})).await.problem(503);
    assert_eq!(server.get(&format!("/v1/operations/{id}")).await.status, StatusCode::ACCEPTED);
}

/// A store whose troubles name what nobody should read.
struct Broken(ErrorKind);

const INTERNAL: &str = "connection to postgres://operator:hunter2@db failed";

impl Broken {
    fn fail<T>(&self) -> Result<T> {
        Err(Error::new(self.0, INTERNAL))
    }
}

#[async_trait]
impl OperationStore for Broken {
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
async fn the_servers_own_troubles_are_not_told() {
    for (kind, status) in
        [(ErrorKind::Internal, 500), (ErrorKind::Unavailable, 503), (ErrorKind::Unauthorized, 500)]
    {
        let engine = ExportEngine::builder(archive(3))
            .destination("azureblob", Gated::open())
            .operation_store(Arc::new(Broken(kind)))
            .build()
            .unwrap();
        let server = Server::of(&engine, HttpOptions::new()).await;
        let id = OperationId::random();
        let answers = [
            server.post("/v1/export", &everything()).await,
            server.get(&format!("/v1/operations/{id}")).await,
            server.delete(&format!("/v1/operations/{id}")).await,
            server.post(&format!("/v1/operations/{id}/resume"), &json!({})).await,
            server.get("/v1/operations").await,
        ];
        for answer in answers {
            answer.problem(status);
            assert!(!answer.body.to_string().contains("postgres"), "{answer:?}");
        }
    }
}
