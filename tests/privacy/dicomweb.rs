//! A DICOMweb server that requires a password, a token or a key, with a patient's data in its responses.

use std::sync::Arc;
use std::time::Duration;

use dicom_export::source::DicomWebCredentials;
use dicom_export::{
    DicomWebSource, Error, ErrorKind, ExportEngine, ExportSource, InstanceSource, MemorySink, NewOperation,
    Operation, OperationStatus, RetryPolicy, Secret,
};
use serde_json::{Value, json};

use crate::canary::{Canaries, all_of};
use crate::responder::{Reply, Request, Responder};
use crate::{archive, log};

const PASSWORD: &str = "canary-pass:word/1?";
const TOKEN: &str = "canary.bearer-token_for.DICOMweb~1";
const KEY: &str = "canary-api-key-header-value";
const USER: &str = "exporter";

fn canaries() -> Canaries {
    archive::canaries().with("the password", PASSWORD).with("the bearer token", TOKEN).with("the key", KEY)
}

fn uid(tag: &str, uid: &str) -> (String, Value) {
    (tag.to_owned(), json!({ "vr": "UI", "Value": [uid] }))
}

/// A row with the patient's data, which some servers return unrequested.
fn row(uids: &[(&str, &str)]) -> Value {
    let mut row: serde_json::Map<_, _> = uids.iter().map(|(tag, text)| uid(tag, text)).collect();
    row.insert("00100010".into(), json!({ "vr": "PN", "Value": [{ "Alphabetic": archive::NAME }] }));
    row.insert("00100020".into(), json!({ "vr": "LO", "Value": [archive::ID] }));
    row.into()
}

/// One study with one instance, on a single page.
fn serve(request: &Request) -> Reply {
    let (study, series, sop) = (("0020000D", "1.2"), ("0020000E", "1.2.3"), ("00080018", "1.2.3.4"));
    let list = |rows: Value| match request.query.get("offset").map(String::as_str) {
        None | Some("0") => Reply::status(200).header("content-type", "application/dicom+json").body(rows),
        _ => Reply::status(204),
    };
    match request.path.trim_start_matches("/dicom-web/") {
        "studies" => list(json!([row(&[study])])),
        "studies/1.2/series" => list(json!([row(&[study, series])])),
        "studies/1.2/series/1.2.3/instances" => list(json!([row(&[study, series, sop])])),
        _ => Reply::status(200).header("content-type", "application/dicom").body(format!(
            "{}DICM{}",
            "\0".repeat(128),
            archive::NAME
        )),
    }
}

fn every_kind() -> [DicomWebCredentials; 3] {
    [
        DicomWebCredentials::basic(USER, PASSWORD),
        DicomWebCredentials::bearer(TOKEN),
        DicomWebCredentials::renewing(|| async { Ok(Secret::new(TOKEN)) }),
    ]
}

fn source(url: &str, credentials: &DicomWebCredentials) -> DicomWebSource {
    let builder = DicomWebSource::builder(format!("{url}/dicom-web"))
        .credentials(credentials.clone())
        .header("x-api-key", KEY)
        .timeout(Duration::from_secs(5));
    canaries().assert_absent("Debug", format!("{builder:?}{builder:#?}{credentials:?}"));
    let source = builder.build().unwrap();
    canaries().assert_absent("Debug", format!("{source:?}{source:#?}"));
    source
}

/// Exports everything, and returns the operation and its `errors.log`.
async fn export(source: impl InstanceSource) -> (Operation, String) {
    let sink = MemorySink::new();
    let engine = ExportEngine::builder(source)
        .retry(RetryPolicy::with_budget(Duration::from_millis(100)))
        .build()
        .unwrap();
    let target: Arc<dyn dicom_export::BlobSink> = Arc::new(sink.clone());
    let started = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    let log = sink.get(&format!("{}/errors.log", ended.operation_id)).unwrap();
    (ended, String::from_utf8(log.into()).unwrap())
}

fn assert_no_leak(ended: &Operation, errors: &str) {
    canaries().assert_absent("a status", format!("{ended:?}{}", serde_json::to_string(ended).unwrap()));
    canaries().assert_absent("errors.log", errors);
    log::assert_no_leak(&canaries(), &["dicom_export", "hyper_util", "reqwest"]);
}

#[tokio::test]
async fn guarantee_6_an_export_with_a_password_or_a_token_does_not_disclose_it() {
    log::start();
    for credentials in every_kind() {
        let server = Responder::start(serve).await;
        let (ended, errors) = export(source(&server.url(), &credentials)).await;
        assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 1), "{ended:?}");
        let requests = server.requests();
        let sent: String = requests.iter().filter_map(|request| request.header("authorization")).collect();
        assert!(
            requests.len() > 3 && requests.iter().all(|request| request.header("x-api-key") == Some(KEY))
        );
        let sent_one = Canaries::default().with("the password", PASSWORD);
        match sent.starts_with("Basic") {
            true => sent_one.assert_all_present("the requests", sent),
            false => assert!(sent.starts_with(&format!("Bearer {TOKEN}"))),
        }
        assert_no_leak(&ended, &errors);
    }
}

/// Servers that fail in every way, and echo the request and their data.
#[tokio::test]
async fn guarantee_6_a_server_that_echoes_the_credential_or_the_patient_is_not_quoted() {
    log::start();
    let elsewhere = Responder::start(serve).await;
    let location = format!("{}/{TOKEN}?key={KEY}", elsewhere.url());
    let echo = format!("{PASSWORD} {TOKEN} {KEY} {} {}", archive::NAME, archive::ID);
    let json = ("content-type", "application/dicom+json");
    let wrong = vec![
        Reply::status(401).header("www-authenticate", format!("Basic realm={KEY}")).body(&echo),
        Reply::status(403).body(&echo),
        Reply::status(404).body(&echo),
        Reply::status(400).body(&echo).header("warning", format!("299 - {KEY}")),
        Reply::status(500).body(&echo),
        Reply::status(503).body(&echo).header("retry-after", TOKEN),
        Reply::status(307).header("location", &location),
        Reply::status(302).header("location", format!("http://{USER}:{KEY}@127.0.0.1:1/{TOKEN}")),
        Reply::status(301).header("location", format!("ftp://{KEY}/")),
        Reply::status(200).header("content-type", format!("text/{KEY}")).body(&echo),
        Reply::status(200).header(json.0, json.1).body(&echo),
        Reply::status(200).header(json.0, json.1).body(json!([{ "0020000D": echo }])),
        Reply::status(200).header(json.0, json.1).body(json!([row(&[("0020000D", archive::NAME)])])),
        Reply::status(200).header("content-encoding", KEY).body(&echo),
        Reply::status(200).header("content-type", format!("multipart/related; boundary={KEY}")).body(&echo),
        Reply::Disconnect,
    ];
    for reply in wrong {
        for credentials in every_kind() {
            // All requests fail, or only those for the instance.
            for only_instances in [false, true] {
                let reply = reply.clone();
                let server = Responder::start(move |request| match request.path.contains("/instances/") {
                    false if only_instances => serve(request),
                    _ => reply.clone(),
                });
                let server = server.await;
                let source = Arc::new(source(&server.url(), &credentials));
                let (ended, errors) = export(Arc::clone(&source)).await;
                assert!(!server.requests().is_empty());
                assert_no_leak(&ended, &errors);
                let instance = dicom_export::source::Instance::new("1.2/1.2.3/1.2.3.4".parse().unwrap());
                let error = match source.open(&instance).await {
                    Err(error) => error,
                    Ok(content) => {
                        let chunks: Vec<_> = futures::StreamExt::collect(content.into_stream()).await;
                        match chunks.into_iter().find_map(Result::err) {
                            Some(error) => error,
                            None => continue,
                        }
                    }
                };
                canaries().assert_absent("an error", all_of(&error));
            }
        }
    }
    // The redirect was followed without credentials.
    let redirected = elsewhere.requests();
    assert!(!redirected.is_empty());
    for request in redirected {
        assert!(
            request.header("authorization").is_none() && request.header("x-api-key").is_none(),
            "{request:?}"
        );
    }
}

#[tokio::test]
async fn guarantee_6_invalid_credentials_are_not_quoted() {
    let builder = |root: &str| DicomWebSource::builder(root.to_owned());
    let root = "http://127.0.0.1:1";
    let renewing = DicomWebCredentials::renewing(|| async {
        Err(Error::new(ErrorKind::Internal, "the vault is unavailable"))
    });
    let broken = [
        builder(&format!("http://{USER}:{KEY}@127.0.0.1:1")),
        builder(&format!("http://127.0.0.1:1/?key={KEY}")),
        builder(KEY),
        builder(root).credentials(DicomWebCredentials::basic(format!("{USER}:"), PASSWORD)),
        builder(root).credentials(DicomWebCredentials::bearer(format!("{TOKEN}\n"))),
        builder(root).header("x-api-key", format!("{KEY}\n")),
        builder(root).header(format!("{KEY} \n"), "value"),
        builder(root)
            .root_certificate(format!("-----BEGIN CERTIFICATE-----\n{KEY}\n-----END CERTIFICATE-----")),
    ];
    for builder in broken {
        // A caller may pass a secret as the name of a header by mistake.
        let error = builder.build().unwrap_err();
        canaries().assert_absent("an error", all_of(&error));
    }
    let source = source(root, &renewing);
    let instance = dicom_export::source::Instance::new("1.2/1.2.3/1.2.3.4".parse().unwrap());
    canaries().assert_absent("an error", all_of(&source.open(&instance).await.unwrap_err()));
}
