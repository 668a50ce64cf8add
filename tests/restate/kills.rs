//! Workers and the server are killed in the midst of an export.

use std::collections::BTreeSet;

use dicom_export::{ExportService, ExportSource, NewOperation, OperationStatus};

use crate::archive::Archive;
use crate::azurite::Azurite;
use crate::cluster::{Cluster, emulator, ended};
use crate::proxy::{Door, Proxy};

/// Instances a batch.
const BATCH: usize = 50;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Victim {
    Worker,
    Server,
    Both,
}

async fn survives(victim: Victim) {
    let archive = Archive::new(3_000);
    let batches = archive.len() as usize / BATCH;
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::before(azurite.port()).await;
    let port = reqwest::Url::parse(&proxy.through(&container.url())).unwrap().port().unwrap();
    let mut cluster = Cluster::new(archive.root(), 2, &["--batch-size", "50"]).await;
    let client = cluster.client();

    // Both are at it when the destination stands still: some batches are done, some half done, some not begun.
    proxy.set(Door::HoldAfter(1_000));
    let new = NewOperation::new(ExportSource::Everything, emulator(&container, port));
    let id = client.start(new).await.unwrap().operation_id;
    proxy.seen(1_000).await;
    let before = cluster.settled(batches).await;
    assert!(before.len() < batches);
    if victim != Victim::Worker {
        cluster.restate.kill();
    }
    if victim != Victim::Server {
        cluster.kill_worker(0);
    }
    proxy.set(Door::Open);
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
        assert_eq!(times, 1, "batch {batch} had been finished and was run again");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_4_a_worker_is_killed() {
    survives(Victim::Worker).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_4_the_server_is_killed() {
    survives(Victim::Server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_4_a_worker_and_the_server_are_killed() {
    survives(Victim::Both).await;
}

/// Many batches, over many segments: the two levels of journals are replayed. 20,000 with `tests/run.sh --long`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_4_tiny_batches_complete_with_a_worker_killed_on_the_way() {
    let count = if std::env::var_os("DICOM_EXPORT_LONG").is_some() { 20_000 } else { 1_000 };
    let archive = Archive::new(count);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let mut cluster = Cluster::new(archive.root(), 2, &["--batch-size", "1"]).await;
    let client = cluster.client();
    let began = std::time::Instant::now();
    let new = NewOperation::new(ExportSource::Everything, emulator(&container, azurite.port()));
    let id = client.start(new).await.unwrap().operation_id;
    crate::cluster::until("half of it is done", || cluster.all_finished().len() >= count as usize / 2).await;
    cluster.kill_worker(1);
    let ended = ended(&cluster, &client, id).await;
    eprintln!("{count} batches of one instance took {:?}", began.elapsed());
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len(), 0));
    archive.assert_exported(&container, &id.to_string()).await;
}
