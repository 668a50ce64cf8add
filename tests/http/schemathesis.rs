//! Generated requests, valid and invalid. No response deviates from the OpenAPI document or has a 5xx status.

use std::path::PathBuf;

use axum::routing::get;
use axum::{Json, Router};
use dicom_export::http::{self, ApiDescription, HttpOptions};
use dicom_export::sink::azure::AzureBlobProvider;
use dicom_export::store::MemoryOperationStore;
use dicom_export::{DestinationType, SinkProvider};
use tokio::process::Command;

use crate::support::{GatedSink, Server, archive, builder_over};

/// The checks without two: the server accepts some requests that the document forbids, and may refuse a destination that
/// the document allows.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,unsupported_method,\
                      allow_header_conformance,missing_required_header,ensure_resource_availability";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs schemathesis: tests/run.sh"]
async fn every_response_is_documented() {
    let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/venv/bin/schemathesis");
    assert!(program.exists(), "schemathesis is not installed: run tests/run.sh");
    // The destination type of this server, whose sink accepts all settings; with others, few exports would start.
    let schema = AzureBlobProvider::default().settings_schema().unwrap();
    let azure = DestinationType::new("azureblob").with_settings_schema(schema);
    let document = ApiDescription::router().destination_types([azure]).build();
    let builder = builder_over(archive(3), GatedSink::new(true), MemoryOperationStore::new());
    let engine = builder.max_running(20).build().unwrap();
    let app = Router::new()
        .merge(http::router(engine, HttpOptions::new()))
        .route("/openapi.json", get(async || Json(document)));
    let server = Server::serve(app).await;
    // Schemathesis writes files to its working directory.
    let folder = tempfile::tempdir().unwrap();
    let examples = if std::env::var_os("DICOM_EXPORT_LONG").is_some() { "500" } else { "30" };
    let output = Command::new(program)
        .current_dir(folder.path())
        .args(["run", &format!("{}/openapi.json", server.url), "--checks", CHECKS])
        .args(["--max-examples", examples, "--seed", "20220908", "--continue-on-failure", "--no-color"])
        .output()
        .await
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{report}");
    // Every operation was tested.
    assert!(report.contains("Selected: 24/24"), "{report}");
}
