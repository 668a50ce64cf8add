//! Copies from container to container. Instances that cannot be copied are streamed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::source::{CopySource, Instance, ListRequest, Page, Scope};
use dicom_export::testing::source_conformance;
use dicom_export::{
    BlobPath, BlobSink, Content, ErrorKind, ExportEngine, ExportSource, InstanceIdentifier, InstanceSource,
    NewOperation, ObjectStoreSource, OperationStatus, Result, UploadContext,
};
use object_store::ObjectStoreExt;
use object_store::signer::{Method, Signer};

use crate::azurite::{Azurite, Container};
use crate::responder::{Reply, Responder};
use crate::{MIB, all_of, bytes, faulty, instance, sink, upload};

fn no_buffer() -> UploadContext {
    upload(0)
}

/// Instances of these sizes, with a content type that differs from that of an export.
async fn fill(container: &Container<'_>, sizes: &[usize]) -> BTreeMap<InstanceIdentifier, Bytes> {
    let store = container.store();
    let mut archive = BTreeMap::new();
    for (number, size) in sizes.iter().enumerate() {
        let (study, series) = (number % 2, number % 4);
        let identifier = format!("1.2.{study}/1.2.{study}.{series}/1.2.{study}.{series}.{number}");
        store.put(&format!("in/{identifier}.dcm").into(), bytes(*size).into()).await.unwrap();
        archive.insert(identifier.parse().unwrap(), bytes(*size));
    }
    archive
}

fn source(container: &Container<'_>) -> ObjectStoreSource {
    let store = Arc::new(container.store());
    ObjectStoreSource::new(store.clone()).with_signer(store).with_prefix("in").unwrap()
}

/// Counts opened instances, and may change the URL.
struct Watched {
    inner: ObjectStoreSource,
    change: fn(&str) -> String,
    opened: AtomicUsize,
}

impl Watched {
    fn new(inner: ObjectStoreSource, change: fn(&str) -> String) -> Arc<Self> {
        Arc::new(Self { inner, change, opened: AtomicUsize::new(0) })
    }
}

#[async_trait]
impl InstanceSource for Watched {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.inner.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.opened.fetch_add(1, SeqCst);
        self.inner.open(instance).await
    }

    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        let Some(copy) = self.inner.copy_url(instance).await? else { return Ok(None) };
        let changed = CopySource::new((self.change)(copy.expose_url()), copy.length());
        Ok(Some(changed.with_etag(copy.etag().unwrap())))
    }
}

/// Exports everything to a new container with a write-only SAS, and compares it with the archive.
async fn export(source: &Arc<Watched>, archive: &BTreeMap<InstanceIdentifier, Bytes>) {
    let container = Azurite::shared().container().await;
    let engine = ExportEngine::builder(Arc::clone(source)).build().unwrap();
    let to: Arc<dyn BlobSink> = Arc::new(sink(&container.sas_url("w")));
    let id = engine.start(NewOperation::new(ExportSource::Everything, to)).await.unwrap().operation_id;
    let ended = engine.wait(id).await.unwrap();
    assert_eq!((ended.status, ended.error), (OperationStatus::Completed, None));
    assert_eq!(ended.results.exported, archive.len() as u64);
    assert_eq!(container.list().await.len(), archive.len() + 1);
    for (identifier, bytes) in archive {
        let blob = container.get(BlobPath::instance(id, identifier).as_str()).await.unwrap();
        assert!(blob.bytes == *bytes, "{} bytes were stored as {}", bytes.len(), blob.bytes.len());
        assert_eq!((&*blob.content_type, &*blob.kind), ("application/dicom", "BlockBlob"));
    }
}

/// The last two are exactly one block, and slightly more.
const SIZES: [usize; 7] = [1, 0, 513, 100_000, MIB, 64 * MIB, 65 * MIB + 7];

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn object_store_source_over_azurite() {
    let container = Azurite::shared().container().await;
    let archive = fill(&container, &[1, 0, 513, 100_000, MIB, 3, 4]).await;
    container.store().put(&"in/errors.log".into(), "other".into()).await.unwrap();
    source_conformance(|| source(&container), &archive).await;
    let one = source(&container);
    source_conformance(|| one.clone(), &archive).await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn instances_of_every_size_are_copied_byte_for_byte() {
    let container = Azurite::shared().container().await;
    let archive = fill(&container, &SIZES).await;
    let source = Watched::new(source(&container), str::to_owned);
    export(&source, &archive).await;
    // Only the empty instance is streamed.
    assert_eq!(source.opened.load(SeqCst), 1);
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn instance_with_an_unusable_url_is_streamed() {
    let container = Azurite::shared().container().await;
    let archive = fill(&container, &SIZES[..5]).await;
    let changes: [fn(&str) -> String; 4] = [
        |url| url.replace("sig=", "sig=A"),
        |url| url.replace(".dcm", ".gone"),
        |url| url.replace("127.0.0.1", "localhost"),
        |_| "no\nURL".to_owned(),
    ];
    for change in changes {
        let source = Watched::new(source(&container), change);
        export(&source, &archive).await;
        assert_eq!(source.opened.load(SeqCst), archive.len());
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn replaced_version_is_not_copied() {
    let (from, to) = (Azurite::shared().container().await, Azurite::shared().container().await);
    fill(&from, &[10]).await;
    let (source, sink, path) = (source(&from), sink(&to.sas_url("w")), instance());
    let page = source.list(ListRequest::new(Scope::Everything, None, 1)).await.unwrap();
    let copy = source.copy_url(&page.instances[0]).await.unwrap().unwrap();
    fill(&from, &[11]).await;
    assert!(sink.copy_from(&path, &copy, &no_buffer()).await.unwrap().is_none());
    assert!(to.get(path.as_str()).await.is_none());
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn concurrent_copies_replace_a_blob() {
    let (from, to) = (Azurite::shared().container().await, Azurite::shared().container().await);
    fill(&from, &[70 * MIB]).await;
    let (source, sink, path) = (source(&from), sink(&to.sas_url("w")), instance());
    let content = Content::from_bytes(bytes(9 * MIB));
    sink.put(&path, content, &upload(32 * MIB)).await.unwrap();
    let page = source.list(ListRequest::new(Scope::Everything, None, 1)).await.unwrap();
    let copy = source.copy_url(&page.instances[0]).await.unwrap().unwrap();
    let upload = no_buffer();
    let copies = [0; 2].map(|_| sink.copy_from(&path, &copy, &upload));
    let outcomes = futures::future::join_all(copies).await;
    assert!(outcomes.iter().any(|outcome| matches!(outcome, Ok(Some(stored)) if stored.etag.is_some())));
    for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    assert!(to.get(path.as_str()).await.unwrap().bytes == bytes(70 * MIB));
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn empty_instance_is_copied_as_an_empty_blob() {
    let to = Azurite::shared().container().await;
    let (sink, path) = (sink(&to.sas_url("w")), instance());
    let empty = CopySource::new("https://host.example/", 0);
    assert_eq!(sink.copy_from(&path, &empty, &no_buffer()).await.unwrap().unwrap().size, 0);
    let blob = to.get(path.as_str()).await.unwrap();
    assert_eq!((blob.bytes.len(), &*blob.content_type), (0, "application/dicom"));
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn expired_url_is_not_copied() {
    let (from, to) = (Azurite::shared().container().await, Azurite::shared().container().await);
    fill(&from, &[10]).await;
    let (sink, path) = (sink(&to.sas_url("w")), instance());
    let brief = source(&from).url_validity(Duration::ZERO);
    let page = brief.list(ListRequest::new(Scope::Everything, None, 1)).await.unwrap();
    let copy = brief.copy_url(&page.instances[0]).await.unwrap().unwrap();
    assert!(sink.copy_from(&path, &copy, &no_buffer()).await.unwrap().is_none());
    // A valid URL, for comparison.
    let key = format!("in/{}.dcm", page.instances[0].identifier());
    let url = from.store().signed_url(Method::GET, &key.into(), Duration::from_secs(600)).await.unwrap();
    let copy = CopySource::new(url, 10);
    assert_eq!(sink.copy_from(&path, &copy, &no_buffer()).await.unwrap().unwrap().size, 10);
    assert!(to.get(path.as_str()).await.unwrap().bytes == bytes(10));
}

const URL: &str = "https://source.example/a.dcm?sig=c291cmNl";

#[tokio::test]
async fn copy_requests_have_ranges_conditions_and_a_content_type() {
    let server = Responder::start(|_| Reply::status(201).header("etag", "\"tag\"")).await;
    let length = 150 * MIB as u64;
    let copy = CopySource::new(URL, length).with_etag("\"0x8D\"");
    let stored = faulty(&server.url()).copy_from(&instance(), &copy, &no_buffer()).await.unwrap().unwrap();
    assert_eq!((stored.size, stored.etag.as_deref()), (length, Some("\"tag\"")));
    let requests = server.requests();
    let (list, blocks) = requests.split_last().unwrap();
    let mut ranges = BTreeMap::new();
    for request in blocks {
        assert!(request.has_comp("block") && request.body.is_empty());
        assert_eq!(request.header("x-ms-copy-source"), Some(URL));
        assert_eq!(request.header("x-ms-source-if-match"), Some("\"0x8D\""));
        assert_eq!(request.header("content-length"), Some("0"));
        ranges.insert(&request.query["blockid"], request.header("x-ms-source-range").unwrap());
    }
    let block = 64 * MIB;
    let expected =
        [0, block, 2 * block].map(|from| format!("bytes={from}-{}", (from + block).min(length as usize) - 1));
    assert!(ranges.values().eq(expected.iter()), "{ranges:?}");
    assert!(list.has_comp("blocklist") && list.header("x-ms-copy-source").is_none());
    assert_eq!(list.header("x-ms-blob-content-type"), Some("application/dicom"));
    let body = std::str::from_utf8(&list.body).unwrap();
    let ids: String = ranges.keys().map(|id| format!("<Latest>{id}</Latest>")).collect();
    assert!(body.contains(&ids));
}

#[tokio::test]
async fn refused_copies_are_streamed_and_transient_failures_are_retried() {
    // The error code means that the source failed, regardless of the status.
    for (status, code) in [
        (403, "CannotVerifyCopySource"),
        (404, "CannotVerifyCopySource"),
        (500, "CannotVerifyCopySource"),
        (503, "CannotVerifyCopySource"),
        (412, "SourceConditionNotMet"),
        (400, "InvalidHeaderValue"),
        (416, "InvalidRange"),
        (501, "NotImplemented"),
        (403, "AuthenticationFailed"),
        (404, "ContainerNotFound"),
    ] {
        let server = Responder::start(move |_| Reply::code(status, code)).await;
        let copy = CopySource::new(URL, 10);
        let outcome = faulty(&server.url()).copy_from(&instance(), &copy, &no_buffer()).await;
        assert!(outcome.unwrap().is_none(), "{status} {code}");
        assert_eq!(server.requests().len(), 1, "{status} {code}");
    }
    for (status, code) in [(503, "ServerBusy"), (500, "OperationTimedOut"), (429, "")] {
        let requests = Mutex::new(0);
        let server = Responder::start(move |request| {
            let mut requests = requests.lock().unwrap();
            *requests += 1;
            if request.has_comp("block") && *requests < 3 {
                Reply::code(status, code)
            } else {
                Reply::status(201)
            }
        });
        let server = server.await;
        let copy = CopySource::new(URL, 10);
        let outcome = faulty(&server.url()).copy_from(&instance(), &copy, &no_buffer()).await;
        assert_eq!(outcome.unwrap().unwrap().size, 10);
        assert_eq!(server.requests().len(), 4);
    }
}

#[tokio::test]
async fn refused_block_list_fails_the_copy() {
    for (status, code, kind) in [
        (403, "AuthenticationFailed", ErrorKind::Unauthorized),
        (400, "InvalidBlockList", ErrorKind::Unavailable),
    ] {
        let server = Responder::start(move |request| {
            if request.has_comp("block") { Reply::status(201) } else { Reply::code(status, code) }
        });
        let server = server.await;
        let copy = CopySource::new(URL, 10);
        let error = faulty(&server.url()).copy_from(&instance(), &copy, &no_buffer()).await.unwrap_err();
        assert_eq!(error.kind(), kind);
        assert!(!all_of(&error).contains("c291cmNl") && !all_of(&error).contains("source.example"));
    }
}
