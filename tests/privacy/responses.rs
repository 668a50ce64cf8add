//! Exports over HTTP, valid and invalid, to Azurite and to misbehaving servers: what is in responses, logs and stores.

use std::sync::Arc;
use std::time::Duration;

use dicom_export::http::{self, HttpOptions};
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::store::{OperationFilter, RedbOperationStore};
use dicom_export::{DirectorySource, ExportEngine, ExportService, RetryPolicy};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::azurite::Azurite;
use crate::canary::Canaries;
use crate::responder::{Reply, Responder};
use crate::{archive, log};

/// As in a URI and in a connection string.
const SIGNATURE: &str = "Y2FuYXJ5LXNpZ25hdHVyZS1vbmU%2BL3R3bw%3D%3D";
const KEY: &str = "Y2FuYXJ5LWFjY291bnQta2V5LXRoYXQtbm9ib2R5LW1heS1zZWU=";

/// The API with a folder as its source and a state file, and all its responses.
struct Api {
    /// Deleted when dropped.
    _archive: TempDir,
    state: TempDir,
    engine: ExportEngine,
    url: String,
    client: reqwest::Client,
    responses: String,
    task: JoinHandle<()>,
}

impl Api {
    async fn start() -> Self {
        log::start();
        let (archive, state) = (archive::folder(20), tempfile::tempdir().unwrap());
        let engine = ExportEngine::builder(DirectorySource::open(archive.path()).unwrap())
            .destination("azureblob", AzureBlobProvider::new(AzureBlobPolicy::development()))
            .operation_store(Arc::new(RedbOperationStore::open(state.path().join("state")).unwrap()))
            .retry(RetryPolicy::with_budget(Duration::from_millis(300)))
            .batch_size(2)
            .checkpoint_interval(Duration::ZERO)
            .build()
            .unwrap();
        let app = http::router(engine.clone(), HttpOptions::new().body_limit(1 << 20));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { _archive: archive, state, engine, url, client, responses: String::new(), task }
    }

    /// Sends a request, keeps the whole response, and returns its status and body.
    async fn send(&mut self, method: Method, path: &str, body: impl Into<String>) -> (u16, Value) {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(body.into());
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status().as_u16(), format!("{:?}", response.headers()));
        let text = response.text().await.unwrap();
        self.responses.push_str(&format!("{status} {headers}\n{text}\n"));
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn export(&mut self, destination: Value) -> (u16, Value) {
        self.send(Method::POST, "/v1/export", json!({ "destination": destination }).to_string()).await
    }

    /// Polls until the operation has ended.
    async fn wait(&mut self, id: &Value) -> Value {
        let path = format!("/v2/operations/{}", id.as_str().unwrap());
        loop {
            match self.send(Method::GET, &path, "").await {
                (200, document) => return document,
                (202, _) => tokio::time::sleep(Duration::from_millis(10)).await,
                response => panic!("{response:?}"),
            }
        }
    }

    /// Asserts that these canaries and the patient's data appear nowhere. The state file is searched after the engine has
    /// shut down. It may contain paths, because it contains cursors.
    async fn assert_no_leak(self, secrets: Canaries) {
        let canaries = secrets.clone().and(archive::canaries());
        canaries.assert_absent("an HTTP response", &self.responses);
        for record in self.engine.list(&OperationFilter::new(100)).await.unwrap() {
            canaries.assert_absent("a record's Debug", format!("{record:?}{record:#?}"));
        }
        canaries.assert_absent("an engine's Debug", format!("{:?}", self.engine));
        log::assert_no_leak(&canaries, &["hyper_util", "reqwest"]);
        self.engine.shutdown(Duration::from_secs(5)).await;
        self.task.abort();
        let state = std::fs::read(self.state.path().join("state")).unwrap();
        secrets.and(archive::patient()).assert_absent("the state file", &state);
    }
}

fn azureblob(settings: Value) -> Value {
    json!({ "type": "azureblob", "settings": settings })
}

fn uri(uri: &str) -> Value {
    azureblob(json!({ "blobContainerUri": uri }))
}

/// The signature of a SAS URI.
fn signature(uri: &str) -> &str {
    uri.split_once("sig=").unwrap().1.split('&').next().unwrap()
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_6_an_export_with_a_sas_discloses_neither_signature_nor_patient() {
    let mut api = Api::start().await;
    let container = Azurite::shared().container().await;
    let good = container.sas_url("w");
    let mut canaries = Canaries::default().with("the signature", signature(&good));

    let (status, started) = api.export(uri(&good)).await;
    assert_eq!(status, 202, "{started}");
    let ended = api.wait(&started["id"]).await;
    assert_eq!(
        (&ended["status"], &ended["results"]["exported"]),
        (&"succeeded".into(), &20.into()),
        "{ended}"
    );
    // The file without usable UIDs is skipped. Other files that are left out are counted in warnings.
    assert_eq!(ended["results"]["skipped"], 1, "{ended}");
    assert_eq!(ended["warnings"].as_array().unwrap().len(), 2, "{ended}");

    // A known and an unknown identifier.
    let values = json!([archive::instance(3).to_string(), "1.2.3.4"]);
    let source = json!({ "type": "identifiers", "settings": { "values": values } });
    let body = json!({ "source": source, "destination": uri(&good) }).to_string();
    let (_, started) = api.send(Method::POST, "/export", body).await;
    let ended = api.wait(&started["id"]).await;
    assert_eq!(
        (&ended["results"]["exported"], &ended["results"]["skipped"]),
        (&1.into(), &1.into()),
        "{ended}"
    );
    let log = format!("{}/errors.log", started["id"].as_str().unwrap());
    canaries.assert_absent("errors.log", container.get(&log).await.unwrap().bytes);

    // An expired signature, a missing container, an unreachable host, a forged signature.
    let expired = container.sas_url_until("w", chrono::Utc::now() - chrono::TimeDelta::hours(1));
    let missing = Azurite::shared().missing_container().sas_url("w");
    let unreachable = format!("http://127.0.0.1:1/devstoreaccount1/container?sp=w&sig={SIGNATURE}");
    let forged = format!("{}?sv=2022-11-02&sr=c&sp=w&sig={SIGNATURE}", container.url());
    for bad in [&expired, &missing, &unreachable, &forged] {
        canaries = canaries.with("a bad URI's signature", signature(bad));
        let (status, response) = api.export(uri(bad)).await;
        assert_eq!((status, &response["pointer"]), (400, &"/destination".into()), "{response}");
    }
    api.assert_no_leak(canaries).await;
}

/// A destination that echoes the request in every part of its response.
#[tokio::test]
async fn guarantee_6_a_destination_that_echoes_the_credential_is_not_quoted() {
    let mut api = Api::start().await;
    let canaries = Canaries::default().with("the signature", SIGNATURE);
    let elsewhere = Responder::start(|_| Reply::status(201)).await;
    let echo = format!("<Error><Code>AuthenticationFailed</Code><Detail>sig={SIGNATURE}</Detail></Error>");
    for (status, code) in
        [(403, "AuthenticationFailed"), (403, "sig"), (400, ""), (409, ""), (500, ""), (503, ""), (307, "")]
    {
        let (echo, location) = (echo.clone(), format!("{}/?sig={SIGNATURE}", elsewhere.url()));
        let server = Responder::start(move |request| {
            let echoed = request.query.get("sig").cloned().unwrap_or_default();
            let code = if code == "sig" { format!("sig={echoed}") } else { code.to_owned() };
            Reply::status(status)
                .header("x-ms-error-code", code)
                .header("www-authenticate", format!("Bearer realm=\"{echoed}\""))
                .header("location", &location)
                .body(&echo)
        });
        let server = server.await;
        let to = format!("{}/devstoreaccount1/container?sp=w&sig={SIGNATURE}", server.url());
        let (status, response) = api.export(uri(&to)).await;
        assert_eq!(status, 400, "{response}");
        assert!(
            server.requests().iter().any(|request| request.query.contains_key("sig")),
            "the destination was not called"
        );
    }
    assert!(elsewhere.requests().is_empty(), "a redirect was followed");
    api.assert_no_leak(canaries).await;
}

/// Only the log can be written: the operation fails, is resumed with another credential, and fails again.
#[tokio::test]
async fn guarantee_6_a_failed_and_resumed_operation_discloses_neither_credential() {
    const SECOND: &str = "c2Vjb25kLWNhbmFyeS1zaWduYXR1cmUvMg%3D%3D";
    let mut api = Api::start().await;
    let canaries = Canaries::default().with("the signature", SIGNATURE).with("the second signature", SECOND);
    let server = Responder::start(|request| match request.path.ends_with("/errors.log") {
        true => Reply::status(201),
        false => Reply::code(403, "AuthorizationPermissionMismatch").body(format!("{request:?}")),
    });
    let server = server.await;
    let at = |signature| format!("{}/devstoreaccount1/container?sp=w&sig={signature}", server.url());
    let (status, started) = api.export(uri(&at(SIGNATURE))).await;
    assert_eq!(status, 202, "{started}");
    let failed = api.wait(&started["id"]).await;
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&"failed".into(), &"unauthorized".into()),
        "{failed}"
    );

    let path = format!("/v1/operations/{}", started["id"].as_str().unwrap());
    let resume = format!("{path}/resume");
    assert_eq!(api.send(Method::POST, &resume, "").await.0, 409);
    let body = json!({ "destination": uri(&at(SECOND)) }).to_string();
    assert_eq!(api.send(Method::POST, &resume, body).await.0, 202);
    assert_eq!(api.wait(&started["id"]).await["status"], "failed");
    let other = at(SECOND).replace("/container?", "/another?");
    assert_eq!(
        api.send(Method::POST, &resume, json!({ "destination": uri(&other) }).to_string()).await.0,
        400
    );
    assert_eq!(api.send(Method::DELETE, &path, "").await.0, 409);
    assert_eq!(api.send(Method::GET, "/v1/operations?limit=5", "").await.0, 200);
    for signature in [SIGNATURE, SECOND] {
        assert!(
            server
                .requests()
                .iter()
                .any(|request| request.query.get("sig").is_some_and(|sig| sig == signature))
        );
    }
    api.assert_no_leak(canaries).await;
}

/// Misplaced secrets: a caller's mistake must not put a secret into a log of responses.
#[tokio::test]
async fn guarantee_6_an_invalid_request_is_not_quoted() {
    let mut api = Api::start().await;
    let canaries = Canaries::default().with("the signature", SIGNATURE).with("the account key", KEY);
    let sas = format!("sv=2022-11-02&sp=w&sig={SIGNATURE}");
    let url = format!("https://account.blob.core.windows.net/container?{sas}");
    let account = format!("DefaultEndpointsProtocol=https;AccountName=account;AccountKey={KEY}");
    let named =
        |connection: String| json!({ "connectionString": connection, "blobContainerName": "container" });
    let settings = [
        // An account key, and the emulator's account with another key.
        named(account.clone()),
        named(format!("AccountName=devstoreaccount1;AccountKey={KEY}")),
        named(format!("{account};SharedAccessSignature={sas}")),
        named(format!("BlobEndpoint=https://nobody.example;SharedAccessSignature={sas}")),
        named(format!("BlobEndpoint={url};SharedAccessSignature={sas}")),
        named(format!("AccountName={KEY}")),
        named(format!("AccountNome={KEY}")),
        named(format!("UseDevelopmentStorage={KEY}")),
        named(KEY.to_owned()),
        named(format!("{KEY}=x")),
        // Values of other properties.
        json!({ "blobContainerUri": account }),
        json!({ "connectionString": url, "blobContainerName": "container" }),
        json!({ "connectionString": "UseDevelopmentStorage=true", "blobContainerName": url }),
        json!({ "blobContainerUri": url, "useManagedIdentity": true }),
        json!({ "blobContainerUri": url, "useManagedIdentity": KEY }),
        json!({ "blobContainerUri": url, "blobContainerName": KEY }),
        json!({ "blobContainerUri": [url] }),
        json!({ "blobContainerUri": { (url.clone()): true } }),
        json!({ "blobContainerUrl": url }),
        // Values as names.
        json!({ (url.clone()): true }),
        json!({ (format!("sig={SIGNATURE}")): true }),
        json!({ (KEY): KEY }),
        // Misplaced values.
        json!({ "blobContainerUri": url.replace("https", "http") }),
        json!({ "blobContainerUri": format!("https://{KEY}:{KEY}@account.blob.core.windows.net/container") }),
        json!({ "blobContainerUri": format!("https://account.blob.core.windows.net/{KEY}") }),
        json!({ "blobContainerUri": format!("{url}#{SIGNATURE}") }),
        json!({ "blobContainerUri": url.replace("account.blob.core.windows.net", "nobody.example") }),
        json!({ "blobContainerUri": url.replace("sig=", "sog=") }),
    ];
    for settings in settings {
        let (status, response) = api.export(azureblob(settings.clone())).await;
        assert_eq!(status, 400, "{settings}: {response}");
        let whole = json!({ "source": { "type": KEY }, "destination": azureblob(settings) });
        assert_eq!(api.send(Method::POST, "/v2/export", whole.to_string()).await.0, 400);
    }
    let bodies = [
        format!(r#"{{ "destination": {{ "type": "azureblob", "settings": {{ "blobContainerUri": "{url} }}"#),
        format!(r#"{{ "destination": "{url}" }}"#),
        format!(r#""{url}""#),
        url.clone(),
        format!(r#"{{ "{url}": 1, "{url}": 2 }}"#),
        json!({ "destination": { "type": url, "settings": {} } }).to_string(),
        json!({ "destination": { "type": "azureblob", "settings": url } }).to_string(),
        json!({ "source": { "type": "identifiers", "settings": { "values": [archive::NAME, archive::ID, url] } },
            "destination": uri("https://account.blob.core.windows.net/container?sig=x") })
        .to_string(),
        json!({ (archive::NAME): archive::ID }).to_string(),
    ];
    for body in bodies {
        let (status, response) = api.send(Method::POST, "/v1/export", body.clone()).await;
        assert_eq!(status, 400, "{body}: {response}");
    }
    let id = "0123456789abcdef0123456789abcdef";
    let body = json!({ "destination": uri(&url) }).to_string();
    let requests = [
        (Method::POST, format!("/v1/operations/{id}/resume"), body.clone()),
        (Method::POST, format!("/v1/operations/{id}/resume?{sas}"), url.clone()),
        (Method::GET, format!("/v1/operations/{id}?{sas}"), String::new()),
        (Method::GET, format!("/v1/operations?{sas}"), String::new()),
        (Method::GET, format!("/v1/operations?limit={KEY}&continuationToken={KEY}"), String::new()),
        (Method::GET, format!("/v1/operations?continuationToken={SIGNATURE}"), String::new()),
        (Method::GET, format!("/v1/operations/{SIGNATURE}"), String::new()),
        (Method::DELETE, format!("/v1/operations/{SIGNATURE}"), String::new()),
        (Method::PUT, format!("/v1/export?{sas}"), body),
        (Method::POST, "/v1/export".into(), " ".repeat(2 << 20) + &url),
    ];
    for (method, path, body) in requests {
        let (status, response) = api.send(method, &path, body).await;
        assert!(status >= 200, "{path}: {response}");
    }
    api.assert_no_leak(canaries).await;
}

/// The document contains made-up credentials only.
#[test]
fn guarantee_6_the_openapi_document_contains_no_credential() {
    let document = serde_json::to_string(&http::openapi()).unwrap();
    let published = include_str!("../../docs/openapi.json");
    for document in [&*document, published] {
        assert!(!document.contains(crate::azurite::KEY), "the emulator's key");
        for part in document.split("sig=").skip(1) {
            let value: String =
                part.chars().take_while(|c| c.is_ascii_alphanumeric() || "%+/".contains(*c)).collect();
            assert!(value.len() < 40, "a signature has 44 characters: {value}");
        }
        for part in document.split("AccountKey=").skip(1) {
            let value: String =
                part.chars().take_while(|c| c.is_ascii_alphanumeric() || "+/".contains(*c)).collect();
            assert!(value.len() < 80, "an account key has 88 characters: {value}");
        }
    }
}
