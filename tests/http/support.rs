//! A server on a free port, and a client that checks every response against the OpenAPI document.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use dicom_export::http::{self, ApiDescription, HttpOptions};
use dicom_export::sink::azure::AzureBlobProvider;
use dicom_export::sink::gcs::GcsProvider;
use dicom_export::sink::s3::S3Provider;
use dicom_export::sink::{Secret, ValidatedSettings};
use dicom_export::store::MemoryOperationStore;
use dicom_export::{
    BlobSink, ErrorLogEntry, ExportEngine, ExportEngineBuilder, ExportService, InstanceIdentifier,
    MemorySource, OperationSpec, Result, RetryPolicy, SinkProvider,
};
use jsonschema::Validator;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};

/// The OpenAPI document of a server with the destination types of this crate.
pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let engine = ExportEngine::builder(MemorySource::new())
        .destination("azureblob", AzureBlobProvider::default())
        .destination("s3", S3Provider::default())
        .destination("googlecloudstorage", GcsProvider::default())
        .build()
        .expect("an engine");
    let description = ApiDescription::router().destination_types(engine.destination_types());
    serde_json::to_value(description.build()).expect("JSON")
});

static SCHEMAS: LazyLock<HashMap<String, Validator>> = LazyLock::new(|| {
    let names = DOCUMENT["components"]["schemas"].as_object().expect("schemas").keys();
    let validator = |name: &String| {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$ref": format!("#/components/schemas/{name}"),
            "components": DOCUMENT["components"],
        });
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).expect("a schema");
        (format!("#/components/schemas/{name}"), validator)
    };
    names.map(validator).collect()
});

pub(crate) fn instance(study: usize, series: usize, sop: usize) -> InstanceIdentifier {
    format!("1.2.{study}/1.2.{study}.{series}/1.2.{study}.{series}.{sop}").parse().unwrap()
}

/// Three studies of `per_study` instances in series of three.
pub(crate) fn archive(per_study: usize) -> Arc<MemorySource> {
    let all = (0..3 * per_study).map(|n| {
        let id = instance(n / per_study, n % per_study / 3, n % 3);
        let bytes = Bytes::from(format!("DICM {id}"));
        (id, bytes)
    });
    Arc::new(all.collect())
}

/// A container in memory with a gate. While the gate is closed, instances wait and the operation keeps running.
pub(crate) type GatedSink = HookedSink<Gate>;

#[derive(Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

#[async_trait]
impl SinkHook for Gate {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        if let SinkCall::Put(..) = call {
            _ = self.0.subscribe().wait_for(|open| *open).await;
        }
        Ok(())
    }
}

impl GatedSink {
    pub(crate) fn new(open: bool) -> Self {
        Self::with_hook(Gate(watch::Sender::new(open)))
    }

    pub(crate) fn set_open(&self, open: bool) {
        self.hook.0.send_replace(open);
    }

    pub(crate) fn log(&self, id: &str) -> Vec<ErrorLogEntry> {
        let log = self.inner.get(&format!("{id}/errors.log")).expect("errors.log exists");
        std::str::from_utf8(&log).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn blobs(&self, id: &str) -> usize {
        let results = format!("{id}/results/");
        self.inner.names().iter().filter(|name| name.starts_with(&results)).count()
    }
}

#[async_trait]
impl SinkProvider for GatedSink {
    /// The location is the container's URI, whose name is case-insensitive as that of the published destination type.
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
        let members = settings.as_object().into_iter().flatten();
        let uri = members.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("blobContainerUri"));
        let location = uri.and_then(|(_, uri)| uri.as_str()).unwrap_or("memory");
        Ok(ValidatedSettings::new(location, Value::Null))
    }

    async fn open(&self, _: &OperationSpec, _: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        Ok(Arc::new(self.clone()))
    }
}

/// An engine with everything in memory and without retries.
pub(crate) fn engine(source: Arc<MemorySource>, sink: impl SinkProvider) -> ExportEngine {
    engine_over(source, sink, MemoryOperationStore::new())
}

pub(crate) fn engine_over(
    source: Arc<MemorySource>,
    sink: impl SinkProvider,
    store: MemoryOperationStore,
) -> ExportEngine {
    builder_over(source, sink, store).build().unwrap()
}

pub(crate) fn builder_over(
    source: Arc<MemorySource>,
    sink: impl SinkProvider,
    store: MemoryOperationStore,
) -> ExportEngineBuilder {
    ExportEngine::builder(source)
        .destination("azureblob", sink)
        .operation_store(store)
        .retry(RetryPolicy::none())
}

/// A server that stops at the end of the test.
pub(crate) struct Server {
    pub(crate) url: String,
    /// The path prefix of the API's routes.
    pub(crate) prefix: String,
    /// The paths of the OpenAPI document that describes the server.
    pub(crate) paths: Value,
    pub(crate) client: reqwest::Client,
    task: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Server {
    pub(crate) async fn start(engine: &ExportEngine, options: HttpOptions) -> Self {
        Self::serve(http::router(engine.clone(), options)).await
    }

    pub(crate) async fn serve(app: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let mut server = Self::at(url);
        server.task = Some(task);
        server
    }

    /// A server that another task or process runs.
    pub(crate) fn at(url: String) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { url, prefix: String::new(), paths: DOCUMENT["paths"].clone(), client, task: None }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = match path.starts_with("http") {
            true => path.to_owned(),
            false => format!("{}{path}", self.url),
        };
        self.client.request(method, url)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Response {
        self.send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(self.request(Method::POST, path).json(body)).await
    }

    /// Sends a request and checks the response against the document.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Response {
        let request = request.build().unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.client.execute(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{status} is not JSON: {text}"));
        let response = Response { status, headers, body };
        response.assert_documented(
            &method,
            path.strip_prefix(&self.prefix).expect("the API's prefix"),
            &self.paths,
        );
        response
    }

    /// Starts an export and returns its id.
    pub(crate) async fn export(&self, path: &str, body: &Value) -> String {
        let response = self.post(path, body).await;
        assert_eq!(response.status, StatusCode::ACCEPTED, "{response:?}");
        response.body["id"].as_str().unwrap().to_owned()
    }

    /// Polls until the operation has ended, at most three minutes.
    pub(crate) async fn wait(&self, path: &str) -> Value {
        let poll = async {
            loop {
                let response = self.get(path).await;
                match response.status {
                    StatusCode::ACCEPTED => sleep(Duration::from_millis(5)).await,
                    StatusCode::OK => return response.body,
                    _ => panic!("{response:?}"),
                }
            }
        };
        timeout(Duration::from_secs(180), poll).await.expect("the operation ends")
    }
}

#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: Value,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// Asserts that this is a problem with this status, and returns its detail.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16) -> &str {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["type"], "about:blank");
        assert_eq!(self.body["title"], self.status.canonical_reason().unwrap());
        assert_eq!(self.body["status"], status);
        self.body["detail"].as_str().unwrap()
    }

    /// Asserts that this is a problem with this status and pointer, and returns its detail.
    #[track_caller]
    pub(crate) fn assert_problem_at(&self, status: u16, pointer: &str) -> &str {
        assert_eq!(self.body["pointer"], pointer, "{self:?}");
        self.assert_problem(status)
    }

    /// Checks status, media type, headers and body against the document.
    fn assert_documented(&self, method: &Method, path: &str, paths: &Value) {
        assert_eq!(self.header("cache-control"), "no-store");
        let kind = self.header("content-type");
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            assert!(!self.header("allow").is_empty());
            return check("#/components/schemas/Problem", &self.body);
        }
        let segments: Vec<_> = path.split('/').collect();
        let matches = |template: &str| {
            let template: Vec<_> = template.split('/').collect();
            template.len() == segments.len()
                && template.iter().zip(&segments).all(|(a, b)| a.starts_with('{') || a == b)
        };
        let (_, item) = paths
            .as_object()
            .unwrap()
            .iter()
            .find(|(template, _)| matches(template))
            .unwrap_or_else(|| panic!("{path} is not in the document"));
        let response = &item[method.as_str().to_lowercase()]["responses"][self.status.as_str()];
        assert!(response.is_object(), "{method} {path}: {} is not in the document", self.status);
        let schema = &response["content"][kind]["schema"]["$ref"];
        check(schema.as_str().unwrap_or_else(|| panic!("{kind} is not in the document")), &self.body);
        for name in response["headers"].as_object().into_iter().flat_map(|headers| headers.keys()) {
            assert!(!self.header(name).is_empty());
        }
    }
}

/// Checks a value against one of the document's schemas.
#[track_caller]
pub(crate) fn check(schema: &str, value: &Value) {
    if let Err(fault) = SCHEMAS[schema].validate(value) {
        panic!("{value} does not match {schema}: {fault}");
    }
}

/// A request that exports these identifiers.
pub(crate) fn export_of(values: Value) -> Value {
    json!({ "source": { "type": "identifiers", "settings": { "values": values } }, "destination": azure_destination() })
}

pub(crate) fn export_everything() -> Value {
    json!({ "destination": azure_destination() })
}

pub(crate) fn azure_destination() -> Value {
    json!({ "type": "azureblob", "settings": { "blobContainerUri": "https://a.blob.core.windows.net/export" } })
}
