//! A container with a retention policy: blobs can be created, and neither replaced nor deleted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dicom_export::sink::LogKey;
use dicom_export::sink::azure::AzureBlobSink;
use dicom_export::source::CopySource;
use dicom_export::{
    BlobPath, BlobSink, Content, ErrorKind, ExportEngine, ExportSource, InstanceIdentifier, MemorySource,
    NewOperation, OperationId, OperationStatus, RetryPolicy,
};
use futures::stream;
use tokio::sync::Notify;

use crate::responder::{Reply, Request, Responder};
use crate::{MIB, bytes, faulty, log, upload};

/// How the container responds, apart from its policy.
#[derive(Default)]
struct Container {
    blobs: BTreeMap<String, Vec<u8>>,
    blocks: BTreeMap<String, Bytes>,
    /// "Allow protected append writes" of the policy.
    allow_appends: bool,
    /// Replaces the response to a request that was carried out.
    lost: Option<Reply>,
    /// How many responses are lost.
    losses: usize,
    /// Requests are carried out, and no response arrives.
    unreachable: bool,
}

impl Container {
    fn respond(&mut self, request: &Request) -> Reply {
        let reply = self.perform(request);
        if self.unreachable && request.path.contains("/results/") {
            return Reply::Disconnect;
        }
        if matches!(reply, Reply::Response { status: 201, .. }) && self.losses > 0 && self.commits(request) {
            self.losses -= 1;
            return self.lost.clone().unwrap();
        }
        reply
    }

    /// Whether the request makes a blob of an instance visible.
    fn commits(&self, request: &Request) -> bool {
        request.path.contains("/results/") && !request.has_comp("block")
    }

    fn perform(&mut self, request: &Request) -> Reply {
        let path = &request.path;
        if request.has_comp("appendblock") {
            let blob = self.blobs.get_mut(path).unwrap();
            return match self.allow_appends {
                true => {
                    let offset = blob.len();
                    blob.extend_from_slice(&request.body);
                    Reply::status(201).header("x-ms-blob-append-offset", offset)
                }
                false => immutable(),
            };
        }
        if request.header("if-none-match").is_some() && self.blobs.contains_key(path) {
            return Reply::code(409, "BlobAlreadyExists");
        }
        if self.blobs.contains_key(path) {
            return immutable();
        }
        if let Some(id) = request.query.get("blockid") {
            let copied = request.header("x-ms-source-range").map(|_| Bytes::from_static(b"copied"));
            self.blocks.insert(id.clone(), copied.unwrap_or(request.body.clone()));
        } else if request.has_comp("blocklist") {
            let list = String::from_utf8(request.body.to_vec()).unwrap();
            let ids = list.split("<Latest>").skip(1).map(|id| id.split('<').next().unwrap());
            let blob = ids.flat_map(|id| self.blocks[id].to_vec()).collect();
            self.blobs.insert(path.clone(), blob);
        } else {
            self.blobs.insert(path.clone(), request.body.to_vec());
        }
        Reply::status(201).header("etag", "\"tag\"")
    }
}

fn immutable() -> Reply {
    Reply::code(409, "BlobImmutableDueToPolicy")
}

async fn start(container: Container) -> (Responder, Arc<Mutex<Container>>) {
    let container = Arc::new(Mutex::new(container));
    let shared = Arc::clone(&container);
    (Responder::start(move |request| shared.lock().unwrap().respond(request)).await, container)
}

/// A new operation: its log, and the path of its instance.
async fn started(sink: &AzureBlobSink) -> BlobPath {
    let operation = OperationId::random();
    sink.prepare(&BlobPath::error_log(operation)).await.unwrap();
    BlobPath::instance(operation, &"1.2.3/4.5.6/7.8.9".parse().unwrap())
}

/// The same bytes as contents that are written with one request, with blocks, and without a known length.
fn contents(bytes: &Bytes) -> [Content; 3] {
    let chunks = || {
        let chunks: Vec<_> = bytes.chunks(700_001).map(|chunk| Ok(bytes.slice_ref(chunk))).collect();
        stream::iter(chunks)
    };
    [
        Content::from_bytes(bytes.clone()),
        Content::from_stream(Some(bytes.len() as u64), chunks()),
        Content::from_stream(None, chunks()),
    ]
}

/// The container path of a blob, as it is in requests.
fn stored<'a>(container: &'a Container, path: &BlobPath) -> &'a [u8] {
    &container.blobs[&format!("/devstoreaccount1/container/{path}")]
}

/// The retry of a request whose response was lost finds the blob, which cannot be replaced.
#[tokio::test]
async fn blob_counts_as_stored_after_a_lost_response() {
    for lost in [
        Reply::Disconnect,
        Reply::code(500, "OperationTimedOut"),
        Reply::code(503, "ServerBusy"),
        Reply::status(504),
    ] {
        for length in [0, 1000, 9 * MIB] {
            let bytes = bytes(length);
            for content in contents(&bytes) {
                let lost = Some(lost.clone());
                let (server, container) = start(Container { lost, losses: 1, ..Container::default() }).await;
                let sink = faulty(&server.url());
                let path = started(&sink).await;
                let result = sink.put(&path, content, &upload(32 * MIB)).await.unwrap();
                assert_eq!(result.size, length as u64);
                let container = container.lock().unwrap();
                assert!(stored(&container, &path) == bytes && container.losses == 0);
            }
        }
    }
}

#[tokio::test]
async fn copy_counts_as_stored_after_a_lost_response() {
    let lost = Some(Reply::Disconnect);
    let (server, container) = start(Container { lost, losses: 1, ..Container::default() }).await;
    let sink = faulty(&server.url());
    let path = started(&sink).await;
    let source = CopySource::new("https://source.example/a.dcm", 6);
    let result = sink.copy_from(&path, &source, &upload(0)).await.unwrap().unwrap();
    assert_eq!((result.size, stored(&container.lock().unwrap(), &path)), (6, &b"copied"[..]));
}

/// A resumed operation repeats the batches that were in progress, with another sink.
#[tokio::test]
async fn blob_of_an_earlier_run_counts_as_stored() {
    for length in [0, 1000, 9 * MIB] {
        let bytes = bytes(length);
        let (server, _) = start(Container::default()).await;
        let first = faulty(&server.url());
        let path = started(&first).await;
        first.put(&path, Content::from_bytes(bytes.clone()), &upload(32 * MIB)).await.unwrap();
        drop(first);
        let log = BlobPath::error_log(path.as_str().split('/').next().unwrap().parse().unwrap());
        for resumed in [true, false] {
            let sink = faulty(&server.url());
            if resumed {
                sink.prepare(&log).await.unwrap();
            }
            for content in contents(&bytes) {
                let result = sink.put(&path, content, &upload(32 * MIB)).await.unwrap();
                assert_eq!(result.size, length as u64);
            }
            let source = CopySource::new("https://source.example/a.dcm", length as u64);
            let copied = sink.copy_from(&path, &source, &upload(0)).await.unwrap();
            assert_eq!(copied.unwrap().size, length as u64);
        }
    }
}

/// The content of a blob that is stored already is read to its end, so that its checksum and its length are known.
#[tokio::test]
async fn content_of_a_stored_blob_is_read_and_verified() {
    let (server, _) = start(Container::default()).await;
    let sink = faulty(&server.url());
    let path = started(&sink).await;
    let content = bytes(20 * MIB);
    sink.put(&path, Content::from_bytes(content.clone()), &upload(32 * MIB)).await.unwrap();
    let sink = faulty(&server.url());
    let read = Arc::new(Mutex::new(0));
    let count = Arc::clone(&read);
    let chunks: Vec<_> = content.chunks(MIB).map(|chunk| content.slice_ref(chunk)).collect();
    let chunks = chunks.into_iter().map(move |chunk| {
        *count.lock().unwrap() += chunk.len();
        Ok(chunk)
    });
    let content = Content::from_stream(Some(20 * MIB as u64), stream::iter(chunks));
    sink.put(&path, content, &upload(32 * MIB)).await.unwrap();
    assert_eq!(*read.lock().unwrap(), 20 * MIB);
    for claim in [19 * MIB, 21 * MIB] {
        let content = Content::from_stream(
            Some(claim as u64),
            stream::iter((0..20).map(|_| Ok(Bytes::from(vec![0; MIB])))),
        );
        let error = sink.put(&path, content, &upload(32 * MIB)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreadable);
    }
}

/// A put that was canceled may have stored its blob.
#[tokio::test]
async fn blob_of_a_dropped_put_counts_as_stored() {
    let lost = Some(Reply::Hang);
    let container = Arc::new(Mutex::new(Container { lost, losses: 1, ..Container::default() }));
    let (shared, reached) = (Arc::clone(&container), Arc::new(Notify::new()));
    let notify = Arc::clone(&reached);
    let server = Responder::start(move |request| {
        let mut container = shared.lock().unwrap();
        let reply = container.respond(request);
        if container.commits(request) {
            notify.notify_one();
        }
        reply
    });
    let server = server.await;
    let sink = faulty(&server.url());
    let path = started(&sink).await;
    let upload = upload(32 * MIB);
    tokio::select! {
        _ = sink.put(&path, Content::from_bytes(bytes(1000)), &upload) => panic!("put returned without a response"),
        () = reached.notified() => {}
    }
    let result = sink.put(&path, Content::from_bytes(bytes(1000)), &upload).await.unwrap();
    assert_eq!(result.size, 1000);
}

/// In a new operation no blob exists, so a refusal means that nothing can be stored.
#[tokio::test]
async fn guarantee_1_blob_that_cannot_exist_does_not_count_as_stored() {
    for length in [0, 1000, 9 * MIB] {
        let server = Responder::start(|request| match request.path.contains("/results/") {
            true => immutable(),
            false => Reply::status(201),
        });
        let server = server.await;
        let bytes = bytes(length);
        for content in contents(&bytes) {
            let sink = faulty(&server.url());
            let path = started(&sink).await;
            let error = sink.put(&path, content, &upload(32 * MIB)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
            assert!(error.message().contains("immutability policy"), "{error}");
        }
        let sink = faulty(&server.url());
        let path = started(&sink).await;
        let source = CopySource::new("https://source.example/a.dcm", 6);
        assert!(
            sink.copy_from(&path, &source, &upload(0)).await.unwrap().is_none(),
            "the put reports the refusal"
        );
    }
}

/// A service that does not verify checksums may store a damaged blob, and protect it.
#[tokio::test]
async fn guarantee_1_damaged_blob_does_not_count_as_stored() {
    let container = Mutex::new(Container::default());
    let server = Responder::start(move |request| {
        let reply = container.lock().unwrap().respond(request);
        if request.path.contains("/results/") {
            reply.header("x-ms-content-crc64", "damaged=")
        } else {
            reply
        }
    });
    let server = server.await;
    let sink = faulty(&server.url());
    let path = started(&sink).await;
    let put = sink.put(&path, Content::from_bytes(bytes(1000)), &upload(32 * MIB)).await;
    assert_eq!(put.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn refused_append_names_the_policy() {
    let (server, _) = start(Container::default()).await;
    let (sink, log) = (faulty(&server.url()), log());
    sink.prepare(&log).await.unwrap();
    let error = sink.append(&log, LogKey::new(0, 0), Bytes::from("{}\n")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.message(),
        "errors.log cannot be appended to: the immutability policy of the container must allow protected append writes"
    );
}

/// The condition may be checked after the policy.
#[tokio::test]
async fn existing_log_may_be_refused_by_the_policy() {
    let server = Responder::start(|_| immutable()).await;
    faulty(&server.url()).prepare(&log()).await.unwrap();
}

/// An outage, during which blobs are stored and responses are lost, fails the operation. It is resumed in the same process
/// and in another one.
#[tokio::test]
async fn guarantee_1_and_2_operation_is_resumed_in_an_immutable_container() {
    for same_sink in [true, false] {
        let (server, container) =
            start(Container { allow_appends: true, unreachable: true, ..Container::default() }).await;
        let archive: BTreeMap<InstanceIdentifier, Bytes> = (0..20)
            .map(|n| (format!("1.2/1.3.{}/1.4.{n}", n % 3).parse().unwrap(), bytes(n * 1000)))
            .chain([("1.5/1.6/1.7".parse().unwrap(), bytes(9 * MIB))])
            .collect();
        let source: MemorySource = archive.clone().into_iter().collect();
        let engine = ExportEngine::builder(source)
            .retry(RetryPolicy::with_budget(Duration::from_millis(300)))
            .batch_size(5)
            .build()
            .unwrap();
        let sink: Arc<dyn BlobSink> = Arc::new(faulty(&server.url()));
        let new = NewOperation::new(ExportSource::Everything, Arc::clone(&sink));
        let id = engine.start(new).await.unwrap().operation_id;
        let failed = engine.wait(id).await.unwrap();
        assert_eq!((failed.status, failed.results.exported), (OperationStatus::Failed, 0));
        container.lock().unwrap().unreachable = false;
        let sink: Arc<dyn BlobSink> = if same_sink { sink } else { Arc::new(faulty(&server.url())) };
        engine.resume(id, Some(sink.into())).await.unwrap();
        let ended = engine.wait(id).await.unwrap();
        assert_eq!((ended.status, ended.error), (OperationStatus::Completed, None));
        assert_eq!(ended.results.exported, archive.len() as u64);
        let container = container.lock().unwrap();
        for (identifier, bytes) in &archive {
            assert!(stored(&container, &BlobPath::instance(id, identifier)) == *bytes);
        }
    }
}
