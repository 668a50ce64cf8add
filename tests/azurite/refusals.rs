//! Refused requests: the kind of the error, which contains no credential.

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use dicom_export::sink::LogKey;
use dicom_export::{BlobSink, Content, ErrorKind};

use crate::azurite::Azurite;
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
