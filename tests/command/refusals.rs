//! Unusable arguments, sources and destinations are rejected with one line, without the credential, before the export.

use std::path::{Path, PathBuf};

use chrono::{TimeDelta, Utc};
use dicom_export::testing::fixtures;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::azurite::Azurite;
use crate::port::Port;
use crate::process::Export;
use crate::signatures;

const SAS: &str = "sv=2022-11-02&sr=c&sp=w&se=2099-01-01T00:00:00Z&sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D";

/// A folder with one instance in `archive`.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("archive")).unwrap();
        std::fs::write(folder.path().join("archive/one.dcm"), fixtures::ct_slice(1, 1, 1)).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// An export of this instance.
    fn export(&self) -> Export {
        Export::of(self.path("archive"))
    }
}

/// Asserts that the command is rejected with a message that contains this text.
async fn assert_rejected(export: Export, text: &str) {
    let outcome = export.run().await;
    let line = outcome.assert_rejected();
    assert!(line.contains(text), "{line}");
    for secret in signatures(SAS) {
        assert!(!line.contains(&secret), "{line}");
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn containers_that_cannot_be_written_are_rejected() {
    let folder = Folder::new();
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let missing = azurite.missing_container().sas_url("w");
    let expired = container.sas_url_until("w", Utc::now() - TimeDelta::hours(1));
    let reading = container.sas_url("rl");
    let (rest, _) = reading.split_once("sig=").unwrap();
    let forged = format!("{rest}sig=c2VjcmV0LXNpZ25hdHVyZQ%3D%3D");
    for (uri, text) in [
        (&missing, "the container does not exist"),
        (&expired, "refused the credential"),
        (&reading, "refused the credential"),
        (&forged, "refused the credential"),
    ] {
        let outcome = folder.export().to(uri).run().await;
        let line = outcome.assert_rejected();
        assert!(line.contains(text), "{line}");
        assert!(signatures(uri).iter().all(|secret| !line.contains(secret)), "{line}");
    }
    assert!(container.list().await.is_empty());
}

#[tokio::test]
async fn destinations_that_the_policy_does_not_permit_are_rejected() {
    let folder = Folder::new();
    for (uri, text) in [
        (format!("http://127.0.0.1:10000/devstoreaccount1/container?{SAS}"), "does not export to"),
        (format!("https://example.com/container?{SAS}"), "does not export to"),
        (format!("http://account.blob.core.windows.net/container?{SAS}"), "does not export to"),
        (format!("https://account.blob.core.windows.net/?{SAS}"), "blobContainerUri"),
        (format!("https://user@account.blob.core.windows.net/container?{SAS}"), "blobContainerUri"),
        ("https://account.blob.core.windows.net/container".to_owned(), "blobContainerUri"),
        (format!("htps://account.blob.core.windows.net/container?{SAS}"), "neither a folder nor"),
        (format!("account.blob.core.windows.net/container?{SAS}"), "neither a folder nor"),
    ] {
        assert_rejected(folder.export().arg("--destination").arg(&uri), text).await;
    }
    let key = "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0LXNpZ25hdHVyZQ==";
    let sas = format!("BlobEndpoint=https://example.com;SharedAccessSignature={SAS}");
    for (connection_string, text) in [
        (key, "account keys are not accepted"),
        (&sas, "connectionString"),
        ("UseDevelopmentStorage=true", "connectionString"),
    ] {
        let export = folder.export().arg("--connection-string").arg(connection_string);
        assert_rejected(export.arg("--container").arg("container"), text).await;
    }
    let both = format!("https://account.blob.core.windows.net/container?{SAS}");
    let managed = folder.export().arg("--destination").arg(&both).arg("--managed-identity");
    assert_rejected(managed, "useManagedIdentity").await;
    let twice = folder.export().arg("--destination").arg(&both).arg("--container").arg("container");
    assert_rejected(twice, "blobContainer").await;
}

#[tokio::test]
async fn message_for_an_unreachable_destination_contains_its_causes() {
    let folder = Folder::new();
    let port = Port::reserve();
    let uri = format!("http://127.0.0.1:{}/devstoreaccount1/container?{SAS}", port.number());
    let export = folder.export().to(&uri).args(["--retry-for", "0"]);
    let outcome = export.run().await;
    let line = outcome.assert_rejected();
    assert!(line.contains("the destination cannot be reached: "), "{line}");
    assert!(line.contains("Connection refused"), "{line}");
    assert!(signatures(SAS).iter().all(|secret| !line.contains(secret)), "{line}");
}

#[tokio::test]
async fn message_for_a_proxy_that_requires_authentication_says_so() {
    let folder = Folder::new();
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        loop {
            let (mut client, _) = proxy.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await.unwrap());
            }
            let response = b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n";
            client.write_all(response).await.unwrap();
        }
    });
    let uri = format!("https://account.blob.core.windows.net/container?{SAS}");
    let export = folder.export().arg("--destination").arg(&uri).args(["--retry-for", "0"]);
    let outcome = export.env("HTTPS_PROXY", &format!("http://{address}")).env("NO_PROXY", "").run().await;
    let line = outcome.assert_rejected();
    assert!(line.contains("proxy authorization required"), "{line}");
    serving.abort();
}

#[tokio::test]
async fn unusable_folders_are_rejected() {
    let folder = Folder::new();
    let file = folder.path("archive/one.dcm");
    for to in [file.join("below"), file.clone(), PathBuf::from("/proc/nothing-can-be-made-here")] {
        assert_rejected(folder.export().arg("--destination").arg(to), "the destination").await;
    }
    for source in [folder.path("missing"), file] {
        assert_rejected(Export::of(source).arg("--destination").arg(folder.path("to")), "the source").await;
    }
    let with_credential =
        folder.export().arg("--destination").arg(folder.path("to")).arg("--managed-identity");
    assert_rejected(with_credential, "is a folder").await;
    assert!(!folder.path("to").exists());
}

#[tokio::test]
async fn invalid_arguments_are_rejected() {
    let folder = Folder::new();
    let to = folder.path("to");
    let lines = folder.path("lines");
    std::fs::write(&lines, "1.2.3\n\n1.2.x\n").unwrap();
    let (lines, missing, empty) = (str(&lines), folder.path("missing"), folder.path("empty"));
    std::fs::write(&empty, "\n").unwrap();
    let no_value = format!("--quiet={SAS}");
    for (arguments, text) in [
        (&["--identifier", "1.2/3.x"] as &[&str], "--identifier is not an identifier"),
        (&["--identifier", "1.2/3/4/5"], "--identifier is not an identifier"),
        (&["--identifier", ""], "--identifier is not an identifier"),
        (&["--identifiers-file", lines], "--identifiers-file, line 3, is not an identifier"),
        (&["--identifiers-file", str(&missing)], "--identifiers-file: "),
        (&["--identifiers-file", str(&empty)], "there are no identifiers"),
        (&["--memory", "much"], "--memory"),
        (&["--memory", "0"], "--memory"),
        (&["--concurrency", "0"], "--concurrency"),
        (&["--concurrency", "-1"], "--concurrency"),
        (&["--retry-for", "soon"], "--retry-for"),
        (&["--checksums", "some"], "--checksums must be one of off, sent, always"),
        (&["--check-identity", "yes"], "--check-identity must be one of off, warn, enforce"),
        (&["--manifest=yes"], "--manifest does not take a value"),
        (&["--destinatoin", "elsewhere"], "--destinatoin"),
        (&["--concurrency"], "--concurrency"),
        (&["-x"], "-x"),
        (&[SAS], "unexpected argument without an option"),
        (&[&no_value], "--quiet does not take a value"),
    ] {
        let export = folder.export().arg("--destination").arg(&to);
        assert_rejected(arguments.iter().fold(export, Export::arg), text).await;
    }
    assert_rejected(folder.export(), "--destination is missing").await;
    assert_rejected(Export::with(["--destination"]).arg(&to), "--source is missing").await;
    assert!(!to.exists());
}

#[tokio::test]
async fn operations_that_cannot_be_resumed_are_rejected() {
    let folder = Folder::new();
    let state = folder.path("state");
    let export =
        |state: &Path| folder.export().arg("--destination").arg(folder.path("to")).arg("--state").arg(state);
    let resume = |which: &str| export(&state).arg("--resume").arg(which);
    assert_rejected(resume("last"), "the state file contains no operation").await;
    let ended = export(&state).run().await;
    let id = ended.assert_ended(0, "completed")["operationId"].as_str().unwrap().to_owned();
    assert_rejected(resume("last"), "the operation has ended").await;
    assert_rejected(resume(&id), "the operation has ended").await;
    assert_rejected(resume("0123456789abcdef0123456789abcdef"), "the operation does not exist").await;
    assert_rejected(resume("the last"), "--resume").await;
    assert_rejected(resume("last").arg("--identifier").arg("1.2"), "--resume").await;
    let without_state =
        folder.export().arg("--destination").arg(folder.path("to")).arg("--resume").arg("last");
    assert_rejected(without_state, "--resume requires --state").await;
    assert_rejected(export(&folder.path("archive/one.dcm")), "the file is not a state file of this crate")
        .await;
    assert_rejected(export(&folder.path("missing/state")), "the state file or its folder does not exist")
        .await;
    let held = dicom_export::store::RedbOperationStore::open(&state).unwrap();
    assert_rejected(resume("last"), "the state file is in use").await;
    drop(held);
}

#[tokio::test]
async fn help_is_printed_with_exit_status_0() {
    let outcome = Export::with(["--help"]).run().await;
    assert_eq!((outcome.code, &*outcome.stderr), (Some(0), ""));
    assert!(outcome.stdout.contains("--identifiers-file FILE"));
}

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}
