//! Whole exports to moto and s3s-fs through a proxy that fails requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::Bytes;
use dicom_export::sink::s3::{S3Policy, S3Provider};
use dicom_export::testing::{FaultPlan, FaultySource};
use dicom_export::{
    ErrorLogEntry, ExportDestination, ExportEngine, ExportSource, InstanceIdentifier, MemorySource,
    NewOperation, Operation, OperationStatus, RetryPolicy,
};
use serde_json::json;

use crate::proxy::{Action, Mode, Proxy};
use crate::s3::{Bucket, Kind, S3Server};
use crate::{MIB, bytes};

/// Small instances, an empty one, and two that are multipart uploads.
fn archive() -> BTreeMap<InstanceIdentifier, Bytes> {
    let sizes = (0..40).map(|n| n * 700).chain([6 * MIB, 11 * MIB]);
    let instances = sizes
        .enumerate()
        .map(|(n, size)| (format!("1.2.{}/1.2.{}.1/1.2.3.{n}", n % 3, n % 3).parse().unwrap(), bytes(size)));
    instances.collect()
}

struct Export {
    bucket: Bucket<'static>,
    proxy: Proxy,
    engine: ExportEngine,
    archive: BTreeMap<InstanceIdentifier, Bytes>,
}

impl Export {
    async fn new(kind: Kind, retry: Duration) -> Self {
        let server = S3Server::shared(kind);
        let (bucket, archive) = (server.bucket().await, archive());
        let source: MemorySource = archive.clone().into_iter().collect();
        let source = FaultySource::new(Arc::new(source), FaultPlan::new(0));
        let engine = ExportEngine::builder(source)
            .destination("s3", S3Provider::new(S3Policy::development()))
            .batch_size(20)
            .manifest(true)
            .retry(RetryPolicy::with_budget(retry))
            .build()
            .unwrap();
        Self { bucket, proxy: Proxy::start(server.port()).await, engine, archive }
    }

    /// The bucket through the proxy, with this session token.
    fn destination(&self, token: &str) -> ExportDestination {
        let mut settings = self.bucket.settings_at(&format!("http://127.0.0.1:{}", self.proxy.port()));
        settings["sessionToken"] = json!(token);
        ExportDestination::new("s3", settings)
    }

    async fn run(&self) -> Operation {
        let new = NewOperation::new(ExportSource::Everything, self.destination(""));
        let id = self.engine.start(new).await.unwrap().operation_id;
        self.engine.wait(id).await.unwrap()
    }

    /// Verifies that no instance was skipped or cut, that all of them, or at least those counted, are stored, and that the logs
    /// of a completed operation are complete and no multipart upload is left.
    async fn verify(&self, ended: &Operation) {
        assert_eq!(ended.results.skipped, 0, "{ended:?}");
        let objects = self.bucket.list().await;
        let mut there = 0;
        for (id, bytes) in &self.archive {
            let name = format!("{}/results/{id}.dcm", ended.operation_id);
            if ended.status == OperationStatus::Completed || objects.contains_key(&name) {
                let object = self.bucket.get(&name).await.unwrap_or_else(|| panic!("{id} is missing"));
                assert!(object.bytes == bytes, "{id} differs");
                there += 1;
            }
        }
        assert!(ended.results.exported <= there, "{ended:?} of {there}");
        if ended.status == OperationStatus::Completed {
            assert_eq!(ended.results.exported as usize, self.archive.len());
            assert_eq!(self.log::<ErrorLogEntry>(ended, "errors.log").await, []);
            let manifest: Vec<serde_json::Value> = self.log(ended, "manifest.jsonl").await;
            assert!(manifest.len() >= self.archive.len(), "{} lines", manifest.len());
            let logs = objects.keys().filter(|name| !name.contains("/results/")).count();
            assert_eq!(logs, 2, "parts of the logs are left");
            assert_eq!(self.bucket.pending_uploads().await, 0);
        }
    }

    async fn log<T: serde::de::DeserializeOwned>(&self, ended: &Operation, name: &str) -> Vec<T> {
        let log = self.bucket.get(&format!("{}/{name}", ended.operation_id)).await.unwrap();
        let text = std::str::from_utf8(&log.bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn guarantee_3_transient_failures_skip_nothing() {
    let slow_down = "<Error><Code>SlowDown</Code></Error>";
    let actions = [
        (Action::Respond("503 Busy"), 4),
        (Action::RespondXml("503 Slow Down\r\nretry-after: 1", slow_down), 40),
        (Action::Respond("500 Failed"), 4),
        (Action::Disconnect, 5),
        (Action::DropResponse, 4),
    ];
    let exports = actions.map(async |(action, one_in)| {
        let export = Export::new(Kind::Moto, Duration::from_secs(60)).await;
        let failed = export.proxy.fail_some(action, one_in);
        let ended = export.run().await;
        assert_eq!(ended.status, OperationStatus::Completed, "{action:?}: {:?}", ended.error);
        export.verify(&ended).await;
        let failed = failed.load(SeqCst);
        assert!(failed >= 4, "{action:?} applied to {failed} requests");
    });
    futures::future::join_all(exports).await;
}

#[tokio::test]
#[ignore = "needs s3s-fs: tests/run.sh"]
async fn guarantee_1_and_2_export_with_verified_signatures_is_complete() {
    let export = Export::new(Kind::S3s, Duration::from_secs(60)).await;
    let ended = export.run().await;
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    export.verify(&ended).await;
}

/// The server verifies the checksums of bodies.
#[tokio::test]
#[ignore = "needs s3s-fs: tests/run.sh"]
async fn guarantee_1_body_damaged_on_the_way_is_sent_again() {
    let export = Export::new(Kind::S3s, Duration::from_secs(60)).await;
    export.proxy.corrupt_next(5);
    let ended = export.run().await;
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    assert_eq!(export.proxy.remaining_corruptions(), 0);
    export.verify(&ended).await;
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn guarantee_3_lasting_outage_fails_the_operation_which_can_be_resumed() {
    let export = Export::new(Kind::Moto, Duration::from_secs(1)).await;
    let outage = async {
        export.proxy.wait_for_requests(25).await;
        export.proxy.set_mode(Mode::Disconnect);
    };
    let (failed, ()) = futures::future::join(export.run(), outage).await;
    assert_eq!(failed.status, OperationStatus::Failed);
    assert_eq!(failed.error.as_ref().unwrap().code, "unavailable");
    export.proxy.set_mode(Mode::Forward);
    export.verify(&failed).await;
    let destination = export.destination("");
    export.engine.resume(failed.operation_id, Some(destination.into())).await.unwrap();
    let ended = export.engine.wait(failed.operation_id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    export.verify(&ended).await;
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn guarantee_3_expired_session_token_is_replaced_by_a_resumption() {
    let export = Export::new(Kind::Moto, Duration::from_secs(60)).await;
    let (first, second) = (export.destination("first-token"), export.destination("second-token"));
    let expired =
        "<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>";
    let is_expired = |number, head: &str| number > 30 && head.contains("first-token");
    export.proxy.on_request(move |number, head| match is_expired(number, head) {
        true => Action::RespondXml("400 Bad Request", expired),
        false => Action::Forward,
    });
    let new = NewOperation::new(ExportSource::Everything, first.clone());
    let id = export.engine.start(new).await.unwrap().operation_id;
    let failed = export.engine.wait(id).await.unwrap();
    assert_eq!(failed.status, OperationStatus::Failed);
    let error = failed.error.as_ref().unwrap();
    assert_eq!(error.code, "unauthorized");
    assert!(error.message.contains("(400 ExpiredToken)"), "{error:?}");
    export.verify(&failed).await;

    // The same token is refused again.
    let refused = export.engine.resume(id, Some(first.into())).await;
    assert_eq!(refused.unwrap_err().pointer(), Some("/destination"));
    export.engine.resume(id, Some(second.into())).await.unwrap();
    let ended = export.engine.wait(id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    export.verify(&ended).await;
}

/// A bucket that has failed is not the one in which the operation was started.
#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn operation_is_resumed_in_its_own_bucket_and_prefix_only() {
    let export = Export::new(Kind::Moto, Duration::from_secs(1)).await;
    export.proxy.on_request(|number, _| if number > 20 { Action::Disconnect } else { Action::Forward });
    let failed = export.run().await;
    assert_eq!(failed.status, OperationStatus::Failed);
    let mut elsewhere = export.bucket.settings_at(&format!("http://127.0.0.1:{}", export.proxy.port()));
    elsewhere["prefix"] = json!("elsewhere");
    let elsewhere = ExportDestination::new("s3", elsewhere);
    let error = export.engine.resume(failed.operation_id, Some(elsewhere.into())).await.unwrap_err();
    assert!(error.message().contains("in the container in which it was started"), "{error}");
}
