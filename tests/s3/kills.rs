//! The example `export` with buckets: real files, and processes that are killed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use dicom_export::testing::fixtures;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Export;
use crate::proxy::{Mode, Proxy};
use crate::real_archive::archive;
use crate::s3::{Bucket, KEY_ID, Kind, REGION, S3Server, SECRET_KEY};

/// The command with the environment for a store on this port.
fn export(source: impl AsRef<std::ffi::OsStr>, destination: &str, port: u16) -> Export {
    Export::of(source)
        .args(["--development", "--destination", destination])
        .env("AWS_ENDPOINT_URL", &format!("http://127.0.0.1:{port}"))
        .env("AWS_REGION", REGION)
        .env("AWS_ACCESS_KEY_ID", KEY_ID)
        .env("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
}

fn operation_id(document: &Value) -> &str {
    document["operationId"].as_str().unwrap()
}

#[tokio::test]
#[ignore = "needs moto and pydicom's files: tests/run.sh"]
async fn guarantee_1_and_2_real_files_are_exported_byte_for_byte_and_back() {
    let server = S3Server::shared(Kind::Moto);
    let bucket = server.bucket().await;
    let url = format!("s3://{}/exports", bucket.name);
    let outcome = export(&archive().root, &url, server.port()).arg("--manifest").run().await;
    let document = outcome.assert_ended(3, "completed");
    let id = operation_id(&document);
    let log = format!("exports/{id}/errors.log");
    let names: BTreeMap<_, _> = archive()
        .instances
        .keys()
        .map(|instance| (format!("exports/{id}/results/{instance}.dcm"), instance))
        .collect();
    let manifest = format!("{id}/manifest.jsonl");
    let logs = [&log, &format!("exports/{manifest}")];
    let expected: BTreeSet<_> = names.keys().chain(logs).cloned().collect();
    assert_eq!(bucket.list().await.into_keys().collect::<BTreeSet<_>>(), expected);
    for (name, instance) in &names {
        let object = bucket.get(name).await.unwrap();
        assert!(object.bytes == archive().bytes(instance), "{name} has different bytes");
        assert_eq!(object.content_type.as_deref(), Some("application/dicom"));
    }
    let log = String::from_utf8(bucket.get(&log).await.unwrap().bytes.into()).unwrap();
    assert_eq!(log.lines().count(), archive().unidentified);
    assert_eq!(document["results"]["errorHref"], format!("{}/exports/{id}/errors.log", bucket.url()));
    assert!(!outcome.stdout.contains(SECRET_KEY) && !outcome.stderr.contains(SECRET_KEY));
    assert_eq!(bucket.pending_uploads().await, 0);

    // The results are a source, and the manifest is an index of them.
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("back");
    for (source, layout) in
        [(format!("{url}/{id}/results"), "{study}/{series}/{instance}.dcm"), (url.clone(), &*manifest)]
    {
        let command = export(&source, to.to_str().unwrap(), server.port());
        let outcome = command.args(["--layout", layout]).run().await;
        let document = outcome.assert_ended(0, "completed");
        assert_eq!(document["results"]["exported"], archive().instances.len());
        for instance in archive().instances.keys() {
            let file = to.join(operation_id(&document)).join(format!("results/{instance}.dcm"));
            assert!(std::fs::read(file).unwrap() == archive().bytes(instance), "{instance}");
        }
    }
}

const SMALL: u32 = 90;
const LARGE: u32 = 3;

/// Small instances, and large ones that are multipart uploads.
fn generate(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let small = (0..SMALL).map(|n| (n, fixtures::ct_slice(n % 3, 0, n)));
    let large = (SMALL..SMALL + LARGE).map(|n| (n, fixtures::multi_frame(n % 3, 0, n, 3_000)));
    let instances = small.chain(large).map(|(n, bytes)| {
        std::fs::write(folder.join(format!("{n:03}")), &bytes).unwrap();
        (fixtures::instance(n % 3, 0, n).to_string(), bytes.to_vec())
    });
    instances.collect()
}

async fn assert_exported(bucket: &Bucket<'_>, id: &str, instances: &BTreeMap<String, Vec<u8>>) {
    let logs = [format!("{id}/errors.log"), format!("{id}/manifest.jsonl")];
    let names = instances.keys().map(|instance| format!("{id}/results/{instance}.dcm"));
    let expected: BTreeSet<_> = names.chain(logs.clone()).collect();
    assert_eq!(bucket.list().await.into_keys().collect::<BTreeSet<_>>(), expected);
    for (instance, bytes) in instances {
        let object = bucket.get(&format!("{id}/results/{instance}.dcm")).await.unwrap();
        assert!(object.bytes == bytes, "{instance} has different bytes");
    }
    assert_eq!(bucket.get(&logs[0]).await.unwrap().bytes, "");
    let manifest = bucket.get(&logs[1]).await.unwrap().bytes;
    let manifest = std::str::from_utf8(&manifest).unwrap().lines();
    let listed = manifest.map(|line| {
        let entry: Value = serde_json::from_str(line).unwrap();
        entry["identifier"].as_str().unwrap().to_owned()
    });
    assert_eq!(listed.collect::<BTreeSet<_>>(), instances.keys().cloned().collect());
}

/// A killed process leaves multipart uploads, whose parts cost money.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs moto: tests/run.sh"]
async fn guarantee_4_and_8_killed_exports_are_resumed_and_leave_no_upload() {
    let server = S3Server::shared(Kind::Moto);
    let (bucket, folder, state) = (server.bucket().await, TempDir::new().unwrap(), TempDir::new().unwrap());
    let instances = generate(folder.path());
    let proxy = Proxy::start(server.port()).await;
    let command = || {
        export(folder.path(), &format!("s3://{}", bucket.name), proxy.port())
            .arg("--manifest")
            .arg("--state")
            .arg(state.path().join("state"))
    };
    // Everything is held once an upload has been created.
    proxy.forward_first("?uploads", 1);
    proxy.set_mode(Mode::HoldAfter(0));
    let running = command().start();
    while bucket.pending_uploads().await == 0 {
        assert!(!running.has_ended());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    running.signal("-KILL");
    assert_eq!(running.outcome().await.code, None);
    assert!(bucket.pending_uploads().await > 0);

    for round in 1..=3 {
        // Requests for instances are held at another moment each time.
        let arrived = proxy.requests().len();
        proxy.set_mode(Mode::HoldAfter(arrived + 25 * round));
        let mut running = command().args(["--resume", "last"]).start();
        running.until(proxy.wait_for_requests(arrived + 25 * round)).await;
        running.signal("-KILL");
        assert_eq!(running.outcome().await.code, None);
    }
    proxy.set_mode(Mode::Forward);
    let ended = command().args(["--resume", "last"]).run().await.assert_ended(0, "completed");
    assert_eq!(ended["results"]["exported"], instances.len());
    assert_exported(&bucket, operation_id(&ended), &instances).await;
    assert_eq!(bucket.pending_uploads().await, 0);
}
