//! Partitions as in the Medical Imaging Server for DICOM: the path of an export contains the partition, the path of an
//! operation does not.

use std::sync::Arc;

use async_trait::async_trait;
use dicom_export::http::{self, ApiDescription, HttpOptions};
use dicom_export::{
    Error, ErrorKind, ExportEngine, InstanceSource, OperationSpec, Result, RetryPolicy, SourceProvider,
};
use reqwest::StatusCode;
use serde_json::json;

use crate::support::{GatedSink, Server, archive, export_everything};

/// Partition `north` has 9 instances, partition `south` 27.
struct Partitions;

#[async_trait]
impl SourceProvider for Partitions {
    async fn open(&self, operation: &OperationSpec) -> Result<Arc<dyn InstanceSource>> {
        match operation.context.partition.as_deref() {
            Some("north") => Ok(archive(3)),
            Some("south.2") => Ok(archive(9)),
            _ => Err(Error::new(ErrorKind::NotFound, "the partition does not exist")),
        }
    }
}

#[tokio::test]
async fn exports_start_under_a_partition_and_operations_are_read_without_it() {
    let engine = ExportEngine::builder_with_provider(Partitions)
        .destination("azureblob", GatedSink::new(true))
        .retry(RetryPolicy::none())
        .build()
        .unwrap();
    let mut server = Server::serve(http::partition_router(engine, HttpOptions::new())).await;
    let document = serde_json::to_value(ApiDescription::partition_router().build()).unwrap();
    server.paths = document["paths"].clone();
    for (prefix, links, completed) in
        [("", "/v1", "completed"), ("/v1", "/v1", "completed"), ("/v2", "/v2", "succeeded")]
    {
        for (partition, exported) in [("north", 9), ("south.2", 27)] {
            let path = format!("{prefix}/partitions/{partition}/export");
            let started = server.post(&path, &export_everything()).await;
            assert_eq!(started.status, StatusCode::ACCEPTED, "{started:?}");
            // The published .NET client builds this URL from the id.
            let url = format!("{}{links}/operations/{}", server.url, started.body["id"].as_str().unwrap());
            assert_eq!((&started.body["href"], started.header("location")), (&json!(url), url.as_str()));
            let ended = server.wait(&url).await;
            assert_eq!(
                (&ended["status"], &ended["results"]["exported"]),
                (&json!(completed), &json!(exported))
            );
        }
        let unknown = server.post(&format!("{prefix}/partitions/west/export"), &export_everything()).await;
        assert_eq!(unknown.assert_problem(400), "the partition does not exist");
        for invalid in ["a%2Fb", "a%20b", &"x".repeat(65)] {
            let path = format!("{prefix}/partitions/{invalid}/export");
            server.post(&path, &export_everything()).await.assert_problem(400);
        }
        let url = |path: &str| format!("{}{prefix}{path}", server.url);
        for path in ["/export", "/partitions/north/operations"] {
            let response = server.client.post(url(path)).json(&export_everything()).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
