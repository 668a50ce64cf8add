//! `GET /operations`: pages of operations, newest first.

use dicom_export::http::HttpOptions;
use dicom_export::store::{Checkpoint, MemoryOperationStore, OperationStore};
use dicom_export::{OperationId, OperationSpec, OperationStatus, Timestamp};
use serde_json::{Value, json};

use crate::support::{GatedSink, Server, archive, engine, engine_over, export_everything};

#[tokio::test]
async fn pages_are_stable_while_operations_start() {
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new()).await;
    assert_eq!(server.get("/v1/operations").await.body, json!({ "operations": [] }));
    let mut started = Vec::new();
    for _ in 0..7 {
        started.push(server.export("/v1/export", &export_everything()).await);
    }
    for id in &started {
        server.wait(&format!("/v1/operations/{id}")).await;
    }
    for limit in [1, 3, 7, 1000] {
        let (mut found, mut next) = (Vec::new(), format!("/v2/operations?limit={limit}"));
        loop {
            let page = server.get(&next).await.body;
            for operation in page["operations"].as_array().unwrap() {
                assert_eq!(operation["status"], "succeeded");
                found.push(operation["operationId"].as_str().unwrap().to_owned());
            }
            assert!(page["operations"].as_array().unwrap().len() <= limit);
            server.export("/v1/export", &export_everything()).await;
            match page["continuationToken"].as_str() {
                Some(token) => next = format!("/v2/operations?limit={limit}&continuationToken={token}"),
                None => break,
            }
        }
        let oldest = found.split_off(found.len() - 7);
        assert!(oldest.iter().rev().eq(&started));
    }
}

#[tokio::test]
async fn an_invalid_query_is_400() {
    let server = Server::start(&engine(archive(3), GatedSink::new(true)), HttpOptions::new()).await;
    for query in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=many",
        "limit=",
        "limit=1&limit=2",
        "continuationToken=",
        "continuationToken=1",
        "continuationToken=1.2",
        "continuationToken=99999999999999999999999999999999.00000000000000000000000000000000",
        "limit=99999999999999999999999999",
        "status=",
        "status=done",
        "status=failed,running",
        "status=failed&status=running",
    ] {
        let response = server.get(&format!("/operations?{query}")).await;
        let name = query.split('=').next().unwrap();
        assert!(response.assert_problem(400).contains(&format!("'{name}'")), "{response:?}");
    }
    // Unknown parameters are ignored.
    server.get("/operations?api-version=1").await;
}

#[tokio::test]
async fn a_status_selects_operations_on_every_page() {
    let sink = GatedSink::new(true);
    let server = Server::start(&engine(archive(3), sink.clone()), HttpOptions::new()).await;
    let mut completed = Vec::new();
    for _ in 0..3 {
        let id = server.export("/v1/export", &export_everything()).await;
        server.wait(&format!("/v1/operations/{id}")).await;
        completed.push(id);
    }
    sink.set_open(false);
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(server.export("/v1/export", &export_everything()).await);
    }
    let mut canceled = running.split_off(2);
    for id in &canceled {
        server.delete(&format!("/v1/operations/{id}")).await;
        server.wait(&format!("/v1/operations/{id}")).await;
    }
    for ids in [&mut completed, &mut running, &mut canceled] {
        ids.reverse();
    }
    let none = Vec::new();
    for (status, expected) in [
        ("completed", &completed),
        // Both versions' names are read under both, in any case.
        ("Succeeded", &completed),
        ("running", &running),
        ("canceled", &canceled),
        ("failed", &none),
    ] {
        for limit in [1, 2, 100] {
            let (mut found, mut next) = (Vec::new(), format!("/v1/operations?status={status}&limit={limit}"));
            loop {
                let page = server.get(&next).await.body;
                let operations = page["operations"].as_array().unwrap();
                assert!(operations.len() <= limit);
                found.extend(operations.iter().map(|one| one["operationId"].as_str().unwrap().to_owned()));
                let Some(token) = page["continuationToken"].as_str() else { break };
                next = format!("/v1/operations?status={status}&limit={limit}&continuationToken={token}");
            }
            assert_eq!(&found, expected, "{status}");
        }
    }
}

/// The route filtered by status: it read every operation, and returned empty pages.
#[tokio::test]
async fn a_status_is_searched_in_the_store() {
    let store = MemoryOperationStore::new();
    let created = Timestamp::now();
    for number in 0..3000_u128 {
        let spec: OperationSpec = serde_json::from_value(json!({
            "id": OperationId::from_u128(number), "createdTime": created, "source": null, "errorHref": "",
            "destination": { "type": "memory", "location": "", "settings": null, "hasSecret": false },
        }))
        .unwrap();
        let mut checkpoint = Checkpoint::first(created);
        checkpoint.status = if number < 2 { OperationStatus::Failed } else { OperationStatus::Completed };
        checkpoint.error_href = "https://account.example/container/errors.log".to_owned();
        store.create(&spec, &checkpoint).await.unwrap();
    }
    let engine = engine_over(archive(3), GatedSink::new(true), store);
    let server = Server::start(&engine, HttpOptions::new()).await;
    let failed = |number| OperationId::from_u128(number).to_string();
    let first = server.get("/v1/operations?status=failed&limit=1").await.body;
    assert_eq!(first["operations"][0]["operationId"], failed(1));
    let token = first["continuationToken"].as_str().unwrap();
    let second =
        server.get(&format!("/v1/operations?status=failed&limit=1&continuationToken={token}")).await.body;
    assert_eq!(second["operations"][0]["operationId"], failed(0));
    assert_eq!(second["continuationToken"], Value::Null);
}
