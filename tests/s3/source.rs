//! Buckets as sources.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use dicom_export::sink::s3::S3Policy;
use dicom_export::source::{Instance, Locator, ObjectLayout};
use dicom_export::testing::source_conformance;
use dicom_export::{
    ExportEngine, ExportSource, InstanceIdentifier, InstanceSource, MemorySink, NewOperation,
    ObjectStoreSource, OperationStatus, RetryPolicy,
};
use object_store::ObjectStoreExt;
use serde_json::json;

use crate::bytes;
use crate::proxy::{Action, Proxy};
use crate::s3::{Bucket, Kind, S3Server};

fn archive() -> BTreeMap<InstanceIdentifier, Bytes> {
    let instance = |n: usize| {
        let (study, series) = (n / 8, n / 4);
        (format!("1.2.{study}/1.2.3.{series}/1.2.3.4.{n}").parse().unwrap(), bytes(100 * n))
    };
    (0..24).map(instance).collect()
}

/// Stores the archive with a layout, below a prefix.
async fn fill(bucket: &Bucket<'_>, key: impl Fn(&InstanceIdentifier) -> String) {
    for (instance, bytes) in archive() {
        bucket.store().put(&format!("dicom/{}", key(&instance)).into(), bytes.into()).await.unwrap();
    }
}

fn source(bucket: &Bucket<'_>, endpoint: &str) -> ObjectStoreSource {
    let mut settings = bucket.settings_at(endpoint);
    settings["prefix"] = json!("dicom");
    ObjectStoreSource::open_s3(&settings, &S3Policy::development()).unwrap()
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn source_fulfills_its_contract() {
    let bucket = S3Server::shared(Kind::Moto).bucket().await;
    fill(&bucket, |instance| format!("{instance}.dcm")).await;
    source_conformance(|| source(&bucket, &bucket.server.endpoint()), &archive()).await;
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn source_with_a_template_fulfills_its_contract() {
    let bucket = S3Server::shared(Kind::Moto).bucket().await;
    fill(&bucket, |instance| {
        let uids: Vec<_> = instance.to_string().split('/').map(str::to_owned).collect();
        format!("{}/studies/{}/{}", uids[1], uids[0], uids[2])
    })
    .await;
    let layout = ObjectLayout::template("{series}/studies/{study}/{instance}").unwrap();
    let source = || source(&bucket, &bucket.server.endpoint()).with_layout(layout.clone());
    source_conformance(source, &archive()).await;
}

/// Stores the archive under numbers, and an index in the order of these numbers.
async fn fill_with_index(bucket: &Bucket<'_>) {
    let keys: Vec<_> = archive().into_keys().collect();
    let number = |instance: &InstanceIdentifier| keys.iter().rev().position(|key| key == instance).unwrap();
    fill(bucket, |instance| format!("2024 é/IM{}", number(instance))).await;
    let lines = keys.iter().rev().map(|instance| {
        json!({ "identifier": instance, "path": format!("2024 %C3%A9/IM{}", number(instance)) }).to_string()
            + "\n"
    });
    let index = lines.collect::<String>();
    bucket.store().put(&"dicom/index.jsonl".into(), index.into()).await.unwrap();
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn source_with_an_index_fulfills_its_contract() {
    let bucket = S3Server::shared(Kind::Moto).bucket().await;
    fill_with_index(&bucket).await;
    let layout = ObjectLayout::index("index.jsonl").unwrap();
    let source = || source(&bucket, &bucket.server.endpoint()).with_layout(layout.clone());
    source_conformance(source, &archive()).await;
}

/// The destination fetches an instance from a signed URL without further credentials.
#[tokio::test]
#[ignore = "needs s3s-fs: tests/run.sh"]
async fn url_that_the_source_signs_returns_the_instance() {
    let bucket = S3Server::shared(Kind::S3s).bucket().await;
    fill(&bucket, |instance| format!("{instance}.dcm")).await;
    let source = source(&bucket, &bucket.server.endpoint());
    let (identifier, bytes) = archive().into_iter().nth(7).unwrap();
    // s3s-fs lists no ETags.
    let instance = &Instance::new(identifier).with_size(bytes.len() as u64).with_locator(Locator::new("tag"));
    assert!(source.copy_url(instance).await.unwrap().is_none(), "instances are streamed by default");
    let signed = source.clone().with_signed_urls().copy_url(instance).await.unwrap().unwrap();
    let response = reqwest::get(signed.expose_url()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.bytes().await.unwrap() == bytes);
    let unsigned = signed.expose_url().split('?').next().unwrap();
    assert_eq!(reqwest::get(unsigned).await.unwrap().status(), 403);
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn guarantee_2_transient_failures_of_the_source_skip_nothing() {
    let bucket = S3Server::shared(Kind::Moto).bucket().await;
    fill(&bucket, |instance| format!("{instance}.dcm")).await;
    export_with_failures(&bucket, ObjectLayout::default()).await;
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn guarantee_2_transient_failures_of_a_source_with_an_index_skip_nothing() {
    let bucket = S3Server::shared(Kind::Moto).bucket().await;
    fill_with_index(&bucket).await;
    export_with_failures(&bucket, ObjectLayout::index("index.jsonl").unwrap()).await;
}

/// Exports the archive while every other request fails.
async fn export_with_failures(bucket: &Bucket<'_>, layout: ObjectLayout) {
    let proxy = Proxy::start(bucket.server.port()).await;
    let slow_down = "<Error><Code>SlowDown</Code></Error>";
    proxy.on_request(move |number, _| match number % 4 {
        0 => Action::RespondXml("503 Slow Down", slow_down),
        2 => Action::Disconnect,
        _ => Action::Forward,
    });
    let sink = MemorySink::new();
    let engine = ExportEngine::builder(
        source(bucket, &format!("http://127.0.0.1:{}", proxy.port())).with_layout(layout),
    )
    .retry(RetryPolicy::with_budget(Duration::from_secs(60)))
    .build()
    .unwrap();
    let operation =
        engine.start(NewOperation::new(ExportSource::Everything, sink.clone())).await.unwrap().operation_id;
    let ended = engine.wait(operation).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    assert_eq!((ended.results.exported, ended.results.skipped), (24, 0));
    for (instance, bytes) in archive() {
        assert!(sink.get(&format!("{operation}/results/{instance}.dcm")).unwrap() == bytes);
    }
}
