//! Operations that end early: the destination fails, or the process is interrupted.

use tempfile::TempDir;

use crate::azurite::{Azurite, Container};
use crate::durability::Generated;
use crate::process::Export;
use crate::proxy::{Mode, Proxy};
use crate::signatures;

/// The number of instances in the container.
async fn count_instances(container: &Container<'_>) -> u64 {
    container.list().await.keys().filter(|name| name.ends_with(".dcm")).count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn an_operation_fails_if_its_destination_ends() {
    let archive = Generated::new(600, 0);
    let azurite = Azurite::new();
    let proxy = Proxy::start(azurite.port()).await;
    let uri = proxy.through(&azurite.container().await.sas_url("w"));
    let mut running = Export::of(archive.root()).to(&uri).arg("--retry-for").arg("2").start();
    running.until(proxy.wait_for_requests(100)).await;
    drop(azurite);
    let outcome = running.outcome().await;
    let document = outcome.assert_ended(1, "failed");
    assert_eq!(document["error"]["code"], "unavailable", "{document}");
    assert_eq!(document["results"]["skipped"], 0);
    let last = outcome.stderr.lines().last().unwrap();
    assert!(last.starts_with("error: "), "{outcome:?}");
    for secret in signatures(&uri) {
        assert!(!outcome.stdout.contains(&secret) && !outcome.stderr.contains(&secret));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_3_a_failed_operation_is_resumed_with_another_credential() {
    let archive = Generated::new(600, 0);
    let folder = TempDir::new().unwrap();
    let container = Azurite::shared().container().await;
    let proxy = Proxy::start(Azurite::shared().port()).await;
    let export = |container: &Container<'_>| {
        let uri = proxy.through(&container.sas_url("w"));
        let export = Export::of(archive.root()).to(&uri).arg("--retry-for").arg("1");
        export.arg("--state").arg(folder.path().join("state"))
    };
    let mut running = export(&container).start();
    running.until(proxy.wait_for_requests(200)).await;
    proxy.set_mode(Mode::Disconnect);
    let failed = running.outcome().await.assert_ended(1, "failed");
    assert_eq!(failed["error"]["code"], "unavailable", "{failed}");
    assert_eq!(failed["results"]["skipped"], 0);
    proxy.set_mode(Mode::Forward);

    let elsewhere = Azurite::shared().container().await;
    let rejected = export(&elsewhere).arg("--resume").arg("last").run().await;
    assert!(rejected.assert_rejected().contains("in the container in which it was started"), "{rejected:?}");
    let resumed = export(&container).arg("--resume").arg("last").run().await.assert_ended(0, "completed");
    assert_eq!(resumed["results"]["exported"], 600);
    for member in ["operationId", "createdTime"] {
        assert_eq!(resumed[member], failed[member]);
    }
    assert_eq!(resumed["results"]["errorHref"], failed["results"]["errorHref"]);
    archive.assert_exported(&container, resumed["operationId"].as_str().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_8_an_interrupt_cancels_and_leaves_no_partial_blob() {
    // The proxy holds all further requests for instances, so the process is interrupted during its work.
    for held_after in [1, 60] {
        let archive = Generated::new(300, 2);
        let container = Azurite::shared().container().await;
        let proxy = Proxy::start(Azurite::shared().port()).await;
        proxy.set_mode(Mode::HoldAfter(held_after));
        let mut running = Export::of(archive.root()).to(&proxy.through(&container.sas_url("w"))).start();
        running.until(proxy.wait_for_requests(held_after + 8)).await;
        running.signal("-INT");
        let outcome = running.outcome().await;
        let document = outcome.assert_ended(1, "canceled");
        assert!(outcome.stderr.ends_with("canceling\n"), "{outcome:?}");
        assert!(document.get("error").is_none(), "{document}");
        let exported = document["results"]["exported"].as_u64().unwrap();
        assert!(exported <= count_instances(&container).await);
        archive.assert_whole(&container, document["operationId"].as_str().unwrap()).await;
    }
}
