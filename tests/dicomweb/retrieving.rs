//! Retrieving instances from unusual and faulty servers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dicom_export::source::Instance;
use dicom_export::testing::fixtures;
use dicom_export::{
    BlobSink, DicomWebSource, ErrorKind, ExportEngine, ExportSource, InstanceIdentifier, MemorySink,
    NewOperation, Operation, OperationStatus, RetryPolicy,
};

use crate::server::{Archive, Framing, Quirks, Reply};
use crate::{archive, read, server, source};

const MULTIPART: &str = "multipart/related; type=application/dicom; boundary=edge";

fn one() -> InstanceIdentifier {
    fixtures::instance(1, 1, 1)
}

fn with(body: &[&[u8]], media_type: &str) -> Reply {
    Reply::new(200).header("content-type", media_type).body(body.concat())
}

#[tokio::test]
async fn an_instance_is_complete_in_every_framing() {
    let archive = archive();
    let dicom = archive[&one()].clone();
    let part = b"--edge\r\nContent-Type: application/dicom\r\n\r\n";
    let end = b"\r\n--edge--";
    for reply in [
        Reply::multipart(&dicom),
        Reply::multipart(&dicom).framing(Framing::Chunked(1)),
        Reply::multipart(&dicom).framing(Framing::Chunked(7)),
        Reply::multipart(&dicom).framing(Framing::Close),
        with(&[part, &dicom, end], MULTIPART),
        with(&[b"a preamble\r\n", part, &dicom, end, b"\r\n \r\n"], MULTIPART),
        with(&[part, &dicom, end], "multipart/related; type='application/dicom'; boundary='edge'"),
        with(
            &[b"--'edge'\r\n\r\n", &dicom, b"\r\n--'edge'--"],
            "multipart/related; type=application/dicom; boundary='edge'",
        ),
        with(&[b"--edge\r\n\r\n", &dicom, end], MULTIPART),
        with(
            &[b"--edge \r\ncontent-type: application/dicom; x=y\r\nmime-version: 1.0\r\n\r\n", &dicom, end],
            MULTIPART,
        ),
        with(&[&dicom], "application/dicom"),
        with(&[&dicom], "application/dicom").framing(Framing::Chunked(100)),
    ] {
        let framing = reply.framing;
        let server = server(&archive, Quirks::default(), move |_| Some(reply.clone())).await;
        let bytes = read(&source(&server), &Instance::new(one())).await.unwrap();
        assert!(bytes == dicom, "{framing:?}");
        let request = &server.requests()[0];
        assert_eq!(
            request.headers["accept"],
            r#"multipart/related; type="application/dicom"; transfer-syntax=*"#
        );
        assert_eq!(request.headers["accept-encoding"], "identity");
    }
}

/// Some servers, for example AWS HealthImaging, do not return multipart responses.
#[tokio::test]
async fn single_part_responses_are_requested_from_servers_without_multipart_responses() {
    for status in [400, 406, 415] {
        let archive = archive();
        let dicom = archive[&one()].clone();
        let single = with(&[&dicom], "application/dicom");
        let server = server(&archive, Quirks::default(), move |request| {
            let is_single = request.headers["accept"] == "application/dicom; transfer-syntax=*";
            let is_instance = request.path.contains("/instances/");
            is_instance.then(|| if is_single { single.clone() } else { Reply::new(status) })
        })
        .await;
        let source = source(&server);
        for _ in 0..3 {
            assert!(read(&source, &Instance::new(one())).await.unwrap() == dicom, "{status}");
        }
        // Only the first instance takes two requests.
        assert_eq!(server.requests().len(), 4, "{status}");
    }
}

/// Faulty responses for one instance, and the expected error kinds.
fn wrong(dicom: &[u8]) -> Vec<(&'static str, Reply, ErrorKind)> {
    let part = b"--edge\r\nContent-Type: application/dicom\r\n\r\n";
    let (end, half) = (b"\r\n--edge--", &dicom[..dicom.len() / 2]);
    let whole = Reply::multipart(dicom);
    let length = whole.body.len();
    use ErrorKind::{Invalid, NotFound, Throttled, Unauthorized, Unavailable, Unreadable};
    vec![
        ("wrong boundary", with(&[part, dicom, end], "multipart/related; boundary=other"), Unreadable),
        ("no boundary", with(&[part, dicom, end], "multipart/related"), Unreadable),
        ("no part headers", with(&[b"--edge\r\n", dicom, end], MULTIPART), Unreadable),
        (
            "an untyped part",
            with(&[b"--edge\r\n\r\n", dicom, end], "multipart/related; boundary=edge"),
            Unreadable,
        ),
        ("no part", with(&[b"--edge--"], MULTIPART), Unreadable),
        ("an empty part", with(&[part, end], MULTIPART), Unreadable),
        ("an epilogue", with(&[part, dicom, end, b"\r\nmore"], MULTIPART), Unreadable),
        ("content that ends the body", with(&[part, half, end, b"\r\n", half, end], MULTIPART), Unreadable),
        ("two parts", with(&[part, dicom, b"\r\n", part, dicom, end], MULTIPART), Unreadable),
        (
            "another type",
            with(&[b"--edge\r\nContent-Type: image/jpeg\r\n\r\n", dicom, end], MULTIPART),
            Unreadable,
        ),
        (
            "a wrong length",
            with(
                &[b"--edge\r\nContent-Type: application/dicom\r\nContent-Length: 5\r\n\r\n", dicom, end],
                MULTIPART,
            ),
            Unreadable,
        ),
        ("cut in the part, by length", whole.clone().framing(Framing::CutAt(length / 2)), Unavailable),
        ("cut in the part, in chunks", whole.clone().framing(Framing::ChunkedCutAt(length / 2)), Unavailable),
        ("cut in the part headers", whole.clone().framing(Framing::CutAt(20)), Unavailable),
        ("no end", with(&[part, half], MULTIPART), Unavailable),
        ("no end, in chunks", with(&[part, half], MULTIPART).framing(Framing::Chunked(99)), Unavailable),
        ("no end, by closing", with(&[part, half], MULTIPART).framing(Framing::Close), Unavailable),
        ("nothing", with(&[], MULTIPART), Unavailable),
        ("an unknown length", with(&[half], "application/dicom").framing(Framing::Close), Unreadable),
        (
            "a short body",
            with(&[dicom], "application/dicom").framing(Framing::CutAt(dicom.len() / 2)),
            Unavailable,
        ),
        ("compressed", whole.clone().header("content-encoding", "gzip"), Unreadable),
        ("a part only", Reply { status: 206, ..whole.clone() }, Unreadable),
        ("a page", Reply::html(), Unreadable),
        ("no content", Reply::new(204), NotFound),
        ("not found", Reply::new(404), NotFound),
        ("gone", Reply::new(410), NotFound),
        ("not acceptable", Reply::new(406), Unreadable),
        ("unsupported media type", Reply::new(415), Unreadable),
        ("bad request", Reply::new(400), Invalid),
        ("forbidden", Reply::new(403), Unauthorized),
        ("too many", Reply::new(429), Throttled),
        ("too busy", Reply::new(503), Throttled),
        ("locked", Reply::new(423), Unavailable),
        ("storage not reached", Reply::new(424), Unavailable),
        ("too early", Reply::new(425), Unavailable),
        ("a redirect to itself", Reply::new(302).header("location", ""), Unavailable),
        ("failed", Reply::new(500), Unavailable),
        ("bad gateway", Reply::new(502), Unavailable),
    ]
}

#[tokio::test]
async fn a_faulty_response_is_an_error() {
    let archive = archive();
    for (name, reply, kind) in wrong(&archive[&one()]) {
        let path = format!("/instances/{}", one().sop_instance_uid());
        let server = server(&archive, Quirks::default(), move |request| {
            request.path.ends_with(&path).then(|| reply.clone())
        })
        .await;
        let error = read(&source(&server), &Instance::new(one())).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(!error.message().contains("127.0.0.1"), "{name}: {error}");
    }
}

/// Exports everything to memory.
async fn export(source: DicomWebSource, retry: RetryPolicy) -> (MemorySink, Operation) {
    let sink = Arc::new(MemorySink::new());
    let engine = ExportEngine::builder(source).retry(retry).build().unwrap();
    let target: Arc<dyn BlobSink> = Arc::clone(&sink) as _;
    let started = engine.start(NewOperation::new(ExportSource::Everything, target)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    drop(engine);
    (Arc::try_unwrap(sink).ok().unwrap_or_default(), ended)
}

/// The exported instances, after their bytes were compared.
fn exported(sink: &MemorySink, operation: &Operation, archive: &Archive) -> Vec<InstanceIdentifier> {
    let results = format!("{}/results/", operation.operation_id);
    let names = sink.names();
    let names = names.iter().filter_map(|name| name.strip_prefix(&results)?.strip_suffix(".dcm"));
    let exported: Vec<InstanceIdentifier> = names.map(|name| name.parse().unwrap()).collect();
    for identifier in &exported {
        let bytes = sink.get(&format!("{results}{identifier}.dcm")).unwrap();
        assert!(bytes == archive[identifier], "{identifier} has different bytes");
    }
    exported
}

/// Each instance fails once with a transient error, and all of them are exported.
#[tokio::test]
async fn transient_failures_are_retried() {
    let archive = archive();
    let faults: Vec<Reply> = wrong(&archive[&one()])
        .into_iter()
        .filter(|(_, _, kind)| kind.is_transient())
        .map(|(_, reply, _)| reply.header("retry-after", "0"))
        .collect();
    let seen = Mutex::new(HashMap::<String, usize>::new());
    let kinds = faults.len();
    assert!(kinds <= archive.len());
    let server = server(&archive, Quirks::default(), move |request| {
        let mut seen = seen.lock().unwrap();
        let number = seen.len();
        match request.path.contains("/instances/") && seen.insert(request.path.clone(), number).is_none() {
            true => Some(faults[number % faults.len()].clone()),
            false => None,
        }
    })
    .await;
    let (sink, ended) = export(source(&server), RetryPolicy::with_budget(Duration::from_secs(20))).await;
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, 24), "{ended:?}");
    assert_eq!(ended.results.skipped, 0);
    assert_eq!(exported(&sink, &ended, &archive).len(), 24);
}

/// A failure of one instance skips this instance only.
#[tokio::test]
async fn permanent_failures_are_skipped() {
    let archive = archive();
    let own = [ErrorKind::Unreadable, ErrorKind::NotFound, ErrorKind::Invalid];
    for (name, reply, _) in wrong(&archive[&one()]).into_iter().filter(|(_, _, kind)| own.contains(kind)) {
        let path = format!("/instances/{}", one().sop_instance_uid());
        let server = server(&archive, Quirks::default(), move |request| {
            request.path.ends_with(&path).then(|| reply.clone())
        })
        .await;
        let (sink, ended) = export(source(&server), RetryPolicy::none()).await;
        assert_eq!(ended.status, OperationStatus::Completed, "{name}: {ended:?}");
        assert_eq!((ended.results.exported, ended.results.skipped), (23, 1), "{name}");
        let exported = exported(&sink, &ended, &archive);
        assert!(exported.len() == 23 && !exported.contains(&one()), "{name}");
        let log = sink.get(&format!("{}/errors.log", ended.operation_id)).unwrap();
        assert!(std::str::from_utf8(&log).unwrap().contains(&one().to_string()), "{name}");
    }
}

/// A gateway that returns 404 or an HTML page for every request, because its server is down, skips nothing.
#[tokio::test]
async fn an_unavailable_server_is_not_a_missing_instance() {
    let archive = archive();
    for (reply, kind) in [
        (Reply::new(404), ErrorKind::Unavailable),
        (Reply::html(), ErrorKind::Unavailable),
        (Reply::new(503), ErrorKind::Throttled),
    ] {
        let sent = reply.clone();
        let server = server(&archive, Quirks::default(), move |_| Some(sent.clone())).await;
        let error = read(&source(&server), &Instance::new(one())).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{reply:?}");
    }
    let gone = server(&archive, Quirks::default(), |_| None).await;
    let source = source(&gone);
    drop(gone);
    let error = read(&source, &Instance::new(one())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_that_does_not_respond_times_out() {
    let archive = archive();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = format!("http://{}/dicom-web", listener.local_addr().unwrap());
    // Accepts connections and sends nothing.
    let silent = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(stream);
        }
    });
    let source = DicomWebSource::builder(root).timeout(Duration::from_millis(50)).build().unwrap();
    let identifier = archive.keys().next().unwrap().clone();
    let error = read(&source, &Instance::new(identifier)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    silent.abort();
}

/// The number of concurrently open contents is limited.
#[tokio::test]
async fn concurrent_retrievals_are_limited() {
    use dicom_export::InstanceSource;
    use futures::{FutureExt, StreamExt};

    let archive = archive();
    let server = server(&archive, Quirks::default(), |_| None).await;
    let source = DicomWebSource::builder(server.root()).concurrency(2).build().unwrap();
    let instance = Instance::new(one());
    let first = source.open(&instance).await.unwrap();
    let mut second = source.open(&instance).await.unwrap().into_stream();
    let mut third = Box::pin(source.open(&instance));
    assert!((&mut third).now_or_never().is_none());
    // Queries have a separate limit.
    assert!(source.estimate(&ExportSource::Everything).await.is_ok());
    assert!((&mut third).now_or_never().is_none());
    while second.next().await.transpose().unwrap().is_some() {}
    third.await.unwrap();
    drop(first);
}
