//! Exports over HTTP, good and bad, to Azurite and to servers that misbehave: what is answered, logged and kept.

use std::sync::Arc;
use std::time::Duration;

use dicom_export::http::{self, HttpOptions};
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::store::RedbOperationStore;
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

/// As they stand in a URI and in a connection string.
const SIGNATURE: &str = "Y2FuYXJ5LXNpZ25hdHVyZS1vbmU%2BL3R3bw%3D%3D";
const KEY: &str = "Y2FuYXJ5LWFjY291bnQta2V5LXRoYXQtbm9ib2R5LW1heS1zZWU=";

/// The API over a folder and a state file, and everything that it has answered.
struct Api {
    /// Kept for as long as it is exported.
    _archive: TempDir,
    state: TempDir,
    engine: ExportEngine,
    url: String,
    client: reqwest::Client,
    answers: String,
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
        let app = http::router(Arc::new(engine.clone()), HttpOptions::new().body_limit(1 << 20));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let task = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { _archive: archive, state, engine, url, client, answers: String::new(), task }
    }

    /// Asks, keeps the whole answer, and gives its status and body.
    async fn ask(&mut self, method: Method, path: &str, body: impl Into<String>) -> (u16, Value) {
        let request = self.client.request(method, format!("{}{path}", self.url));
        let request = request.header("content-type", "application/json").body(body.into());
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status().as_u16(), format!("{:?}", answer.headers()));
        let text = answer.text().await.unwrap();
        self.answers.push_str(&format!("{status} {headers}\n{text}\n"));
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    async fn export(&mut self, destination: Value) -> (u16, Value) {
        self.ask(Method::POST, "/v1/export", json!({ "destination": destination }).to_string()).await
    }

    /// Polls until the operation has ended.
    async fn ended(&mut self, id: &Value) -> Value {
        let path = format!("/v2/operations/{}", id.as_str().unwrap());
        loop {
            match self.ask(Method::GET, &path, "").await {
                (200, document) => return document,
                (202, _) => tokio::time::sleep(Duration::from_millis(10)).await,
                answer => panic!("{answer:?}"),
            }
        }
    }

    /// Looks everywhere for these and for the patient, in the state file when the engine has shut down: all of it is on
    /// the disk then. A state file holds cursors, and so paths, as its documentation says; nothing else of a patient.
    async fn assert_discreet(self, secrets: Canaries) {
        let canaries = secrets.clone().and(archive::canaries());
        canaries.assert_absent("an HTTP answer", &self.answers);
        for record in self.engine.list(None, 100).await.unwrap() {
            canaries.assert_absent("a record's Debug", format!("{record:?}{record:#?}"));
        }
        canaries.assert_absent("an engine's Debug", format!("{:?}", self.engine));
        log::assert_discreet(&canaries, &["hyper_util", "reqwest"]);
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
async fn guarantee_6_an_export_by_sas_shows_neither_the_signature_nor_the_patient() {
    let mut api = Api::start().await;
    let container = Azurite::shared().container().await;
    let good = container.sas_url("w");
    let mut canaries = Canaries::default().with("the signature", signature(&good));

    let (status, started) = api.export(uri(&good)).await;
    assert_eq!(status, 202, "{started}");
    let ended = api.ended(&started["id"]).await;
    assert_eq!(
        (&ended["status"], &ended["results"]["exported"]),
        (&"succeeded".into(), &20.into()),
        "{ended}"
    );
    assert_eq!(ended["warnings"].as_array().unwrap().len(), 3, "{ended}");

    // Some of it, and something that is not there.
    let values = json!([archive::instance(3).to_string(), "1.2.3.4"]);
    let source = json!({ "type": "identifiers", "settings": { "values": values } });
    let body = json!({ "source": source, "destination": uri(&good) }).to_string();
    let (_, started) = api.ask(Method::POST, "/export", body).await;
    let ended = api.ended(&started["id"]).await;
    assert_eq!(
        (&ended["results"]["exported"], &ended["results"]["skipped"]),
        (&1.into(), &1.into()),
        "{ended}"
    );
    let log = format!("{}/errors.log", started["id"].as_str().unwrap());
    canaries.assert_absent("errors.log", container.get(&log).await.unwrap().bytes);

    // A signature that is wrong, of a container that is not there, and of nobody.
    let expired = container.sas_url_until("w", chrono::Utc::now() - chrono::TimeDelta::hours(1));
    let missing = Azurite::shared().missing_container().sas_url("w");
    let nobody = format!("http://127.0.0.1:1/devstoreaccount1/container?sp=w&sig={SIGNATURE}");
    let forged = format!("{}?sv=2022-11-02&sr=c&sp=w&sig={SIGNATURE}", container.url());
    for bad in [&expired, &missing, &nobody, &forged] {
        canaries = canaries.with("a bad URI's signature", signature(bad));
        let (status, answer) = api.export(uri(bad)).await;
        assert_eq!((status, &answer["pointer"]), (400, &"/destination".into()), "{answer}");
    }
    api.assert_discreet(canaries).await;
}

/// A destination that says what it was asked, in every place where something might repeat it.
#[tokio::test]
async fn guarantee_6_a_destination_that_repeats_the_credential_is_not_quoted() {
    let mut api = Api::start().await;
    let canaries = Canaries::default().with("the signature", SIGNATURE);
    let elsewhere = Responder::start(|_| Reply::status(201)).await;
    let echo = format!("<Error><Code>AuthenticationFailed</Code><Detail>sig={SIGNATURE}</Detail></Error>");
    for (status, code) in
        [(403, "AuthenticationFailed"), (403, "sig"), (400, ""), (409, ""), (500, ""), (503, ""), (307, "")]
    {
        let (echo, location) = (echo.clone(), format!("{}/?sig={SIGNATURE}", elsewhere.url()));
        let server = Responder::start(move |request| {
            let said = request.query.get("sig").cloned().unwrap_or_default();
            let code = if code == "sig" { format!("sig={said}") } else { code.to_owned() };
            Reply::status(status)
                .header("x-ms-error-code", code)
                .header("www-authenticate", format!("Bearer realm=\"{said}\""))
                .header("location", &location)
                .body(&echo)
        });
        let server = server.await;
        let to = format!("{}/devstoreaccount1/container?sp=w&sig={SIGNATURE}", server.url());
        let (answered, answer) = api.export(uri(&to)).await;
        assert_eq!(answered, 400, "{answer}");
        assert!(server.requests().iter().any(|request| request.query.contains_key("sig")), "it was asked");
    }
    assert!(elsewhere.requests().is_empty(), "no redirect is followed");
    api.assert_discreet(canaries).await;
}

/// The log can be written, and nothing else: the operation fails, and is resumed with another credential, in vain.
#[tokio::test]
async fn guarantee_6_an_operation_that_fails_and_is_resumed_shows_neither_credential() {
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
    let failed = api.ended(&started["id"]).await;
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&"failed".into(), &"unauthorized".into()),
        "{failed}"
    );

    let path = format!("/v1/operations/{}", started["id"].as_str().unwrap());
    let resume = format!("{path}/resume");
    assert_eq!(api.ask(Method::POST, &resume, "").await.0, 409);
    let body = json!({ "destination": uri(&at(SECOND)) }).to_string();
    assert_eq!(api.ask(Method::POST, &resume, body).await.0, 202);
    assert_eq!(api.ended(&started["id"]).await["status"], "failed");
    let other = at(SECOND).replace("/container?", "/another?");
    assert_eq!(
        api.ask(Method::POST, &resume, json!({ "destination": uri(&other) }).to_string()).await.0,
        400
    );
    assert_eq!(api.ask(Method::DELETE, &path, "").await.0, 409);
    assert_eq!(api.ask(Method::GET, "/v1/operations?limit=5", "").await.0, 200);
    for signature in [SIGNATURE, SECOND] {
        assert!(
            server
                .requests()
                .iter()
                .any(|request| request.query.get("sig").is_some_and(|sig| sig == signature))
        );
    }
    api.assert_discreet(canaries).await;
}

/// Secrets in the wrong places: whoever makes a mistake must not find the secret in a log of answers.
#[tokio::test]
async fn guarantee_6_a_request_that_is_refused_is_not_quoted() {
    let mut api = Api::start().await;
    let canaries = Canaries::default().with("the signature", SIGNATURE).with("the account key", KEY);
    let sas = format!("sv=2022-11-02&sp=w&sig={SIGNATURE}");
    let url = format!("https://account.blob.core.windows.net/container?{sas}");
    let account = format!("DefaultEndpointsProtocol=https;AccountName=account;AccountKey={KEY}");
    let named =
        |connection: String| json!({ "connectionString": connection, "blobContainerName": "container" });
    let settings = [
        // A key of an account, and the emulator's account with another key.
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
        // Taken one for the other.
        json!({ "blobContainerUri": account }),
        json!({ "connectionString": url, "blobContainerName": "container" }),
        json!({ "connectionString": "UseDevelopmentStorage=true", "blobContainerName": url }),
        json!({ "blobContainerUri": url, "useManagedIdentity": true }),
        json!({ "blobContainerUri": url, "useManagedIdentity": KEY }),
        json!({ "blobContainerUri": url, "blobContainerName": KEY }),
        json!({ "blobContainerUri": [url] }),
        json!({ "blobContainerUri": { (url.clone()): true } }),
        json!({ "blobContainerUrl": url }),
        // As a name.
        json!({ (url.clone()): true }),
        json!({ (format!("sig={SIGNATURE}")): true }),
        json!({ (KEY): KEY }),
        // Not where it belongs.
        json!({ "blobContainerUri": url.replace("https", "http") }),
        json!({ "blobContainerUri": format!("https://{KEY}:{KEY}@account.blob.core.windows.net/container") }),
        json!({ "blobContainerUri": format!("https://account.blob.core.windows.net/{KEY}") }),
        json!({ "blobContainerUri": format!("{url}#{SIGNATURE}") }),
        json!({ "blobContainerUri": url.replace("account.blob.core.windows.net", "nobody.example") }),
        json!({ "blobContainerUri": url.replace("sig=", "sog=") }),
    ];
    for settings in settings {
        let (status, answer) = api.export(azureblob(settings.clone())).await;
        assert_eq!(status, 400, "{settings}: {answer}");
        let whole = json!({ "source": { "type": KEY }, "destination": azureblob(settings) });
        assert_eq!(api.ask(Method::POST, "/v2/export", whole.to_string()).await.0, 400);
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
        let (status, answer) = api.ask(Method::POST, "/v1/export", body.clone()).await;
        assert_eq!(status, 400, "{body}: {answer}");
    }
    let id = "0123456789abcdef0123456789abcdef";
    let body = json!({ "destination": uri(&url) }).to_string();
    let asked = [
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
    for (method, path, body) in asked {
        let (status, answer) = api.ask(method, &path, body).await;
        assert!(status >= 200, "{path}: {answer}");
    }
    api.assert_discreet(canaries).await;
}

/// The document is made of the code alone: what stands in it for credentials is made up, and is none.
#[test]
fn guarantee_6_the_openapi_document_holds_no_credential() {
    let document = serde_json::to_string(&http::openapi()).unwrap();
    let published = include_str!("../../docs/openapi.json");
    for document in [&*document, published] {
        assert!(!document.contains(crate::azurite::KEY), "not even the emulator's key");
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
