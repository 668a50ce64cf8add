//! Replicas of the example server over one database, which are killed and suspended.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use dicom_export::store::{Checkpoint, OperationStore, PostgresOperationStore};
use dicom_export::testing::fixtures;
use dicom_export::{OperationId, OperationStatus};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::azurite::{Azurite, Container};
use crate::daemon::Daemon;
use crate::postgres::Postgres;
use crate::proxy::{Mode, Proxy};

const INSTANCES: u32 = 1200;

/// Files that cannot be exported: each has a line in `errors.log`.
const DAMAGED: u32 = 40;

const TIMEOUT: Duration = Duration::from_secs(240);

/// What the replicas share.
struct Cluster {
    postgres: Postgres,
    store: PostgresOperationStore,
    proxy: Proxy,
    archive: TempDir,
    logs: TempDir,
    client: reqwest::Client,
}

struct Replica {
    process: Daemon,
    url: String,
}

impl Cluster {
    async fn start() -> Self {
        let (archive, logs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for n in 0..INSTANCES {
            let path = archive.path().join(format!("{n:04}.dcm"));
            std::fs::write(path, fixtures::ct_slice(1, n / 100, n)).unwrap();
        }
        for n in 0..DAMAGED {
            std::fs::write(archive.path().join(format!("{:04}.damaged.dcm", 30 * n)), damaged()).unwrap();
        }
        let postgres = Postgres::start().await;
        let store = PostgresOperationStore::new(postgres.pool().await);
        let proxy = Proxy::start(Azurite::shared().port()).await;
        Self { postgres, store, proxy, archive, logs, client: reqwest::Client::new() }
    }

    /// Starts a replica as a process. All of them have the key that credentials are encrypted with.
    fn replica(&self, name: &str) -> Replica {
        // Cargo puts examples next to the folder of this test.
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("examples/server");
        let (url, archive) = (self.postgres.url(), self.archive.path().to_str().unwrap());
        let arguments = ["--development", "--listen", "127.0.0.1:0", "--source", archive, "--postgres", &url];
        let key = "0123456789abcdef".repeat(4);
        let environment = [("RUST_LOG", "info"), ("NO_COLOR", "1"), ("EXPORT_SECRET_KEY", &*key)];
        let process = Daemon::start(&program, arguments, &environment, &self.log(name));
        let url = process.wait_for_output("listening on ");
        Replica { process, url }
    }

    fn log(&self, name: &str) -> std::path::PathBuf {
        Path::new(self.logs.path()).join(name)
    }

    /// Starts an export on a replica, with a SAS that the server stores encrypted.
    async fn export(&self, replica: &Replica, container: &Container<'_>) -> OperationId {
        let uri = self.proxy.through(&container.sas_url("rcwl"));
        let settings = json!({ "blobContainerUri": uri });
        let body = json!({ "destination": { "type": "azureblob", "settings": settings } });
        let request = self.client.post(format!("{}/v1/export", replica.url)).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status();
        let document: Value = response.json().await.unwrap();
        assert_eq!(status.as_u16(), 202, "{document}");
        document["id"].as_str().unwrap().parse().unwrap()
    }

    /// Waits until the stored checkpoint is as expected. No other request reaches the servers meanwhile.
    async fn wait_for(
        &self,
        id: OperationId,
        what: &str,
        expected: impl Fn(&Checkpoint) -> bool,
    ) -> Checkpoint {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let checkpoint = self.store.load(id).await.unwrap();
            if expected(&checkpoint) {
                return checkpoint;
            }
            assert!(Instant::now() < deadline, "{what}: {checkpoint:?}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn holder(&self, id: OperationId) -> Option<String> {
        self.store.load(id).await.unwrap().lease.map(|lease| lease.holder)
    }

    /// Waits until another runner than `holder` has the operation's lease.
    async fn wait_for_takeover(&self, id: OperationId, holder: &Option<String>) -> Option<String> {
        let is_other = |checkpoint: &Checkpoint| {
            checkpoint.lease.as_ref().is_some_and(|lease| Some(&lease.holder) != holder.as_ref())
        };
        let taken = self.wait_for(id, "no takeover", is_other).await;
        taken.lease.map(|lease| lease.holder)
    }

    /// Waits until the operation has ended, and checks the counts, the blobs and the log.
    async fn assert_exact(&self, id: OperationId, container: &Container<'_>) {
        let ended = self.wait_for(id, "no end", |checkpoint| checkpoint.status.is_ended()).await;
        assert_eq!((ended.status, &ended.error), (OperationStatus::Completed, &None));
        assert_eq!((ended.totals.exported, ended.totals.skipped), (u64::from(INSTANCES), u64::from(DAMAGED)));
        let results = format!("{id}/results/");
        let names: BTreeSet<_> =
            container.list().await.into_keys().filter(|name| name.starts_with(&results)).collect();
        let expected = (0..INSTANCES).map(|n| format!("{results}{}.dcm", fixtures::instance(1, n / 100, n)));
        assert_eq!(names, expected.collect());
        let log = container.get(&format!("{id}/errors.log")).await.unwrap().bytes;
        // A takeover may repeat lines, and loses none.
        let lines = log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count();
        assert!(lines >= DAMAGED as usize, "{lines} lines");
    }
}

/// A DICOM file without UIDs.
fn damaged() -> Vec<u8> {
    let mut file = vec![0; 128];
    file.extend_from_slice(b"DICM");
    file.extend_from_slice(&[0xFF; 200]);
    file
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Azurite: tests/run.sh"]
async fn guarantee_4_and_9_the_export_of_a_killed_replica_is_continued_by_the_other_one() {
    let cluster = Cluster::start().await;
    let container = Azurite::shared().container().await;
    let (one, _two) = (cluster.replica("one"), cluster.replica("two"));
    cluster.proxy.set_mode(Mode::HoldAfter(500));
    let id = cluster.export(&one, &container).await;
    cluster.proxy.wait_for_requests(501).await;
    one.process.kill();
    cluster.proxy.set_mode(Mode::Forward);
    cluster.assert_exact(id, &container).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Azurite: tests/run.sh"]
async fn guarantee_4_and_9_of_three_replicas_two_are_killed() {
    let cluster = Cluster::start().await;
    let replicas = ["one", "two", "three"].map(|name| cluster.replica(name));
    let (mut operations, containers) = (
        Vec::new(),
        [
            Azurite::shared().container().await,
            Azurite::shared().container().await,
            Azurite::shared().container().await,
        ],
    );
    cluster.proxy.set_mode(Mode::HoldAfter(600));
    for (replica, container) in replicas.iter().zip(&containers) {
        operations.push(cluster.export(replica, container).await);
    }
    cluster.proxy.wait_for_requests(601).await;
    let [one, two, _three] = replicas;
    let first_holder = cluster.holder(operations[0]).await;
    one.process.kill();
    // The second one is killed while it, or the third one, continues the first one's export.
    cluster.proxy.set_mode(Mode::HoldAfter(cluster.proxy.requests().len() + 200));
    cluster.wait_for_takeover(operations[0], &first_holder).await;
    two.process.kill();
    cluster.proxy.set_mode(Mode::Forward);
    for (id, container) in operations.into_iter().zip(&containers) {
        cluster.assert_exact(id, container).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and Azurite: tests/run.sh"]
async fn guarantee_4_and_9_a_replica_that_was_suspended_beyond_its_lease_stops() {
    let cluster = Cluster::start().await;
    let container = Azurite::shared().container().await;
    let (one, _two) = (cluster.replica("one"), cluster.replica("two"));
    cluster.proxy.set_mode(Mode::HoldAfter(500));
    let id = cluster.export(&one, &container).await;
    cluster.proxy.wait_for_requests(501).await;
    let holder = cluster.holder(id).await;
    one.process.signal("-STOP");
    let successor = cluster.wait_for_takeover(id, &holder).await;
    // Both run: the suspended one finds that it has lost its lease, and the other one keeps it.
    one.process.signal("-CONT");
    one.process.wait_for_output("another runner has taken over the operation");
    assert_eq!(cluster.holder(id).await, successor);
    cluster.proxy.set_mode(Mode::Forward);
    cluster.assert_exact(id, &container).await;
    // It still serves, and knows the result.
    let url = format!("{}/v1/operations/{id}", one.url);
    let document: Value = cluster.client.get(url).send().await.unwrap().json().await.unwrap();
    assert_eq!(document["results"]["exported"], INSTANCES);
}
