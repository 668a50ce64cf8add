//! A request that is larger than Restate's limit for a message.

use dicom_export::{DicomIdentifier, ExportService, ExportSource, NewOperation, OperationStatus};

use crate::archive::Archive;
use crate::azurite::Azurite;
use crate::cluster::{Cluster, emulator, ended};

/// An identifier of maximum length that matches nothing.
fn unknown(number: usize) -> DicomIdentifier {
    let uid = |root: u32| format!("{root}.{number:0>width$}", width = 62);
    format!("{}/{}/{}", uid(1), uid(2), uid(3)).parse().unwrap()
}

/// 40 MB in 200,000 identifiers; a million, 200 MB, with `tests/run.sh --long`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn a_request_larger_than_a_message_is_exported_by_two_workers() {
    let count = if std::env::var_os("DICOM_EXPORT_LONG").is_some() { 1_000_000 } else { 200_000 };
    let archive = Archive::new(100);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let cluster = Cluster::new(archive.root(), 2, &[]).await;
    let client = cluster.client();
    // Known identifiers first and last.
    let known = (0..2).map(dicom_export::testing::fixtures::study_identifier).collect::<Vec<_>>();
    let unknowns = (0..count).map(unknown);
    let requested = [known[0].clone()].into_iter().chain(unknowns).chain([known[1].clone()]);
    let source = ExportSource::identifiers(requested).unwrap();
    let length = serde_json::to_vec(&source).unwrap().len();
    assert!(length > 32 << 20, "{length} bytes");
    let began = std::time::Instant::now();
    let started =
        client.start(NewOperation::new(source, emulator(&container, azurite.port()))).await.unwrap();
    let id = started.operation_id;
    eprintln!("accepted {length} bytes in {:?}", began.elapsed());
    let ended = ended(&cluster, &client, id).await;
    eprintln!("ended after {:?}", began.elapsed());
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len(), count as u64));
    let log = container.get(&format!("{id}/errors.log")).await.unwrap().bytes;
    let lines = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let named = lines.map(|line| {
        let line: serde_json::Value = serde_json::from_slice(line).expect("a complete line");
        line["identifier"].as_str().unwrap().to_owned()
    });
    let named: std::collections::HashSet<_> = named.collect();
    assert_eq!(named.len(), count);
    assert!((0..count).step_by(997).all(|number| named.contains(&unknown(number).to_string())));
}
