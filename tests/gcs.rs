//! Google Cloud Storage: the settings, the requests of the sink to a server that records them, and the source on
//! fake-gcs-server.
//!
//! fake-gcs-server does not serve the writes of the XML API, which `object_store` uses. It serves its lists and reads.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/port.rs"]
mod port;
#[path = "support/responder.rs"]
mod responder;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use dicom_export::object_store::StaticCredentialProvider;
use dicom_export::object_store::gcp::GcpCredential;
use dicom_export::sink::SinkProvider;
use dicom_export::sink::gcs::{GcsPolicy, GcsProvider};
use dicom_export::source::ObjectLayout;
use dicom_export::testing::source_conformance;
use dicom_export::{
    BlobPath, BlobSink, Content, Error, ErrorKind, InstanceIdentifier, ObjectStoreSink, ObjectStoreSource,
    OperationId, RetryPolicy, UploadContext,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::port::Port;
use crate::responder::{Reply, Request, Responder};

const TOKEN: &str = "secret-token";

/// A policy for a server on this machine, with a token that it does not verify.
fn policy(endpoint: &str) -> GcsPolicy {
    let identity = StaticCredentialProvider::new(GcpCredential { bearer: TOKEN.to_owned() });
    GcsPolicy::new().with_endpoint(endpoint).unwrap().with_identity(Arc::new(identity))
}

fn sink(server: &Responder) -> ObjectStoreSink {
    let settings = json!({ "bucket": "bucket", "useInstanceIdentity": true });
    ObjectStoreSink::open_gcs(&settings, &policy(&server.url())).unwrap()
}

fn instance() -> BlobPath {
    let identifier: InstanceIdentifier = "1.2.3/4.5.6/7.8.9".parse().unwrap();
    BlobPath::instance(OperationId::random(), &identifier)
}

fn upload() -> UploadContext {
    let retry =
        RetryPolicy::with_budget(Duration::from_secs(10)).with_initial_backoff(Duration::from_millis(10));
    UploadContext::new(32 << 20, retry, 16)
}

fn key() -> Value {
    json!({
        "type": "service_account",
        "client_email": "exporter@project.iam.gserviceaccount.com",
        "private_key": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0LWtleQ==\n-----END PRIVATE KEY-----\n",
        "private_key_id": "0123",
        "gcs_base_url": "https://evil.example",
        "disable_oauth": true,
    })
}

#[test]
fn key_is_secret_and_names_no_endpoint() {
    for key in [key(), json!(key().to_string())] {
        let settings = json!({ "bucket": "trial7", "prefix": "a/b/", "serviceAccountKey": key });
        let validated = GcsProvider::new(GcsPolicy::new()).validate(&settings).unwrap();
        assert_eq!(validated.location, "https://storage.googleapis.com/trial7/a/b");
        assert_eq!(
            validated.public,
            json!({ "bucket": "trial7", "prefix": "a/b", "useInstanceIdentity": false })
        );
        let secret: Value = serde_json::from_str(validated.secret.as_ref().unwrap().expose()).unwrap();
        let names: Vec<_> = secret.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names, ["client_email", "private_key", "private_key_id"]);
        assert!(!format!("{validated:?}").contains("c2VjcmV0"));
    }
}

#[test]
fn wrong_settings_are_refused_with_a_pointer() {
    let cases = [
        (json!({ "useInstanceIdentity": true }), "/bucket"),
        (json!({ "bucket": "Trial", "useInstanceIdentity": true }), "/bucket"),
        (json!({ "bucket": "a..b", "useInstanceIdentity": true }), "/bucket"),
        (json!({ "bucket": "trial7" }), "/serviceAccountKey"),
        (json!({ "bucket": "trial7", "serviceAccountKey": "c2VjcmV0" }), "/serviceAccountKey"),
        (
            json!({ "bucket": "trial7", "serviceAccountKey": { "private_key": "c2VjcmV0" } }),
            "/serviceAccountKey",
        ),
        (json!({ "bucket": "trial7", "serviceAccountKey": 7 }), "/serviceAccountKey"),
        (
            json!({ "bucket": "trial7", "serviceAccountKey": key(), "useInstanceIdentity": true }),
            "/useInstanceIdentity",
        ),
        (json!({ "bucket": "trial7", "useInstanceIdentity": true, "prefix": "a//b" }), "/prefix"),
        (
            json!({ "bucket": "trial7", "useInstanceIdentity": true, "endpoint": "https://evil.example" }),
            "/endpoint",
        ),
    ];
    for (settings, pointer) in cases {
        let error = GcsProvider::new(GcsPolicy::new()).validate(&settings).unwrap_err();
        assert_eq!((error.kind(), error.pointer()), (ErrorKind::Invalid, Some(pointer)), "{settings}");
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
    }
}

#[test]
fn buckets_and_credentials_follow_the_policy() {
    let validate = |settings: Value, policy| -> Result<(), Error> {
        GcsProvider::new(policy).validate(&settings).map(|_| ())
    };
    let identity = json!({ "bucket": "trial7", "useInstanceIdentity": true });
    let with_key = json!({ "bucket": "trial7", "serviceAccountKey": key() });
    validate(identity.clone(), GcsPolicy::new().allow_bucket("trial7")).unwrap();
    let other = GcsPolicy::new().allow_bucket("trial8");
    assert_eq!(validate(identity.clone(), other).unwrap_err().pointer(), Some("/bucket"));
    let no_keys = GcsPolicy::new().allow_service_account_keys(false);
    assert_eq!(validate(with_key, no_keys).unwrap_err().pointer(), Some("/serviceAccountKey"));
    for endpoint in
        ["http://store.example", "ftp://127.0.0.1", "https://store.example/x", "https://u@store.example"]
    {
        assert!(GcsPolicy::new().with_endpoint(endpoint).is_err(), "{endpoint}");
    }
}

/// The machine's identity is not sent without TLS.
#[test]
fn guarantee_7_identity_is_sent_over_https_only() {
    let policy = GcsPolicy::new().with_endpoint("http://127.0.0.1:9000").unwrap();
    let settings = json!({ "bucket": "trial7", "useInstanceIdentity": true });
    let error = GcsProvider::new(policy).validate(&settings).unwrap_err();
    assert_eq!(error.pointer(), Some("/useInstanceIdentity"));
}

#[tokio::test]
async fn instances_are_written_with_one_request_or_in_parts() {
    let refused = std::sync::atomic::AtomicBool::new(false);
    let server = Responder::start(move |request: &Request| {
        if request.query.contains_key("uploads") {
            let id = "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>";
            return Reply::status(200).body(id);
        }
        let is_part = request.query.contains_key("partNumber");
        if request.query.contains_key("uploadId") && !is_part {
            let done =
                "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>";
            return Reply::status(200).body(done);
        }
        if is_part && !refused.swap(true, std::sync::atomic::Ordering::SeqCst) {
            return Reply::status(503).header("retry-after", 1);
        }
        Reply::status(200).header("etag", "\"tag\"")
    })
    .await;
    let sink = sink(&server);
    for length in [1000, 6 << 20] {
        let content = Content::from_bytes(Bytes::from(vec![7; length]));
        assert_eq!(sink.put(&instance(), content, &upload()).await.unwrap().size as usize, length);
    }
    let requests = server.requests();
    assert_eq!(requests[0].header("content-type"), Some("application/dicom"));
    assert!(requests.iter().all(|request| request.header("authorization") == Some("Bearer secret-token")));
    // One, and then the creation, two parts of which one is repeated, and the completion.
    assert_eq!(requests.len(), 6);
}

/// The CRC32C of RFC 3720 (B.4), bit by bit.
fn crc32c(bytes: &[u8]) -> String {
    let crc = bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    });
    BASE64_STANDARD.encode((!crc).to_be_bytes())
}

/// A server that verifies and returns checksums as the real one does. The first body of each kind is stored damaged, and the
/// second one arrives damaged.
async fn verifying_server() -> Responder {
    let (objects, parts) = (AtomicUsize::new(0), AtomicUsize::new(0));
    Responder::start(move |request: &Request| {
        let is_part = request.query.contains_key("partNumber");
        if request.query.contains_key("uploads") {
            let id = "<InitiateMultipartUploadResult><UploadId>id</UploadId></InitiateMultipartUploadResult>";
            return Reply::status(200).body(id);
        }
        if request.query.contains_key("uploadId") && !is_part {
            let done =
                "<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>";
            return Reply::status(200).body(done).header("x-goog-hash", "crc32c=of the whole");
        }
        let expected = format!("crc32c={}", crc32c(&request.body));
        if request.header("x-goog-hash") != Some(&expected) {
            return Reply::status(400).body("<Error><Code>InvalidDigest</Code></Error>");
        }
        let stored = match if is_part { &parts } else { &objects }.fetch_add(1, Ordering::SeqCst) {
            0 => format!("crc32c={}", crc32c(b"other bytes")),
            1 if is_part => return Reply::status(400).body("<Error><Code>CrcMismatch</Code></Error>"),
            1 => return Reply::status(400).body("<Error><Code>BadDigest</Code></Error>"),
            2 => format!("{expected},md5=AAAA"),
            _ => expected,
        };
        Reply::status(200)
            .header("etag", "\"tag\"")
            .header("x-goog-hash", "md5=AAAA")
            .header("x-goog-hash", stored)
    })
    .await
}

#[tokio::test]
async fn guarantee_1_damaged_bodies_are_sent_again() {
    assert_eq!(crc32c(b"123456789"), BASE64_STANDARD.encode(0xe306_9283_u32.to_be_bytes()));
    let server = verifying_server().await;
    let sink = sink(&server);
    for length in [1000, 6 << 20] {
        let content = Content::from_bytes((0..length).map(|n: usize| (n % 251) as u8).collect::<Vec<_>>());
        assert_eq!(sink.put(&instance(), content, &upload()).await.unwrap().size as usize, length);
    }
    let requests = server.requests();
    // The object is sent three times. Of two parts, one is sent three times, or each of them twice. The others create and complete
    // the upload.
    assert_eq!(requests.len(), 3 + 1 + 4 + 1);
}

#[tokio::test]
async fn guarantee_1_body_that_is_always_stored_damaged_is_an_error() {
    let server = Responder::start(|_| {
        Reply::status(200).header("etag", "\"tag\"").header("x-goog-hash", "crc32c=AAAAAA==")
    })
    .await;
    let upload = UploadContext::new(32 << 20, RetryPolicy::none(), 16);
    let error =
        sink(&server).put(&instance(), Content::from_bytes(&b"bytes"[..]), &upload).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().starts_with("checksum mismatch"), "{error}");
}

#[tokio::test]
async fn guarantee_6_refusals_are_not_quoted() {
    let server = Responder::start(|_| {
        Reply::status(403).body(format!("<Error><Code>AccessDenied</Code><Details>{TOKEN}</Details></Error>"))
    })
    .await;
    let error = sink(&server).prepare(&BlobPath::error_log(OperationId::random())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert_eq!(error.message(), "the store refused the credential or the permission (403 AccessDenied)");
    assert!(!format!("{error:?} {:?}", sink(&server)).contains(TOKEN));
}

/// The binary in the wheel that `tests/run.sh` installs.
fn program() -> PathBuf {
    let tools = std::env::var_os("DICOM_EXPORT_TOOLS").map(PathBuf::from);
    let tools = tools.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools"));
    let packages = walkdir::WalkDir::new(tools.join("venv/lib")).into_iter().map(Result::unwrap);
    let mut programs = packages.filter(|entry| {
        entry.file_type().is_file() && entry.file_name().to_string_lossy().starts_with("fake-gcs-server-")
    });
    programs.next().expect("fake-gcs-server is not installed: run tests/run.sh").into_path()
}

#[tokio::test]
#[ignore = "needs fake-gcs-server: tests/run.sh"]
async fn source_fulfills_its_contract() {
    let (port, folder) = (Port::reserve(), TempDir::new().unwrap());
    let archive: BTreeMap<InstanceIdentifier, Bytes> = (0..24)
        .map(|n: usize| {
            let instance = format!("1.2.{}/1.2.3.{}/1.2.3.4.{n}", n / 8, n / 4).parse().unwrap();
            (instance, Bytes::from(vec![7; 100 * n + 1]))
        })
        .collect();
    for (instance, bytes) in &archive {
        let file = folder.path().join(format!("data/bucket/dicom/{instance}.dcm"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }
    let lines = archive.keys().rev().map(|instance| {
        json!({ "identifier": instance, "path": format!("{instance}.dcm") }).to_string() + "\n"
    });
    std::fs::write(folder.path().join("data/bucket/dicom/index.jsonl"), lines.collect::<String>()).unwrap();
    let (number, data) = (port.number().to_string(), folder.path().join("data"));
    let host = format!("127.0.0.1:{number}");
    let arguments = ["-scheme", "http", "-host", "127.0.0.1", "-port", &number, "-public-host", &host];
    let memory = ["-backend", "memory", "-data", data.to_str().unwrap()];
    let server = Daemon::start(&program(), arguments.iter().chain(&memory), &[], &folder.path().join("log"));
    server.wait_for_output("server started");
    let settings = json!({ "bucket": "bucket", "prefix": "dicom", "useInstanceIdentity": true });
    let policy = policy(&format!("http://{host}"));
    for layout in [ObjectLayout::default(), ObjectLayout::index("index.jsonl").unwrap()] {
        let source = || ObjectStoreSource::open_gcs(&settings, &policy).unwrap().with_layout(layout.clone());
        source_conformance(source, &archive).await;
    }
}
