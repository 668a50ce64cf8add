//! The manifest, and the example that compares a destination with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dicom_export::ManifestEntry;
use dicom_export::testing::fixtures;
use tempfile::TempDir;

use crate::archive::archive;
use crate::azurite::Azurite;
use crate::durability::Generated;
use crate::process::{Export, Outcome};
use crate::proxy::{Mode, Proxy};
use crate::signatures;

async fn verify(destination: impl AsRef<Path>, id: &str) -> Outcome {
    let destination = destination.as_ref().to_str().unwrap();
    Export::verify(["--development", "--destination", destination, "--operation", id]).run().await
}

/// Asserts that there is no difference.
#[track_caller]
fn assert_unchanged(outcome: &Outcome, count: usize) {
    let summary = format!("{count} unchanged, 0 missing, 0 changed, 0 extra\n");
    assert_eq!((outcome.code, &*outcome.stdout, &*outcome.stderr), (Some(0), "", &*summary));
}

/// A folder with an export and its manifest.
struct Folder {
    folder: TempDir,
    id: String,
}

impl Folder {
    async fn exported(instances: u32) -> Self {
        let (archive, folder) = (Generated::new(instances, 0), TempDir::new().unwrap());
        let export = Export::of(archive.root()).arg("--destination").arg(folder.path()).arg("--manifest");
        let document = export.run().await.assert_ended(0, "completed");
        Self { folder, id: document["operationId"].as_str().unwrap().to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(&self.id).join(name)
    }

    /// The name of the blob of an instance, and its path.
    fn blob(&self, number: u32) -> (String, PathBuf) {
        let instance = fixtures::instance(0, number % 2, number);
        let name = format!("results/{instance}.dcm");
        (format!("{}/{name}", self.id), self.path(&name))
    }

    fn manifest(&self) -> String {
        fs::read_to_string(self.path("manifest.jsonl")).unwrap()
    }

    async fn verify(&self) -> Outcome {
        verify(self.folder.path(), &self.id).await
    }
}

#[tokio::test]
async fn missing_changed_and_extra_blobs_are_reported() {
    let export = Folder::exported(40).await;
    assert_unchanged(&export.verify().await, 40);

    let [deleted, altered, truncated] = [3, 7, 11].map(|number| export.blob(number));
    fs::remove_file(&deleted.1).unwrap();
    let mut bytes = fs::read(&altered.1).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&altered.1, &bytes).unwrap();
    let whole = fs::metadata(&truncated.1).unwrap().len();
    fs::OpenOptions::new().write(true).open(&truncated.1).unwrap().set_len(100).unwrap();
    fs::write(export.path("results/1.2.dcm"), "another file").unwrap();
    fs::write(export.path("notes.txt"), "another file").unwrap();
    // A killed export can leave a temporary file, which is ignored.
    fs::write(export.path("results/.0123456789abcdef0123456789abcdef.part"), "half").unwrap();

    let outcome = export.verify().await;
    assert_eq!(outcome.code, Some(3), "{outcome:?}");
    let mut lines: Vec<_> = outcome.stdout.lines().map(str::to_owned).collect();
    lines.sort();
    let altered_line = lines.iter().position(|line| line.contains(&altered.0)).unwrap();
    let altered_line = lines.remove(altered_line);
    assert!(
        altered_line.starts_with(&format!("changed {} (different bytes, SHA-256 ", altered.0)),
        "{altered_line}"
    );
    let expected = [
        format!("changed {} (100 bytes, not {whole})", truncated.0),
        format!("extra {}/notes.txt", export.id),
        format!("extra {}/results/1.2.dcm", export.id),
        format!("missing {}", deleted.0),
    ];
    assert_eq!(lines, expected);
    assert_eq!(outcome.stderr, "37 unchanged, 1 missing, 2 changed, 2 extra\n");
}

#[tokio::test]
async fn repeated_lines_are_accepted_and_invalid_lines_are_reported() {
    let export = Folder::exported(20).await;
    let manifest = export.manifest();
    let entries: Vec<ManifestEntry> =
        manifest.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), 20);
    fs::write(export.path("manifest.jsonl"), manifest.repeat(2)).unwrap();
    assert_unchanged(&export.verify().await, 20);

    // An instance that changed at its source between two attempts has two entries, one of which matches the blob.
    let old = &entries[0];
    let other = ManifestEntry::new(old.identifier().clone(), old.path(), 7, "0".repeat(64)).to_line();
    fs::write(export.path("manifest.jsonl"), format!("{other}{manifest}")).unwrap();
    assert_unchanged(&export.verify().await, 20);

    // An entry with a path outside the operation, an entry of another operation, and an incomplete line.
    let outside = ManifestEntry::new(old.identifier().clone(), "../x", 7, "0".repeat(64)).to_line();
    let foreign = manifest.lines().next().unwrap().replace(&export.id, &"0".repeat(32));
    fs::write(export.path("manifest.jsonl"), format!("{manifest}{outside}{foreign}\n{{\"ident")).unwrap();
    let outcome = export.verify().await;
    let line = |number| format!("unreadable {}/manifest.jsonl line {number}\n", export.id);
    assert_eq!((outcome.code, outcome.stdout), (Some(3), [21, 22, 23].map(line).concat()));
}

#[tokio::test]
async fn a_missing_manifest_is_an_error() {
    let export = Folder::exported(1).await;
    fs::remove_file(export.path("manifest.jsonl")).unwrap();
    assert!(export.verify().await.assert_rejected().contains("the operation has no manifest.jsonl"));
    assert!(
        verify(export.folder.path(), &"0".repeat(32))
            .await
            .assert_rejected()
            .contains("the operation has no manifest.jsonl")
    );
    let missing = export.folder.path().join("nowhere");
    assert!(verify(missing, &export.id).await.assert_rejected().contains("a folder that does not exist"));
    let bad: [&[&str]; 5] = [
        &[],
        &["--destination", "x"],
        &["--destination", "x", "--operation", "7"],
        &["--destination", "http://host/c?sig=secret", "--operation", &export.id],
        &["secret"],
    ];
    for arguments in bad {
        let outcome = Export::verify(arguments).run().await;
        assert!(!outcome.assert_rejected().contains("secret"));
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn real_files_are_verified_in_a_container() {
    let (archive, azurite) = (archive(), Azurite::shared());
    let container = azurite.container().await;
    let export = Export::of(&archive.root).to(&container.sas_url("w"));
    let export = export.arg("--manifest").args(["--check-identity", "enforce", "--checksums", "always"]);
    let document = export.run().await.assert_ended(3, "completed");
    // The file meta group of three files names another instance than the data set, by which they are listed.
    let exported = archive.instances.len() - 3;
    assert_eq!(document["results"]["exported"], exported);
    let id = document["operationId"].as_str().unwrap();
    let log = container.get(&format!("{id}/errors.log")).await.unwrap().bytes;
    let log = std::str::from_utf8(&log).unwrap();
    assert_eq!(
        log.matches("the instance's Media Storage SOP Instance UID differs from the listed one\"}").count(),
        3,
        "{log}"
    );
    assert!(!archive.names.iter().any(|name| log.contains(name)), "patient data in {log}");
    assert_unchanged(&verify(container.sas_url("rl"), id).await, exported);
    let manifest = container.get(&format!("{id}/manifest.jsonl")).await.unwrap();
    assert_eq!((&*manifest.content_type, &*manifest.kind), ("application/x-ndjson", "AppendBlob"));
    for line in std::str::from_utf8(&manifest.bytes).unwrap().lines() {
        assert!(serde_json::from_str::<ManifestEntry>(line).unwrap().etag().is_some());
    }
    for permissions in ["w", "r"] {
        let uri = container.sas_url(permissions);
        let outcome = verify(&uri, id).await;
        // The manifest cannot be read without `r`, and the blobs cannot be listed without `l`.
        assert_eq!(outcome.code, Some(if permissions == "w" { 2 } else { 1 }), "{outcome:?}");
        assert!(signatures(&uri).iter().all(|secret| !outcome.stderr.contains(secret)), "{outcome:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_4_the_manifest_is_complete_after_kills() {
    const INSTANCES: usize = 1_202;
    let (archive, folder) = (Generated::new(1_200, 2), TempDir::new().unwrap());
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let uri = proxy.through(&container.sas_url("w"));
    let export = |run: usize| {
        let export = Export::of(archive.root()).to(&uri).arg("--state").arg(folder.path().join("state"));
        if run == 0 { export.arg("--manifest") } else { export.args(["--resume", "last"]) }
    };
    for run in 0..3 {
        let moment = proxy.requests().len() + 250;
        let mut running = export(run).start();
        // The proxy holds further requests, so that a checkpoint is saved before the process is killed.
        proxy.set_mode(Mode::HoldAfter(moment));
        running.until(proxy.wait_for_requests(moment)).await;
        tokio::time::sleep(Duration::from_millis(1_300)).await;
        running.signal("-KILL");
        assert_eq!(running.outcome().await.code, None);
        proxy.set_mode(Mode::Forward);
    }
    let document = export(3).run().await.assert_ended(0, "completed");
    assert_eq!(document["results"]["exported"], INSTANCES);
    let id = document["operationId"].as_str().unwrap();
    assert_unchanged(&verify(container.sas_url("rl"), id).await, INSTANCES);
}
