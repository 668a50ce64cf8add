//! `errors.log` on Azurite.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use dicom_export::sink::LogKey;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobSink};
use dicom_export::{BlobPath, BlobSink};
use futures::FutureExt;
use futures::future::try_join_all;
use serde_json::json;

use crate::azurite::{ACCOUNT, Azurite, Container};
use crate::{log, sink};

async fn lines(container: &Container<'_>, log: &BlobPath) -> Vec<String> {
    let blob = container.get(log.as_str()).await.unwrap();
    assert_eq!((&*blob.content_type, &*blob.kind), ("application/x-ndjson", "AppendBlob"));
    String::from_utf8(blob.bytes.into()).unwrap().lines().map(str::to_owned).collect()
}

fn line(caller: usize, number: usize) -> String {
    json!({ "timestamp": "2026-01-02T03:04:05.0000000Z", "identifier": format!("1.{caller}.{number}") })
        .to_string()
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn prepare_creates_an_empty_log_and_keeps_an_existing_one() {
    let container = Azurite::shared().container().await;
    let (uri, log) = (container.sas_url("w"), log());
    sink(&uri).prepare(&log).await.unwrap();
    assert!(lines(&container, &log).await.is_empty());
    // As after restarts: each sink starts without knowledge of the log.
    for number in 0..3 {
        let sink = sink(&uri);
        sink.prepare(&log).await.unwrap();
        for more in 0..2 {
            let line = Bytes::from(line(number, more) + "\n");
            sink.append(&log, LogKey::new(0, 0), line).await.unwrap();
        }
        sink.finish(&log).await.unwrap();
    }
    let expected: Vec<_> = (0..3).flat_map(|number| [line(number, 0), line(number, 1)]).collect();
    assert_eq!(lines(&container, &log).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn concurrent_appends_of_several_sinks_are_whole_and_appear_once() {
    let container = Azurite::shared().container().await;
    let (uri, log) = (container.sas_url("w"), log());
    sink(&uri).prepare(&log).await.unwrap();
    let sinks = [Arc::new(sink(&uri)), Arc::new(sink(&uri))];
    let callers = (0..8).map(|caller| {
        let (sink, log) = (Arc::clone(&sinks[caller % 2]), log.clone());
        tokio::spawn(async move {
            for number in 0..200 {
                let key = LogKey::new(0, (caller * 200 + number) as u64);
                sink.append(&log, key, Bytes::from(line(caller, number) + "\n")).await.unwrap();
            }
        })
    });
    try_join_all(callers).await.unwrap();
    let lines = lines(&container, &log).await;
    let expected: BTreeSet<_> =
        (0..8).flat_map(|caller| (0..200).map(move |number| line(caller, number))).collect();
    assert_eq!(lines.len(), 1600);
    assert_eq!(BTreeSet::from_iter(lines), expected);
}

/// The lines of the other callers are whole and appear once.
#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn dropped_append_does_not_affect_other_callers() {
    let container = Azurite::shared().container().await;
    let (sink, log) = (sink(&container.sas_url("w")), log());
    sink.prepare(&log).await.unwrap();
    for number in 0..50 {
        let lost = sink.append(&log, LogKey::new(0, number), Bytes::from(line(0, number as usize) + "\n"));
        assert!(lost.now_or_never().is_none());
        let kept = Bytes::from(line(1, number as usize) + "\n");
        sink.append(&log, LogKey::new(0, number), kept).await.unwrap();
    }
    let lines = lines(&container, &log).await;
    let kept: Vec<_> = lines.iter().filter(|text| text.contains("\"1.1.")).cloned().collect();
    assert_eq!(kept, (0..50).map(|number| line(1, number)).collect::<Vec<_>>());
    let whole: BTreeSet<_> =
        (0..2).flat_map(|caller| (0..50).map(move |number| line(caller, number))).collect();
    assert!(lines.iter().all(|line| whole.contains(line)));
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn lines_beyond_the_append_limit_are_split_between_lines() {
    let container = Azurite::shared().container().await;
    let (sink, log) = (sink(&container.sas_url("w")), log());
    sink.prepare(&log).await.unwrap();
    let expected: Vec<_> = (0..100_000).map(|number| line(7, number)).collect();
    sink.append(&log, LogKey::new(0, 0), Bytes::from(expected.join("\n") + "\n")).await.unwrap();
    assert!(lines(&container, &log).await == expected);
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn emulator_accepts_appends_with_its_connection_string() {
    let container = Azurite::shared().container().await;
    let url = container.url();
    let (endpoint, name) = url.rsplit_once('/').unwrap();
    let settings = json!({
        "connectionString": format!("AccountName={ACCOUNT};AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;BlobEndpoint={endpoint}"),
        "blobContainerName": name,
    });
    let sink = AzureBlobSink::from_settings(&settings, &AzureBlobPolicy::development()).unwrap();
    let log = log();
    sink.prepare(&log).await.unwrap();
    sink.append(&log, LogKey::new(0, 0), Bytes::from(line(0, 0) + "\n")).await.unwrap();
    sink.append(&log, LogKey::new(0, 1), Bytes::from(line(0, 1) + "\n")).await.unwrap();
    assert_eq!(lines(&container, &log).await, [line(0, 0), line(0, 1)]);
}
