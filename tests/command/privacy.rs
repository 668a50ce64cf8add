//! Guarantee 6: what the command prints, including its log and its progress bar, and what it stores.

use std::path::Path;
use std::process::{Command, Stdio};

use chrono::{TimeDelta, Utc};
use tempfile::TempDir;

use crate::archive::archive;
use crate::azurite::Azurite;
use crate::canary::Canaries;
use crate::process::{Export, Outcome, program};
use crate::real_files::write_only_sas;
use crate::signatures;

/// Asserts that the output contains no secret, no patient data and no path.
fn assert_discloses_nothing(outcome: &Outcome, uri: &str, folders: &[&Path]) {
    let output = format!("{}{}", outcome.stdout, outcome.stderr);
    for secret in signatures(uri) {
        assert!(!output.contains(&secret), "the signature is logged");
    }
    for name in &archive().names {
        assert!(!output.contains(name), "a patient name is logged: {name}");
    }
    for folder in folders {
        assert!(!output.contains(folder.to_str().unwrap()), "a path is logged");
    }
    for file in archive().instances.values() {
        let name = file.file_name().unwrap().to_str().unwrap();
        // Some names are short numbers.
        if name.len() < 6 {
            continue;
        }
        assert!(!output.contains(name), "a file name is logged: {name}");
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_6_the_trace_log_contains_no_secret_no_patient_name_and_no_path() {
    let container = Azurite::shared().container().await;
    let folder = TempDir::new().unwrap();
    let (state, root) = (folder.path().join("state"), &archive().root);
    let uri = write_only_sas(&container);
    let export = |uri: &str| Export::of(root).to(uri).arg("--state").arg(&state).env("RUST_LOG", "trace");
    let outcome = export(&uri).run().await;
    outcome.assert_ended(3, "completed");
    assert!(outcome.stderr.lines().count() > 100, "the log is empty");
    assert_discloses_nothing(&outcome, &uri, &[root, folder.path()]);

    let unknown = export(&uri).arg("--identifier").arg("1.2.3").run().await;
    unknown.assert_ended(3, "completed");
    assert_discloses_nothing(&unknown, &uri, &[root, folder.path()]);

    // Requests that are rejected, and a refused connection.
    let expired = container.sas_url_until("w", Utc::now() - TimeDelta::hours(1));
    let no_server = uri.replace(&container.url(), "http://127.0.0.1:1/devstoreaccount1/container");
    for uri in [expired, no_server] {
        let rejected = export(&uri).arg("--retry-for").arg("1").run().await;
        assert_eq!(rejected.code, Some(2), "{rejected:?}");
        assert_discloses_nothing(&rejected, &uri, &[root, folder.path()]);
    }
    let resumed = export(&uri).arg("--resume").arg("last").run().await;
    assert_eq!(resumed.code, Some(2), "{resumed:?}");
    assert_discloses_nothing(&resumed, &uri, &[root, folder.path()]);

    let signature = &signatures(&uri)[0];
    let stored = std::fs::read(&state).unwrap();
    Canaries::default().with("the signature", signature).assert_absent("the state file", stored);
}

/// The progress bar is only drawn on a terminal, so the process gets one.
#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_6_the_progress_bar_shows_no_secret_no_patient_name_and_no_path() {
    let container = Azurite::shared().container().await;
    let uri = write_only_sas(&container);
    let root = &archive().root;
    let forged = uri.replace("sig=", "sig=Zm9yZ2Vk");
    for (uri, code, text) in [(&uri, 3, "instances/s"), (&forged, 2, "error: ")] {
        let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let mut command = Command::new("python3");
        command.args(["-c", terminal]).arg(program("export")).arg("--source").arg(root);
        command.args(["--development", "--retry-for", "1", "--destination", uri]);
        command.env_remove("RUST_LOG").env("TERM", "xterm").env_remove("NO_COLOR").stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let outcome = Outcome {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        };
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.stdout.contains(text), "{outcome:?}");
        assert_discloses_nothing(&outcome, uri, &[root]);
        let canary = Canaries::default().with("the signature", &signatures(uri)[0]);
        canary.assert_absent("the terminal", format!("{}{}", outcome.stdout, outcome.stderr));
    }
}
