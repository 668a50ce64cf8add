//! From `POST /export` to the end of an operation, and what can be done to it between.

use dicom_export::http::HttpOptions;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Gated, Server, archive, azureblob, engine, engine_over, everything, of};

/// Nine instances of three studies, asked for as a study, a series and instances, among them one unknown study, one
/// unknown series and one unknown instance.
pub(crate) fn reference_case() -> Value {
    of(json!([
        "1.2.0",
        "1.2.1/1.2.1.0",
        "1.2.2/1.2.2.0/1.2.2.0.0",
        "1.2.2/1.2.2.0/1.2.2.0.1",
        "1.2.2/1.2.2.0/1.2.2.0.2",
        "9.9",
        "1.2.1/9.9",
        "1.2.2/1.2.2.0/9.9",
    ]))
}

pub(crate) const UNKNOWN: [&str; 3] = ["1.2.1/9.9", "1.2.2/1.2.2.0/9.9", "9.9"];

#[tokio::test]
async fn the_reference_case_under_all_three_routes() {
    let sink = Gated::open();
    let server = Server::of(&engine(archive(3), sink.clone()), HttpOptions::new()).await;
    for (prefix, links, completed) in
        [("", "/v1", "completed"), ("/v1", "/v1", "completed"), ("/v2", "/v2", "succeeded")]
    {
        let started = server.post(&format!("{prefix}/export"), &reference_case()).await;
        assert_eq!(started.status, StatusCode::ACCEPTED);
        let id = started.body["id"].as_str().unwrap();
        assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        let href = format!("{}{links}/operations/{id}", server.url);
        assert_eq!(started.body, json!({ "id": id, "href": href }));
        assert_eq!((started.header("location"), started.header("retry-after")), (href.as_str(), "1"));
        assert!(sink.inner.get(&format!("{id}/errors.log")).is_some(), "the destination has been tried");

        let ended = server.ended(&href).await;
        assert_eq!(ended["operationId"], id);
        assert_eq!(ended["type"], "export");
        assert_eq!(ended["status"], completed);
        let log = format!("memory:///{id}/errors.log");
        assert_eq!(ended["results"], json!({ "errorHref": log, "exported": 9, "skipped": 3 }));
        assert_eq!(sink.blobs(id), 9);
        let mut logged: Vec<_> = sink.log(id).iter().map(|entry| entry.identifier().to_owned()).collect();
        logged.sort();
        assert_eq!(logged, UNKNOWN);
    }
}

#[tokio::test]
async fn a_status_is_202_while_it_runs_and_200_once_it_has_ended() {
    let sink = Gated::shut();
    let server = Server::of(&engine(archive(3), sink.clone()), HttpOptions::new()).await;
    let id = server.start("/v2/export", &everything()).await;
    let running = server.get(&format!("/v2/operations/{id}")).await;
    assert_eq!(running.status, StatusCode::ACCEPTED);
    assert!(["notStarted", "running"].contains(&running.body["status"].as_str().unwrap()));
    assert_eq!(running.header("location"), format!("{}/v2/operations/{id}", server.url));
    assert_eq!(running.header("retry-after"), "1");
    assert_eq!(running.body["results"].as_object().unwrap().len(), 3);
    assert_eq!(running.body["results"]["exported"], 0);
    // Whatever the version it was started under; without one, links are under /v1.
    let unversioned = server.get(&format!("/operations/{id}")).await;
    assert_eq!(unversioned.header("location"), format!("{}/v1/operations/{id}", server.url));

    sink.set(true);
    let ended = server.ended(&format!("/v1/operations/{id}")).await;
    assert_eq!((&ended["status"], &ended["percentComplete"]), (&json!("completed"), &json!(100)));
    let ended = server.get(&format!("/v2/operations/{id}")).await;
    assert_eq!(ended.body["status"], "succeeded");
    assert!(!ended.headers.contains_key("location") && !ended.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn an_id_is_read_with_dashes_and_in_either_case() {
    let sink = Gated::open();
    let server = Server::of(&engine(archive(3), sink), HttpOptions::new()).await;
    let id = server.start("/export", &everything()).await;
    let dashed = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    for written in [id.to_uppercase(), dashed.to_uppercase(), dashed] {
        assert_eq!(server.ended(&format!("/v1/operations/{written}")).await["operationId"], id);
    }
    for wrong in ["1", &format!("{{{id}}}"), &format!("{id}0"), "%FF", "urn:uuid:0"] {
        server.get(&format!("/v1/operations/{wrong}")).await.problem(404);
    }
}

#[tokio::test]
async fn cancel_winds_down_and_an_ended_operation_refuses_it() {
    let sink = Gated::shut();
    let server = Server::of(&engine(archive(3), sink), HttpOptions::new()).await;
    let id = server.start("/export", &everything()).await;
    let path = format!("/v2/operations/{id}");
    let canceled = server.delete(&path).await;
    assert_eq!(canceled.status, StatusCode::ACCEPTED);
    let href = format!("{}{path}", server.url);
    assert_eq!(canceled.body, json!({ "id": id, "href": href }));
    assert_eq!(canceled.header("location"), href);
    assert_eq!(server.ended(&path).await["status"], "canceled");
    server.delete(&path).await.problem(409);
    let resumed = server.send(server.request(Method::POST, &format!("{path}/resume"))).await;
    resumed.problem(409);
}

#[tokio::test]
async fn a_failed_operation_says_why_and_is_resumed_with_new_credentials() {
    let sink = Failing::default();
    let server = Server::of(&engine(archive(3), sink.clone()), HttpOptions::new()).await;
    let start = |sas: &str| json!({ "destination": destination(sas) });
    let id = server.start("/v1/export", &start("sig=old")).await;
    let path = format!("/v1/operations/{id}");
    let failed = server.ended(&path).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error"], json!({ "code": "unauthorized", "message": "the signature is refused" }));

    let resume = format!("{path}/resume");
    // The secret has gone with the operation's end.
    let without = server.send(server.request(Method::POST, &resume)).await;
    assert!(without.problem(409).contains("resume with a 'destination'"));
    let empty = server.post(&resume, &json!({})).await;
    empty.problem(409);
    let elsewhere = server.post(&resume, &json!({ "destination": { "type": "azureblob", "settings": { "container": "other", "sas": "sig=new" } } })).await;
    elsewhere.problem_at(400, "/destination");
    let unknown = server.post(&resume, &json!({ "target": null })).await;
    unknown.problem_at(400, "/target");
    let mistyped = server.post(&resume, &json!({ "destination": { "type": "ftp" } })).await;
    mistyped.problem_at(400, "/destination/type");
    server.post(&resume, &json!([])).await.problem_at(400, "");
    let unread = server.send(server.request(Method::POST, &resume).body("{}")).await;
    unread.problem(415);
    let nobody = server.post("/v1/operations/00000000000000000000000000000000/resume", &json!({})).await;
    nobody.problem(404);

    let resumed = server.post(&resume, &json!({ "Destination": destination("sig=new") })).await;
    assert_eq!(resumed.status, StatusCode::ACCEPTED, "{resumed:?}");
    assert_eq!(resumed.body, json!({ "id": id, "href": format!("{}{path}", server.url) }));
    let ended = server.ended(&path).await;
    assert_eq!((&ended["status"], &ended["results"]["exported"]), (&json!("completed"), &json!(9)));
    assert!(ended.get("error").is_none());
    server.post(&resume, &json!({})).await.problem(409);
}

#[tokio::test]
async fn an_operation_that_nobody_runs_is_resumed_by_another_process() {
    let (sink, store) = (Gated::shut(), dicom_export::store::MemoryOperationStore::new());
    let first = engine_over(archive(3), sink.clone(), store.clone());
    let server = Server::of(&first, HttpOptions::new()).await;
    let id = server.start("/export", &everything()).await;
    first.shutdown(std::time::Duration::ZERO).await;
    assert_eq!(server.get(&format!("/operations/{id}")).await.status, StatusCode::ACCEPTED);

    sink.set(true);
    let second = Server::of(&engine_over(archive(3), sink, store), HttpOptions::new()).await;
    let path = format!("/v1/operations/{id}");
    let resumed = second.send(second.request(Method::POST, &format!("{path}/resume"))).await;
    assert_eq!(resumed.status, StatusCode::ACCEPTED, "{resumed:?}");
    assert_eq!(second.ended(&path).await["results"]["exported"], 9);
}

fn destination(sas: &str) -> Value {
    let mut destination = azureblob();
    destination["settings"] = json!({ "container": "here", "sas": sas });
    destination
}

/// Refuses `sig=old` once the operation runs, and everything in it is secret.
#[derive(Clone, Default)]
struct Failing {
    inner: dicom_export::MemorySink,
}

struct FailingSink {
    inner: dicom_export::MemorySink,
    refused: bool,
}

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::{LogKey, PutResult, Secret, ValidatedSettings};
use dicom_export::{
    BlobPath, BlobSink, Content, Error, ErrorKind, OperationSpec, Result, SinkProvider, UploadContext,
};

#[async_trait]
impl SinkProvider for Failing {
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
        let text = |name: &str| settings[name].as_str().unwrap_or_default();
        Ok(ValidatedSettings::new(text("container"), Value::Null).with_secret(Secret::new(text("sas"))))
    }

    async fn open(&self, _: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        let refused = secret.is_some_and(|secret| secret.expose() == "sig=old");
        Ok(Arc::new(FailingSink { inner: self.inner.clone(), refused }))
    }
}

#[async_trait]
impl BlobSink for FailingSink {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.inner.prepare(log).await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        match self.refused {
            true => Err(Error::new(ErrorKind::Unauthorized, "the signature is refused")),
            false => self.inner.put(path, content, upload).await,
        }
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.inner.append(log, key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        self.inner.finish(log).await
    }

    fn url(&self, path: &BlobPath) -> String {
        self.inner.url(path)
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
