//! Guarantee 3: whole exports to Azurite through a proxy that fails requests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::testing::{Call, FaultPlan, FaultySource};
use dicom_export::{
    ErrorKind, ErrorLogEntry, ExportDestination, ExportEngine, ExportSource, InstanceIdentifier,
    MemorySource, NewOperation, Operation, OperationStatus, RetryPolicy,
};

use crate::azurite::{Azurite, Container};
use crate::proxy::{Action, Mode, Proxy};
use crate::{MIB, bytes};

/// Small instances, an empty one, and two that are written in blocks.
fn archive() -> BTreeMap<InstanceIdentifier, Bytes> {
    let sizes = (0..60).map(|n| n * 700).chain([9 * MIB, 17 * MIB]);
    let instances = sizes
        .enumerate()
        .map(|(n, size)| (format!("1.2.{}/1.2.{}.1/1.2.3.{n}", n % 3, n % 3).parse().unwrap(), bytes(size)));
    instances.collect()
}

struct Export {
    container: Container<'static>,
    proxy: Proxy,
    engine: ExportEngine,
    archive: BTreeMap<InstanceIdentifier, Bytes>,
}

impl Export {
    async fn new(retry: Duration, reading: FaultPlan) -> Self {
        let azurite = Azurite::shared();
        let (container, archive) = (azurite.container().await, archive());
        let source: MemorySource = archive.clone().into_iter().collect();
        let engine = ExportEngine::builder(FaultySource::new(Arc::new(source), reading))
            .destination(
                ExportDestination::AZURE_BLOB,
                AzureBlobProvider::new(AzureBlobPolicy::development()),
            )
            .batch_size(20)
            .retry(RetryPolicy::with_budget(retry))
            .build()
            .unwrap();
        Self { container, proxy: Proxy::start(azurite.port()).await, engine, archive }
    }

    /// The container through the proxy, with a write-only SAS that differs by its expiry.
    fn destination(&self, hours: i64) -> ExportDestination {
        let url = self.container.sas_url_until("w", Utc::now() + TimeDelta::hours(hours));
        ExportDestination::azure_blob(&self.proxy.through(&url))
    }

    async fn run(&self, destination: ExportDestination) -> Operation {
        let new = NewOperation::new(ExportSource::Everything, destination);
        let id = self.engine.start(new).await.unwrap().operation_id;
        self.engine.wait(id).await.unwrap()
    }

    /// Asserts that no instance was skipped or truncated, and that all instances, or at least those counted, are stored.
    async fn verify(&self, ended: &Operation) {
        assert_eq!(ended.results.skipped, 0, "{ended:?}");
        assert_eq!(self.log(ended).await, []);
        let blobs = self.container.list().await;
        let mut stored = 0;
        for (id, bytes) in &self.archive {
            let name = format!("{}/results/{id}.dcm", ended.operation_id);
            if ended.status == OperationStatus::Completed || blobs.contains_key(&name) {
                let blob = self.container.get(&name).await.unwrap_or_else(|| panic!("{id} is missing"));
                assert!(blob.bytes == bytes, "{id} differs");
                assert_eq!(blob.content_type, "application/dicom");
                stored += 1;
            }
        }
        assert!(ended.results.exported <= stored, "{ended:?}, {stored} stored");
        if ended.status == OperationStatus::Completed {
            assert_eq!(ended.results.exported as usize, self.archive.len());
        }
    }

    async fn log(&self, ended: &Operation) -> Vec<ErrorLogEntry> {
        let log = self.container.get(&format!("{}/errors.log", ended.operation_id)).await.unwrap();
        let text = std::str::from_utf8(&log.bytes).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_3_transient_failures_skip_nothing() {
    let busy = Action::Respond("503 Busy\r\nx-ms-error-code: ServerBusy");
    let busy_for = Action::Respond("503 Busy\r\nx-ms-error-code: ServerBusy\r\nretry-after: 1");
    let failed = Action::Respond("500 Failed\r\nx-ms-error-code: InternalError");
    let actions =
        [(busy, 4), (busy_for, 40), (failed, 4), (Action::Disconnect, 5), (Action::DropResponse, 4)];
    let exports = actions.map(async |(action, one_in)| {
        let export = Export::new(Duration::from_secs(60), FaultPlan::new(0)).await;
        let failed = export.proxy.fail_some(action, one_in);
        let ended = export.run(export.destination(1)).await;
        assert_eq!(ended.status, OperationStatus::Completed, "{action:?}: {:?}", ended.error);
        export.verify(&ended).await;
        let failed = failed.load(SeqCst);
        assert!(failed >= 4, "{action:?} applied to {failed} requests");
    });
    futures::future::join_all(exports).await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn error_log_is_complete_although_responses_are_lost() {
    let reading = FaultPlan::new(4).permanent_failures([Call::Open], 0.3, [ErrorKind::Unreadable]);
    let export = Export::new(Duration::from_secs(60), reading).await;
    export.proxy.fail_some(Action::DropResponse, 3);
    let ended = export.run(export.destination(1)).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    let (exported, skipped) = (ended.results.exported as usize, ended.results.skipped as usize);
    assert!(skipped > 0 && exported + skipped == export.archive.len(), "{ended:?}");
    let mut logged: Vec<_> =
        export.log(&ended).await.iter().map(|line| line.identifier().to_owned()).collect();
    logged.sort_unstable();
    logged.dedup();
    assert_eq!(logged.len(), skipped);
    let blobs = export.container.list().await;
    for id in export.archive.keys() {
        let exists = blobs.contains_key(&format!("{}/results/{id}.dcm", ended.operation_id));
        assert_ne!(exists, logged.contains(&id.to_string()), "{id}");
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn lines_appear_once_although_the_response_to_the_first_append_is_lost() {
    let reading = FaultPlan::new(4).permanent_failures([Call::Open], 0.3, [ErrorKind::Unreadable]);
    let export = Export::new(Duration::from_secs(60), reading).await;
    let appends = AtomicUsize::new(0);
    export.proxy.on_request(move |_, head| {
        match head.contains("comp=appendblock") && appends.fetch_add(1, SeqCst) == 0 {
            true => Action::DropResponse,
            false => Action::Forward,
        }
    });
    let ended = export.run(export.destination(1)).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    assert!(ended.results.skipped > 0);
    let mut logged: Vec<_> =
        export.log(&ended).await.iter().map(|line| line.identifier().to_owned()).collect();
    assert_eq!(logged.len() as u64, ended.results.skipped);
    logged.sort_unstable();
    logged.dedup();
    assert_eq!(logged.len() as u64, ended.results.skipped, "each line appears once");
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_3_operation_completes_after_a_temporary_outage() {
    let export = Export::new(Duration::from_secs(60), FaultPlan::new(0)).await;
    let destination = export.destination(1);
    let outage = async {
        export.proxy.wait_for_requests(25).await;
        export.proxy.set_mode(Mode::Disconnect);
        tokio::time::sleep(Duration::from_secs(2)).await;
        export.proxy.set_mode(Mode::Forward);
    };
    let (ended, ()) = futures::future::join(export.run(destination), outage).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    export.verify(&ended).await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_3_lasting_outage_fails_the_operation_which_can_be_resumed() {
    let export = Export::new(Duration::from_secs(1), FaultPlan::new(0)).await;
    let (first, second) = (export.destination(1), export.destination(2));
    let outage = async {
        export.proxy.wait_for_requests(25).await;
        export.proxy.set_mode(Mode::Disconnect);
    };
    let (failed, ()) = futures::future::join(export.run(first), outage).await;
    assert_eq!(failed.status, OperationStatus::Failed);
    assert_eq!(failed.error.as_ref().unwrap().code, "unavailable");
    export.verify(&failed).await;

    // A resumption fails while the destination is down.
    let refused = export.engine.resume(failed.operation_id, Some(second.clone().into())).await;
    assert_eq!(refused.unwrap_err().pointer(), Some("/destination"));
    export.proxy.set_mode(Mode::Forward);
    export.engine.resume(failed.operation_id, Some(second.into())).await.unwrap();
    let ended = export.engine.wait(failed.operation_id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    export.verify(&ended).await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_3_refused_credential_is_replaced_by_a_resumption() {
    let export = Export::new(Duration::from_secs(60), FaultPlan::new(0)).await;
    let expiry = |destination: &ExportDestination| {
        let uri = destination.expose_settings()["blobContainerUri"].as_str().unwrap();
        uri.split('&').find(|part| part.starts_with("se=")).unwrap().to_owned()
    };
    let (first, second) = (export.destination(1), export.destination(2));
    let refused = expiry(&first);
    assert_ne!(refused, expiry(&second));
    export.proxy.on_request(move |number, head| match number > 30 && head.contains(&refused) {
        true => Action::Respond("403 Refused\r\nx-ms-error-code: AuthenticationFailed"),
        false => Action::Forward,
    });
    let failed = export.run(first.clone()).await;
    assert_eq!(failed.status, OperationStatus::Failed);
    assert_eq!(failed.error.as_ref().unwrap().code, "unauthorized");
    export.verify(&failed).await;

    // The same credential is refused again.
    let refused = export.engine.resume(failed.operation_id, Some(first.into())).await;
    assert_eq!(refused.unwrap_err().pointer(), Some("/destination"));
    export.engine.resume(failed.operation_id, Some(second.into())).await.unwrap();
    let ended = export.engine.wait(failed.operation_id).await.unwrap();
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    export.verify(&ended).await;
}
