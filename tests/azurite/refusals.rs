//! Refused requests: the kind of the error, which contains no credential.

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use dicom_export::sink::LogKey;
use dicom_export::{BlobSink, Content, ErrorKind};

use crate::azurite::Azurite;
use crate::responder::{Reply, Responder};
use crate::{MIB, all_of, bytes, instance, log, sink, upload};

async fn assert_refused(uri: &str, kind: ErrorKind, message: &str) {
    let (sink, log) = (sink(uri), log());
    let upload = upload(32 * MIB);
    let put =
        async |length| sink.put(&instance(), Content::from_bytes(bytes(length)), &upload).await.map(drop);
    let outcomes = [
        sink.prepare(&log).await,
        sink.append(&log, LogKey::new(0, 0), Bytes::from("{}\n")).await,
        put(10).await,
        put(9 * MIB).await,
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(message), "{error}");
        assert!(!all_of(&error).contains("sig="), "{}", all_of(&error));
    }
    assert!(!format!("{sink:?} {}", sink.url(&log)).contains("sig="));
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn missing_container_is_not_found() {
    let container = Azurite::shared().missing_container();
    assert_refused(
        &container.sas_url("w"),
        ErrorKind::NotFound,
        "the container does not exist (404 ContainerNotFound)",
    )
    .await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn expired_sas_is_unauthorized() {
    let container = Azurite::shared().container().await;
    let expired = container.sas_url_until("w", Utc::now() - TimeDelta::hours(1));
    assert_refused(&expired, ErrorKind::Unauthorized, "refused the credential (403").await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn read_only_sas_is_unauthorized() {
    let container = Azurite::shared().container().await;
    assert_refused(&container.sas_url("rl"), ErrorKind::Unauthorized, "refused the credential (403").await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn sas_with_a_wrong_signature_is_unauthorized() {
    let container = Azurite::shared().container().await;
    let url = container.sas_url("w");
    let (rest, _) = url.split_once("sig=").unwrap();
    assert_refused(&format!("{rest}sig=d3Jvbmc%3D"), ErrorKind::Unauthorized, "refused the credential (403")
        .await;
}

/// The separators of a value used to be decoded before the query was split, so that a value could add parameters.
#[tokio::test]
async fn sas_values_add_no_query_parameters() {
    let server = Responder::start(|_| Reply::status(201)).await;
    let uri = format!(
        "{}/devstoreaccount1/container?sv=2022-11-02&rscd=a%26comp%3Dblock%26blockid%3DAA%23%2B+b&sig=x%2By%3D",
        server.url()
    );
    sink(&uri).prepare(&log()).await.unwrap();
    let query = &server.requests()[0].query;
    let names: Vec<_> = query.keys().map(String::as_str).collect();
    assert_eq!(names, ["rscd", "sig", "sv"]);
    assert_eq!(query["rscd"], "a%26comp%3Dblock%26blockid%3DAA%23%2B%2Bb");
    assert_eq!(query["sig"], "x%2By%3D");
}
