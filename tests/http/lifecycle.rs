//! An operation from `POST /export` to its end.

use std::sync::Arc;

use async_trait::async_trait;
use dicom_export::http::HttpOptions;
use dicom_export::sink::{Secret, ValidatedSettings};
use dicom_export::store::{Checkpoint, Lease, OperationStore};
use dicom_export::{BlobSink, Error, ErrorKind, MemorySink, OperationSpec, Result, SinkProvider, Timestamp};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};
use crate::support::{
    GatedSink, Server, archive, azure_destination, engine, engine_over, export_everything, export_of,
};

/// Nine instances of three studies, requested as a study, a series and instances, and an unknown study, series and
/// instance.
pub(crate) fn reference_case() -> Value {
    export_of(json!([
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
    let sink = GatedSink::new(true);
    let server = Server::start(&engine(archive(3), sink.clone()), HttpOptions::new()).await;
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
        assert!(sink.inner.get(&format!("{id}/errors.log")).is_some(), "the destination has been tested");

        let ended = server.wait(&href).await;
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
    let sink = GatedSink::new(false);
    let server = Server::start(&engine(archive(3), sink.clone()), HttpOptions::new()).await;
    let id = server.export("/v2/export", &export_everything()).await;
    let running = server.get(&format!("/v2/operations/{id}")).await;
    assert_eq!(running.status, StatusCode::ACCEPTED);
    assert!(["notStarted", "running"].contains(&running.body["status"].as_str().unwrap()));
    assert_eq!(running.header("location"), format!("{}/v2/operations/{id}", server.url));
    assert_eq!(running.header("retry-after"), "1");
    assert_eq!(running.body["results"].as_object().unwrap().len(), 3);
    assert_eq!(running.body["results"]["exported"], 0);
    // Without a version, links are under /v1, even if the operation was started under /v2.
    let unversioned = server.get(&format!("/operations/{id}")).await;
    assert_eq!(unversioned.header("location"), format!("{}/v1/operations/{id}", server.url));

    sink.set_open(true);
    let ended = server.wait(&format!("/v1/operations/{id}")).await;
    assert_eq!((&ended["status"], &ended["percentComplete"]), (&json!("completed"), &json!(100)));
    let ended = server.get(&format!("/v2/operations/{id}")).await;
    assert_eq!(ended.body["status"], "succeeded");
    assert!(!ended.headers.contains_key("location") && !ended.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn the_interval_between_polls_grows_with_the_age_of_the_operation() {
    let store = dicom_export::store::MemoryOperationStore::new();
    let server =
        Server::start(&engine_over(archive(3), GatedSink::new(true), store.clone()), HttpOptions::new())
            .await;
    for (age, seconds) in [(0, 1), (19, 1), (45, 4), (299, 29), (400, 30), (1_000_000, 30)] {
        let id = dicom_export::OperationId::random();
        let created = Timestamp::now().saturating_sub(std::time::Duration::from_secs(age));
        let spec = json!({
            "id": id, "createdTime": created, "source": null, "errorHref": "https://a.example/errors.log",
            "destination": { "type": "azureblob", "location": "", "settings": {}, "hasSecret": false, "expires": null },
            "context": { "partition": null, "caller": null, "attributes": {} },
        });
        let mut checkpoint = Checkpoint::first(created);
        checkpoint.error_href = "https://a.example/errors.log".to_owned();
        // Another process runs it.
        checkpoint.lease = Some(Lease::new("other", Timestamp::now(), std::time::Duration::from_secs(3600)));
        store.create(&serde_json::from_value(spec).unwrap(), &checkpoint).await.unwrap();
        let response = server.get(&format!("/v1/operations/{id}")).await;
        assert_eq!(response.status, StatusCode::ACCEPTED, "{response:?}");
        assert_eq!(response.header("retry-after"), seconds.to_string(), "{age} s");
    }
}

#[tokio::test]
async fn an_id_is_read_with_dashes_and_in_either_case() {
    let sink = GatedSink::new(true);
    let server = Server::start(&engine(archive(3), sink), HttpOptions::new()).await;
    let id = server.export("/export", &export_everything()).await;
    let dashed = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
    for written in [id.to_uppercase(), dashed.to_uppercase(), dashed] {
        assert_eq!(server.wait(&format!("/v1/operations/{written}")).await["operationId"], id);
    }
    for wrong in ["1", &format!("{{{id}}}"), &format!("{id}0"), "%FF", "urn:uuid:0"] {
        server.get(&format!("/v1/operations/{wrong}")).await.assert_problem(404);
    }
}

#[tokio::test]
async fn an_operation_can_be_canceled_until_it_has_ended() {
    let sink = GatedSink::new(false);
    let server = Server::start(&engine(archive(3), sink), HttpOptions::new()).await;
    let id = server.export("/export", &export_everything()).await;
    let path = format!("/v2/operations/{id}");
    let canceled = server.delete(&path).await;
    assert_eq!(canceled.status, StatusCode::ACCEPTED);
    let href = format!("{}{path}", server.url);
    assert_eq!(canceled.body, json!({ "id": id, "href": href }));
    assert_eq!(canceled.header("location"), href);
    assert_eq!(server.wait(&path).await["status"], "canceled");
    server.delete(&path).await.assert_problem(409);
    let resumed = server.send(server.request(Method::POST, &format!("{path}/resume"))).await;
    resumed.assert_problem(409);
}

#[tokio::test]
async fn a_failed_operation_is_resumed_with_new_credentials() {
    let sink = RefusesOldCredential::default();
    let server = Server::start(&engine(archive(3), sink.clone()), HttpOptions::new()).await;
    let start = |sas: &str| json!({ "destination": destination(sas) });
    let id = server.export("/v1/export", &start("sig=old")).await;
    let path = format!("/v1/operations/{id}");
    let failed = server.wait(&path).await;
    assert_eq!(failed["status"], "failed");
    assert_eq!(failed["error"], json!({ "code": "unauthorized", "message": "the signature is invalid" }));

    let resume = format!("{path}/resume");
    // The secret was deleted when the operation ended.
    let without = server.send(server.request(Method::POST, &resume)).await;
    assert!(without.assert_problem(409).contains("resume with a 'destination'"));
    let empty = server.post(&resume, &json!({})).await;
    empty.assert_problem(409);
    let elsewhere = server.post(&resume, &json!({ "destination": { "type": "azureblob", "settings": { "container": "other", "sas": "sig=new" } } })).await;
    elsewhere.assert_problem_at(400, "/destination");
    let unknown_property = server.post(&resume, &json!({ "target": null })).await;
    unknown_property.assert_problem_at(400, "/target");
    let mistyped = server.post(&resume, &json!({ "destination": { "type": "ftp" } })).await;
    mistyped.assert_problem_at(400, "/destination/type");
    server.post(&resume, &json!([])).await.assert_problem_at(400, "");
    let undeclared = server.send(server.request(Method::POST, &resume).body("{}")).await;
    undeclared.assert_problem(415);
    let unknown = server.post("/v1/operations/00000000000000000000000000000000/resume", &json!({})).await;
    unknown.assert_problem(404);

    let resumed = server.post(&resume, &json!({ "Destination": destination("sig=new") })).await;
    assert_eq!(resumed.status, StatusCode::ACCEPTED, "{resumed:?}");
    assert_eq!(resumed.body, json!({ "id": id, "href": format!("{}{path}", server.url) }));
    let ended = server.wait(&path).await;
    assert_eq!((&ended["status"], &ended["results"]["exported"]), (&json!("completed"), &json!(9)));
    assert!(ended.get("error").is_none());
    server.post(&resume, &json!({})).await.assert_problem(409);
}

#[tokio::test]
async fn an_interrupted_operation_is_resumed_by_another_process() {
    let (sink, store) = (GatedSink::new(false), dicom_export::store::MemoryOperationStore::new());
    let first = engine_over(archive(3), sink.clone(), store.clone());
    let server = Server::start(&first, HttpOptions::new()).await;
    let id = server.export("/export", &export_everything()).await;
    first.shutdown(std::time::Duration::ZERO).await;
    assert_eq!(server.get(&format!("/operations/{id}")).await.status, StatusCode::ACCEPTED);

    sink.set_open(true);
    let second = Server::start(&engine_over(archive(3), sink, store), HttpOptions::new()).await;
    let path = format!("/v1/operations/{id}");
    let resumed = second.send(second.request(Method::POST, &format!("{path}/resume"))).await;
    assert_eq!(resumed.status, StatusCode::ACCEPTED, "{resumed:?}");
    assert_eq!(second.wait(&path).await["results"]["exported"], 9);
}

fn destination(sas: &str) -> Value {
    let mut destination = azure_destination();
    destination["settings"] = json!({ "container": "here", "sas": sas });
    destination
}

/// A container that refuses blobs with the credential `sig=old`.
#[derive(Clone, Default)]
struct RefusesOldCredential(MemorySink);

#[async_trait]
impl SinkProvider for RefusesOldCredential {
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
        let text = |name: &str| settings[name].as_str().unwrap_or_default();
        Ok(ValidatedSettings::new(text("container"), Value::Null).with_secret(Secret::new(text("sas"))))
    }

    async fn open(&self, _: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        let refused = secret.is_some_and(|secret| secret.expose() == "sig=old");
        Ok(Arc::new(HookedSink { inner: self.0.clone(), hook: RefusePuts(refused) }))
    }
}

struct RefusePuts(bool);

#[async_trait]
impl SinkHook for RefusePuts {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        match call {
            SinkCall::Put(..) if self.0 => {
                Err(Error::new(ErrorKind::Unauthorized, "the signature is invalid"))
            }
            _ => Ok(()),
        }
    }
}
