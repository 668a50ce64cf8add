//! What cannot be used is refused in one line, without the credential, before anything is exported.

use std::path::{Path, PathBuf};

use chrono::{TimeDelta, Utc};
use dicom_export::testing::fixtures;
use tempfile::TempDir;

use crate::azurite::Azurite;
use crate::process::Export;
use crate::signatures;

const SAS: &str = "sv=2022-11-02&sr=c&sp=w&se=2099-01-01T00:00:00Z&sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D";

/// A folder with one instance in `archive`.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = TempDir::new().unwrap();
        std::fs::create_dir(place.path().join("archive")).unwrap();
        std::fs::write(place.path().join("archive/one.dcm"), fixtures::ct_slice(1, 1, 1)).unwrap();
        Self(place)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An export of the one instance.
    fn export(&self) -> Export {
        Export::of(self.at("archive"))
    }
}

/// The command refuses this, and says so in a line with these words in it.
async fn assert_refused(export: Export, words: &str) {
    let outcome = export.run().await;
    let line = outcome.refused();
    assert!(line.contains(words), "{line}");
    for secret in signatures(SAS) {
        assert!(!line.contains(&secret), "{line}");
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn containers_that_cannot_be_written() {
    let place = Place::new();
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let missing = azurite.missing_container().sas_url("w");
    let expired = container.sas_url_until("w", Utc::now() - TimeDelta::hours(1));
    let reading = container.sas_url("rl");
    let (rest, _) = reading.split_once("sig=").unwrap();
    let forged = format!("{rest}sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D");
    for (uri, words) in [
        (&missing, "the container does not exist"),
        (&expired, "refused the credential"),
        (&reading, "refused the credential"),
        (&forged, "refused the credential"),
    ] {
        let outcome = place.export().to(uri).run().await;
        let line = outcome.refused();
        assert!(line.contains(words), "{line}");
        assert!(signatures(uri).iter().all(|secret| !line.contains(secret)), "{line}");
    }
    assert!(container.list().await.is_empty());
}

#[tokio::test]
async fn destinations_that_the_policy_does_not_admit() {
    let place = Place::new();
    for (uri, words) in [
        (format!("http://127.0.0.1:10000/devstoreaccount1/container?{SAS}"), "does not export to"),
        (format!("https://example.com/container?{SAS}"), "does not export to"),
        (format!("http://account.blob.core.windows.net/container?{SAS}"), "does not export to"),
        (format!("https://account.blob.core.windows.net/?{SAS}"), "blobContainerUri"),
        (format!("https://user@account.blob.core.windows.net/container?{SAS}"), "blobContainerUri"),
        ("https://account.blob.core.windows.net/container".to_owned(), "blobContainerUri"),
        (format!("htps://account.blob.core.windows.net/container?{SAS}"), "neither a folder nor"),
        (format!("account.blob.core.windows.net/container?{SAS}"), "neither a folder nor"),
    ] {
        assert_refused(place.export().arg("--destination").arg(&uri), words).await;
    }
    let key = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0LXNpZ25hdHVyZQ==";
    let sas = format!("BlobEndpoint=https://example.com;SharedAccessSignature={SAS}");
    for (connection_string, words) in [
        (key, "account keys are not accepted"),
        (&sas, "connectionString"),
        ("UseDevelopmentStorage=true", "connectionString"),
    ] {
        let export = place.export().arg("--connection-string").arg(connection_string);
        assert_refused(export.arg("--container").arg("container"), words).await;
    }
    let both = format!("https://account.blob.core.windows.net/container?{SAS}");
    let managed = place.export().arg("--destination").arg(&both).arg("--managed-identity");
    assert_refused(managed, "useManagedIdentity").await;
    let twice = place.export().arg("--destination").arg(&both).arg("--container").arg("container");
    assert_refused(twice, "blobContainer").await;
}

#[tokio::test]
async fn folders_that_cannot_be_used() {
    let place = Place::new();
    let file = place.at("archive/one.dcm");
    for to in [file.join("below"), file.clone(), PathBuf::from("/proc/nothing-can-be-made-here")] {
        assert_refused(place.export().arg("--destination").arg(to), "the destination").await;
    }
    for source in [place.at("missing"), file] {
        assert_refused(Export::of(source).arg("--destination").arg(place.at("to")), "the source").await;
    }
    let with_credential = place.export().arg("--destination").arg(place.at("to")).arg("--managed-identity");
    assert_refused(with_credential, "is a folder").await;
    assert!(!place.at("to").exists());
}

#[tokio::test]
async fn arguments_that_mean_nothing() {
    let place = Place::new();
    let to = place.at("to");
    let lines = place.at("lines");
    std::fs::write(&lines, "1.2.3\n\n1.2.x\n").unwrap();
    let (lines, missing, empty) = (text(&lines), place.at("missing"), place.at("empty"));
    std::fs::write(&empty, "\n").unwrap();
    let no_value = format!("--quiet={SAS}");
    for (arguments, words) in [
        (&["--identifier", "1.2/3.x"] as &[&str], "--identifier is not an identifier"),
        (&["--identifier", "1.2/3/4/5"], "--identifier is not an identifier"),
        (&["--identifier", ""], "--identifier is not an identifier"),
        (&["--identifiers-file", lines], "--identifiers-file, line 3, is not an identifier"),
        (&["--identifiers-file", text(&missing)], "--identifiers-file: "),
        (&["--identifiers-file", text(&empty)], "there are no identifiers"),
        (&["--memory", "much"], "--memory"),
        (&["--memory", "0"], "--memory"),
        (&["--concurrency", "0"], "--concurrency"),
        (&["--concurrency", "-1"], "--concurrency"),
        (&["--retry-for", "soon"], "--retry-for"),
        (&["--checksums", "some"], "--checksums is one of off, sent, always"),
        (&["--check-identity", "yes"], "--check-identity is one of off, warn, enforce"),
        (&["--manifest=yes"], "--manifest takes no value"),
        (&["--destinatoin", "elsewhere"], "--destinatoin"),
        (&["--concurrency"], "--concurrency"),
        (&["-x"], "-x"),
        (&[SAS], "an argument without an option"),
        (&[&no_value], "--quiet takes no value"),
    ] {
        let export = place.export().arg("--destination").arg(&to);
        assert_refused(arguments.iter().fold(export, Export::arg), words).await;
    }
    assert_refused(place.export(), "--destination is missing").await;
    assert_refused(Export::with(["--destination"]).arg(&to), "--source is missing").await;
    assert!(!to.exists());
}

#[tokio::test]
async fn operations_that_are_not_there() {
    let place = Place::new();
    let state = place.at("state");
    let export =
        |state: &Path| place.export().arg("--destination").arg(place.at("to")).arg("--state").arg(state);
    let resume = |which: &str| export(&state).arg("--resume").arg(which);
    assert_refused(resume("last"), "the state file holds no operation").await;
    let ended = export(&state).run().await;
    let id = ended.ended(0, "completed")["operationId"].as_str().unwrap().to_owned();
    assert_refused(resume("last"), "the operation has ended").await;
    assert_refused(resume(&id), "the operation has ended").await;
    assert_refused(resume("0123456789abcdef0123456789abcdef"), "the operation does not exist").await;
    assert_refused(resume("the last"), "--resume").await;
    assert_refused(resume("last").arg("--identifier").arg("1.2"), "--resume").await;
    let without_state = place.export().arg("--destination").arg(place.at("to")).arg("--resume").arg("last");
    assert_refused(without_state, "--resume needs --state").await;
    assert_refused(export(&place.at("archive/one.dcm")), "the file is not a state file of this crate").await;
    assert_refused(export(&place.at("missing/state")), "the state file or its folder does not exist").await;
    let held = dicom_export::store::RedbOperationStore::open(&state).unwrap();
    assert_refused(resume("last"), "the state file is in use").await;
    drop(held);
}

#[tokio::test]
async fn help_is_no_refusal() {
    let outcome = Export::with(["--help"]).run().await;
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""));
    assert!(outcome.stdout.contains("--identifiers-file FILE"));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
