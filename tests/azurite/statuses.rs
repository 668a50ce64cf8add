//! Success is the documented status of each request; every other one is a destination failure.

use std::time::Duration;

use bytes::Bytes;
use dicom_export::sink::LogKey;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::source::CopySource;
use dicom_export::testing::GeneratedSource;
use dicom_export::{
    BlobSink, Content, Error, ErrorKind, ExportDestination, ExportEngine, ExportSource, NewOperation,
    OperationStatus, RetryPolicy, UploadContext,
};

use crate::responder::{Reply, Request, Responder};
use crate::{MIB, SIGNATURE, all_of, bytes, faulty, instance, log};

/// Every request that the sink sends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Call {
    CreateAppendBlob,
    AppendBlock,
    PutBlob,
    PutBlock,
    PutBlockList,
    PutBlockFromUrl,
}

use Call::{AppendBlock, CreateAppendBlob, PutBlob, PutBlock, PutBlockFromUrl, PutBlockList};

const CALLS: [Call; 6] = [CreateAppendBlob, AppendBlock, PutBlob, PutBlock, PutBlockList, PutBlockFromUrl];

fn call(request: &Request) -> Call {
    match request.query.get("comp").map(String::as_str) {
        Some("appendblock") => AppendBlock,
        Some("blocklist") => PutBlockList,
        Some("block") if request.header("x-ms-copy-source").is_some() => PutBlockFromUrl,
        Some("block") => PutBlock,
        _ if request.header("x-ms-blob-type") == Some("AppendBlob") => CreateAppendBlob,
        _ => PutBlob,
    }
}

/// A server that responds to one call in this way, and performs all others.
async fn server(faulty: Call, reply: impl Fn() -> Reply + Send + Sync + 'static) -> Responder {
    Responder::start(move |request| if call(request) == faulty { reply() } else { Reply::status(201) }).await
}

/// Makes the sink send this call, with a short retry budget.
async fn send(server: &Responder, call: Call) -> Result<(), Error> {
    let sink = faulty(&server.url());
    let retry =
        RetryPolicy::with_budget(Duration::from_millis(50)).with_initial_backoff(Duration::from_millis(10));
    let upload = UploadContext::new(32 << 20, retry, 4);
    match call {
        CreateAppendBlob => sink.prepare(&log()).await,
        AppendBlock => sink.append(&log(), LogKey::new(0, 0), Bytes::from("{}\n")).await,
        PutBlob => sink.put(&instance(), Content::from_bytes(bytes(9)), &upload).await.map(drop),
        PutBlock | PutBlockList => {
            sink.put(&instance(), Content::from_bytes(bytes(9 * MIB)), &upload).await.map(drop)
        }
        PutBlockFromUrl => {
            let source = CopySource::new("https://source.example/a.dcm", 10);
            sink.copy_from(&instance(), &source, &upload).await.map(|copied| {
                assert!(
                    copied.is_none() || server.requests().iter().any(|request| request.has_comp("blocklist"))
                );
            })
        }
    }
}

fn count(server: &Responder, expected: Call) -> usize {
    server.requests().iter().filter(|request| call(request) == expected).count()
}

/// Gateways that inspect TLS, captive portals and misconfigured proxies respond with their own pages. Each of these statuses
/// used to be treated as success, or ended the operation without a retry.
#[tokio::test]
async fn only_created_is_success() {
    for call in CALLS {
        send(&server(call, || Reply::status(201)).await, call).await.unwrap();
        for status in
            [200, 202, 203, 204, 205, 206, 207, 226, 299, 300, 301, 302, 303, 304, 307, 308, 407, 511]
        {
            let server = server(call, move || Reply::status(status).header("location", "/elsewhere")).await;
            let error = send(&server, call).await.expect_err(&format!("{call:?} {status}"));
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{call:?} {status}: {error}");
            assert!(error.message().contains(&status.to_string()), "{error}");
            // The sink leaves the retries of logs to the engine.
            let retried = matches!(call, CreateAppendBlob | AppendBlock) || count(&server, call) > 1;
            assert!(retried, "{call:?} {status}");
            if call != PutBlockList {
                assert_eq!(count(&server, PutBlockList), 0, "{call:?} {status}");
            }
        }
    }
}

/// The storage service responds with XML. A page comes from a gateway or a proxy in front of it.
#[tokio::test]
async fn web_page_is_a_transient_failure() {
    for call in CALLS {
        for status in [200, 201, 400, 401, 403, 404, 409, 412, 500, 503] {
            let page = move || {
                Reply::status(status)
                    .header("content-type", "text/html; charset=utf-8")
                    .body("<html>sig=secret</html>")
            };
            let error = send(&server(call, page).await, call).await.expect_err(&format!("{call:?} {status}"));
            assert!(error.kind().is_transient(), "{call:?} {status}: {error}");
            assert!(!all_of(&error).contains("secret"));
        }
    }
}

/// The error codes that the sink reacts to have one status each.
#[tokio::test]
async fn error_code_with_another_status_is_a_failure() {
    for (call, code) in [
        (CreateAppendBlob, "BlobAlreadyExists"),
        (AppendBlock, "AppendPositionConditionNotMet"),
        (PutBlockList, "InvalidBlockList"),
    ] {
        for status in [200, 204, 302, 407, 500] {
            let server = server(call, move || Reply::code(status, code)).await;
            let error = send(&server, call).await.expect_err(&format!("{call:?} {status}"));
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{call:?} {status}: {error}");
        }
    }
}

#[tokio::test]
async fn guarantee_1_and_3_response_of_a_gateway_exports_nothing() {
    for status in [200, 202, 204, 302, 407] {
        // The log can be created, and the gateway intercepts larger requests.
        let server = server(PutBlob, move || Reply::status(status).body("<html>blocked</html>")).await;
        let engine = ExportEngine::builder(GeneratedSource::new(3, 100))
            .destination(
                ExportDestination::AZURE_BLOB,
                AzureBlobProvider::new(AzureBlobPolicy::development()),
            )
            .retry(RetryPolicy::with_budget(Duration::from_millis(100)))
            .build()
            .unwrap();
        let uri = format!("{}/devstoreaccount1/container?sv=2022-11-02&sp=w&sig={SIGNATURE}", server.url());
        let new = NewOperation::new(ExportSource::Everything, ExportDestination::azure_blob(&uri));
        let started = engine.start(new).await.unwrap();
        let ended = engine.wait(started.operation_id).await.unwrap();
        assert_eq!((ended.status, ended.results.exported), (OperationStatus::Failed, 0), "{status}");
        assert_eq!(ended.results.skipped, 0, "a destination failure skips nothing");
        assert_eq!(ended.error.unwrap().code, "unavailable", "{status}");
    }
}
