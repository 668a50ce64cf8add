//! Studies and series of small instances that are read with one request.

use std::sync::Arc;

use bytes::Bytes;
use dicom_export::testing::fixtures;
use dicom_export::{DicomWebSource, ExportEngine, ExportSource, MemorySink, NewOperation, OperationStatus};

use crate::server;
use crate::server::{Archive, Framing, Quirks, Reply, Request, Server};

/// The instances of each series.
const INSTANCES: u32 = 60;

const MULTIPART: &str = r#"multipart/related; type="application/dicom"; boundary=edge"#;

/// Two studies of two series of small instances, and one of large instances.
fn archive() -> Arc<Archive> {
    let small = [(1, 1), (1, 2), (2, 1), (2, 2)].into_iter().flat_map(|(study, series)| {
        (0..INSTANCES).map(move |number| {
            let of = (study, series, number);
            (fixtures::instance(of.0, of.1, of.2), fixtures::ct_slice(of.0, of.1, of.2))
        })
    });
    let large =
        (0..20).map(|number| (fixtures::instance(3, 1, number), fixtures::multi_frame(3, 1, number, 40)));
    Arc::new(small.chain(large).collect())
}

fn part(bytes: &[u8]) -> Vec<u8> {
    let head =
        format!("\r\n--edge\r\nContent-Type: application/dicom\r\nContent-Length: {}\r\n\r\n", bytes.len());
    [head.as_bytes(), bytes].concat()
}

fn multipart<'a>(parts: impl IntoIterator<Item = &'a Bytes>) -> Reply {
    let mut body: Vec<u8> = parts.into_iter().flat_map(|bytes| part(bytes)).collect();
    body.extend_from_slice(b"\r\n--edge--\r\n");
    Reply::new(200).header("content-type", MULTIPART).body(body)
}

/// The instances of the study or series that is requested, in the order of their UIDs; `None` for another request.
fn requested<'a>(archive: &'a Archive, request: &Request) -> Option<Vec<&'a Bytes>> {
    let (study, series) = match *request.path.split('/').collect::<Vec<_>>() {
        ["studies", study] => (study, None),
        ["studies", study, "series", series] => (study, Some(series)),
        _ => return None,
    };
    let found = archive.iter().filter(|(identifier, _)| {
        identifier.study_instance_uid().as_str() == study
            && series.is_none_or(|series| identifier.series_instance_uid().as_str() == series)
    });
    Some(found.map(|(_, bytes)| bytes).collect())
}

/// A server whose responses for instances state the length of their part, and that responds to requests for studies and series with
/// `respond`.
async fn serve(
    archive: &Arc<Archive>,
    respond: impl Fn(Vec<&Bytes>) -> Reply + Send + Sync + 'static,
) -> Server {
    let held = Arc::clone(archive);
    server(archive, Quirks::default(), move |request| {
        if let Some(instances) = requested(&held, request) {
            return Some(respond(instances));
        }
        let sop = request.path.split_once("/instances/")?.1;
        let found = held.iter().find(|(identifier, _)| identifier.sop_instance_uid().as_str() == sop)?;
        Some(multipart([found.1]))
    })
    .await
}

/// Exports, verifies every byte, and returns the numbers of requests for whole studies and series, and for instances.
async fn export(archive: &Archive, server: &Server, source: ExportSource, read_ahead: u64) -> (usize, usize) {
    let covers = |identifier| match &source {
        ExportSource::Identifiers(all) => all.iter().any(|one| one.covers(identifier)),
        _ => true,
    };
    let archive: Vec<_> = archive.iter().filter(|(identifier, _)| covers(identifier)).collect();
    let from = DicomWebSource::builder(server.root()).read_ahead(read_ahead).build().unwrap();
    let (sink, engine) = (MemorySink::new(), ExportEngine::builder(from).build().unwrap());
    let started = engine.start(NewOperation::new(source, sink.clone())).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len() as u64, 0));
    for (identifier, bytes) in archive {
        let exported = sink.get(&format!("{}/results/{identifier}.dcm", ended.operation_id)).unwrap();
        assert!(exported == *bytes, "{identifier} has different bytes");
    }
    let requests = server.requests();
    let of_instances = requests.iter().filter(|request| request.path.contains("/instances/"));
    let whole = requests.iter().filter(|request| {
        let segments: Vec<_> = request.path.split('/').collect();
        matches!(*segments, ["studies", _] | ["studies", _, "series", _])
    });
    (whole.count(), of_instances.count())
}

const ROOM: u64 = 16 << 20;

#[tokio::test]
async fn small_instances_of_a_study_need_one_request() {
    let archive = archive();
    let server = serve(&archive, |instances| multipart(instances)).await;
    let (studies, instances) = export(&archive, &server, ExportSource::Everything, ROOM).await;
    // The large instances, and the first instances of each study, are retrieved on their own.
    assert_eq!(studies, 2);
    assert!((22..=20 + 2 * 32).contains(&instances), "{instances} requests for instances");
}

#[tokio::test]
async fn instances_that_a_study_does_not_return_in_time_are_retrieved_on_their_own() {
    let archive = archive();
    let responses: [fn(Vec<&Bytes>) -> Reply; 9] = [
        |mut instances| {
            instances.reverse();
            multipart(instances)
        },
        |instances| multipart(instances.into_iter().step_by(2)),
        |instances| multipart(instances.into_iter().flat_map(|bytes| [bytes, bytes])),
        // The instance of another study.
        |instances| multipart([&fixtures::ct_slice(9, 9, 9)].into_iter().chain(instances)),
        |instances| multipart([&Bytes::from_static(b"not DICOM")].into_iter().chain(instances)),
        |instances| {
            let reply = multipart(instances);
            let half = reply.body.len() / 2;
            reply.framing(Framing::CutAt(half))
        },
        |_| Reply::new(500),
        |_| Reply::html(),
        // An instance that ends early, and then an end of the body that is not the end.
        |instances| {
            let whole = instances[0];
            let shorter = whole.slice(..whole.len() / 2);
            let stated = [b"\r\n--edge\r\nContent-Type: application/dicom\r\n\r\n", &shorter[..]].concat();
            Reply::new(200)
                .header("content-type", MULTIPART)
                .body([&stated[..], b"\r\n--edge--\r\n", &whole[whole.len() / 2..]].concat())
        },
    ];
    for respond in responses {
        let server = serve(&archive, respond).await;
        assert_eq!(export(&archive, &server, ExportSource::Everything, ROOM).await.0, 2);
    }
}

#[tokio::test]
async fn a_part_with_a_wrong_length_is_not_used() {
    let archive = archive();
    let server = serve(&archive, |instances| {
        let mut body = Vec::new();
        for bytes in instances {
            // Each part states half of its length, after which another delimiter is missing.
            let whole = part(bytes);
            let text = String::from_utf8_lossy(&whole[..80]).into_owned();
            let length = bytes.len().to_string();
            let at = text.find(&length).unwrap();
            body.extend_from_slice(&whole[..at]);
            body.extend_from_slice(format!("{:0width$}", bytes.len() / 2, width = length.len()).as_bytes());
            body.extend_from_slice(&whole[at + length.len()..]);
        }
        body.extend_from_slice(b"\r\n--edge--\r\n");
        Reply::new(200).header("content-type", MULTIPART).body(body)
    })
    .await;
    assert_eq!(export(&archive, &server, ExportSource::Everything, ROOM).await.0, 2);
}

#[tokio::test]
async fn a_small_cache_or_none_exports_the_same() {
    let archive = archive();
    let one = archive[&fixtures::instance(1, 1, 1)].len() as u64;
    for room in [1 << 10, 2 * one, 10 * one] {
        let server = serve(&archive, |instances| multipart(instances)).await;
        export(&archive, &server, ExportSource::Everything, room).await;
    }
    let server = serve(&archive, |instances| multipart(instances)).await;
    assert_eq!(export(&archive, &server, ExportSource::Everything, 0).await, (0, archive.len()));
}

#[tokio::test]
async fn a_series_of_an_export_by_identifiers_needs_one_request() {
    let archive = archive();
    let server = serve(&archive, |instances| multipart(instances)).await;
    let identifiers = [fixtures::series_identifier(1, 2), fixtures::instance(2, 1, 1).into()];
    let source = ExportSource::identifiers(identifiers).unwrap();
    let (whole, instances) = export(&archive, &server, source, ROOM).await;
    assert_eq!(whole, 1);
    assert!((2..=33).contains(&instances), "{instances} requests for instances");
}
