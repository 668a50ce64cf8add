//! The example server as a process that is stopped and started again.

use std::path::Path;
use std::time::Duration;

use dicom_export::testing::fixtures;
use serde_json::json;

use crate::azurite::{ACCOUNT, Azurite, KEY};
use crate::daemon::Daemon;
use crate::proxy::{Mode, Proxy};
use crate::support::Server;

/// Starts the example server as a process, which ends with the returned value.
fn start_process(folder: &Path, state: &Path, log: &Path) -> (Daemon, Server) {
    // Cargo puts examples next to the folder of this test.
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples/server");
    let mut arguments = vec!["--development".as_ref(), "--listen".as_ref(), "127.0.0.1:0".as_ref()];
    arguments.extend(["--source".as_ref(), folder.as_os_str(), "--state".as_ref(), state.as_os_str()]);
    let daemon = Daemon::start(&program, arguments, &[("RUST_LOG", "info"), ("NO_COLOR", "1")], log);
    let url = daemon.wait_for_output("listening on ");
    (daemon, Server::at(url))
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_4_and_8_a_restarted_server_resumes_its_operations() {
    const INSTANCES: u32 = 3_000;
    let (archive, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for n in 0..INSTANCES {
        let path = archive.path().join(format!("{n:04}.dcm"));
        std::fs::write(path, fixtures::ct_slice(1, n / 100, n)).unwrap();
    }
    let state = folder.path().join("state.redb");
    let container = Azurite::shared().container().await;
    let proxy = Proxy::start(Azurite::shared().port()).await;
    // The published key of the emulator is not a secret, so the operation resumes without a new credential.
    let connection = format!(
        "BlobEndpoint=http://127.0.0.1:{}/{ACCOUNT};AccountName={ACCOUNT};AccountKey={}",
        proxy.port(),
        KEY
    );
    let settings = json!({ "connectionString": connection, "blobContainerName": container.name() });
    let body = json!({ "destination": { "type": "azureblob", "settings": settings } });

    // The proxy holds the export until the server has begun to shut down, so that the server stops in the middle of it.
    proxy.set_mode(Mode::HoldAfter(500));
    let (first, server) = start_process(archive.path(), &state, &folder.path().join("first.log"));
    let id = server.export("/v1/export", &body).await;
    proxy.wait_for_requests(501).await;
    first.signal("-TERM");
    first.wait_for_output("stopping");
    proxy.set_mode(Mode::Forward);
    while !first.has_ended() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let results = format!("{id}/results/");
    let exported = container.list().await.keys().filter(|name| name.starts_with(&results)).count();
    assert!(exported >= 499 && exported < INSTANCES as usize, "{exported} were exported");

    let (_second, server) = start_process(archive.path(), &state, &folder.path().join("second.log"));
    let ended = server.wait(&format!("/v1/operations/{id}")).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!((&ended["results"]["exported"], &ended["results"]["skipped"]), (&json!(INSTANCES), &json!(0)));
    for n in 0..INSTANCES {
        let (instance, bytes) = (fixtures::instance(1, n / 100, n), fixtures::ct_slice(1, n / 100, n));
        let blob = container.get(&format!("{id}/results/{instance}.dcm")).await.expect("the instance");
        assert_eq!(blob.bytes, bytes);
    }
}
