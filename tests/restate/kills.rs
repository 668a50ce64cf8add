//! Workers and the server are killed during an export.

use std::collections::BTreeSet;

use dicom_export::{ExportService, ExportSource, NewOperation, OperationStatus};

use crate::archive::Archive;
use crate::azurite::Azurite;
use crate::cluster::{Cluster, emulator, ended};
use crate::proxy::{Mode, Proxy};

/// Instances per batch.
const BATCH: usize = 50;

/// The process that is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Worker,
    Server,
    Both,
}

async fn assert_survives(victim: Victim) {
    let archive = Archive::new(3_000);
    let batches = archive.len() as usize / BATCH;
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let mut cluster = Cluster::new(archive.root(), 2, &["--batch-size", "50"]).await;
    let client = cluster.client();

    // When the proxy holds requests, some batches are finished, some in flight, and some have not begun.
    proxy.forward_first(format!("/{}/", archive.first_study()), 50);
    proxy.set_mode(Mode::HoldAfter(1_000));
    let new = NewOperation::new(ExportSource::Everything, emulator(&container, proxy.port()));
    let id = client.start(new).await.unwrap().operation_id;
    proxy.wait_for_requests(1_000).await;
    let before = cluster.wait_until_held(batches).await;
    assert!(before.len() < batches);
    if victim != Victim::Worker {
        cluster.restate.kill();
    }
    if victim != Victim::Server {
        cluster.kill_worker(0);
    }
    proxy.set_mode(Mode::Forward);
    if victim != Victim::Worker {
        cluster.restate.start().await;
    }
    if victim == Victim::Both {
        cluster.add_worker();
    }

    let ended = ended(&cluster, &client, id).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len(), 0));
    archive.assert_exported(&container, &id.to_string()).await;
    let finished = cluster.all_finished();
    assert_eq!(finished.iter().collect::<BTreeSet<_>>().len(), batches);
    for batch in &before {
        let times = finished.iter().filter(|finished| *finished == batch).count();
        assert_eq!(times, 1, "batch {batch} was run again after it had finished");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_4_a_worker_is_killed() {
    assert_survives(Victim::Worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_4_the_server_is_killed() {
    assert_survives(Victim::Server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_4_a_worker_and_the_server_are_killed() {
    assert_survives(Victim::Both).await;
}

/// Many batches in many segments: the journals on both levels are replayed. 20,000 with `tests/run.sh --long`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_4_an_export_in_batches_of_one_instance_survives_the_kill_of_a_worker() {
    let count = if std::env::var_os("DICOM_EXPORT_LONG").is_some() { 20_000 } else { 1_000 };
    let archive = Archive::new(count);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let mut cluster = Cluster::new(archive.root(), 2, &["--batch-size", "1"]).await;
    let client = cluster.client();
    let began = std::time::Instant::now();
    let new = NewOperation::new(ExportSource::Everything, emulator(&container, azurite.port()));
    let id = client.start(new).await.unwrap().operation_id;
    crate::cluster::until("half of the batches are finished", || {
        cluster.all_finished().len() >= count as usize / 2
    })
    .await;
    cluster.kill_worker(1);
    let ended = ended(&cluster, &client, id).await;
    eprintln!("{count} batches of one instance took {:?}", began.elapsed());
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len(), 0));
    archive.assert_exported(&container, &id.to_string()).await;
}
