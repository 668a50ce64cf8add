//! Guarantee 6: what the command prints, its log and its progress bar included, and what it keeps.

use std::path::Path;
use std::process::{Command, Stdio};

use chrono::{TimeDelta, Utc};
use tempfile::TempDir;

use crate::archive::archive;
use crate::azurite::Azurite;
use crate::canary::Canaries;
use crate::process::{Export, Outcome, program};
use crate::real_files::lasting;
use crate::signatures;

/// Holds everything that was said to what may be said.
fn assert_discreet(outcome: &Outcome, uri: &str, folders: &[&Path]) {
    let said = format!("{}{}", outcome.stdout, outcome.stderr);
    for secret in signatures(uri) {
        assert!(!said.contains(&secret), "the signature is logged");
    }
    for name in &archive().names {
        assert!(!said.contains(name), "a patient's name is logged: {name}");
    }
    for folder in folders {
        assert!(!said.contains(folder.to_str().unwrap()), "a path is logged");
    }
    for file in archive().instances.values() {
        let name = file.file_name().unwrap().to_str().unwrap();
        // Some are called by small numbers.
        if name.len() < 6 {
            continue;
        }
        assert!(!said.contains(name), "a file's name is logged: {name}");
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_6_the_fullest_log_holds_no_secret_no_name_and_no_path() {
    let container = Azurite::shared().container().await;
    let folder = TempDir::new().unwrap();
    let (state, root) = (folder.path().join("state"), &archive().root);
    let uri = lasting(&container);
    let export = |uri: &str| Export::of(root).to(uri).arg("--state").arg(&state).env("RUST_LOG", "trace");
    let outcome = export(&uri).run().await;
    outcome.ended(0, "completed");
    assert!(outcome.stderr.lines().count() > 100, "there is a log");
    assert_discreet(&outcome, &uri, &[root, folder.path()]);

    let unknown = export(&uri).arg("--identifier").arg("1.2.3").run().await;
    unknown.ended(3, "completed");
    assert_discreet(&unknown, &uri, &[root, folder.path()]);

    // The requests fail, in two ways.
    let expired = container.sas_url_until("w", Utc::now() - TimeDelta::hours(1));
    let nobody = uri.replace(&container.url(), "http://127.0.0.1:1/devstoreaccount1/container");
    for uri in [expired, nobody] {
        let refused = export(&uri).arg("--retry-for").arg("1").run().await;
        assert_eq!(refused.code, Some(2), "{refused:?}");
        assert_discreet(&refused, &uri, &[root, folder.path()]);
    }
    let resumed = export(&uri).arg("--resume").arg("last").run().await;
    assert_eq!(resumed.code, Some(2), "{resumed:?}");
    assert_discreet(&resumed, &uri, &[root, folder.path()]);

    let signature = &signatures(&uri)[0];
    let kept = std::fs::read(&state).unwrap();
    Canaries::default().with("the signature", signature).assert_absent("the state file", kept);
}

/// The bar is drawn on a terminal only, so it gets one.
#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_6_the_progress_bar_shows_no_secret_no_name_and_no_path() {
    let container = Azurite::shared().container().await;
    let uri = lasting(&container);
    let root = &archive().root;
    let forged = uri.replace("sig=", "sig=Zm9yZ2Vk");
    for (uri, code, shows) in [(&uri, 0, "instances/s"), (&forged, 2, "error: ")] {
        let terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";
        let mut command = Command::new("python3");
        command.args(["-c", terminal]).arg(program("export")).arg("--source").arg(root);
        command.args(["--development", "--retry-for", "1", "--destination", uri]);
        command.env_remove("RUST_LOG").env("TERM", "xterm").env_remove("NO_COLOR").stdin(Stdio::null());
        let said = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let outcome = Outcome {
            code: said.status.code(),
            stdout: String::from_utf8(said.stdout).unwrap(),
            stderr: String::from_utf8(said.stderr).unwrap(),
        };
        assert_eq!(outcome.code, Some(code), "{outcome:?}");
        assert!(outcome.stdout.contains(shows), "{outcome:?}");
        assert_discreet(&outcome, uri, &[root]);
        let canary = Canaries::default().with("the signature", &signatures(uri)[0]);
        canary.assert_absent("the terminal", format!("{}{}", outcome.stdout, outcome.stderr));
    }
}
