//! The archive of real files, exported by the command: what arrives, and what is said.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{TimeDelta, Utc};
use serde_json::Value;
use tempfile::TempDir;

use crate::archive::{Archive, archive};
use crate::azurite::{ACCOUNT, Azurite, Container, KEY};
use crate::process::{Export, Outcome};
use crate::signatures;

fn id(document: &Value) -> &str {
    document["operationId"].as_str().unwrap()
}

/// Holds the container to these instances, and gives the log.
async fn assert_there<'a>(
    container: &Container<'_>,
    document: &Value,
    instances: impl IntoIterator<Item = &'a String>,
) -> String {
    let id = id(document);
    let log = format!("{id}/errors.log");
    let names: BTreeMap<_, _> =
        instances.into_iter().map(|instance| (format!("{id}/results/{instance}.dcm"), instance)).collect();
    let expected: BTreeSet<_> = names.keys().chain([&log]).cloned().collect();
    assert_eq!(container.list().await.into_keys().collect::<BTreeSet<_>>(), expected);
    for (name, instance) in &names {
        let blob = container.get(name).await.unwrap();
        assert!(blob.bytes == archive().bytes(instance), "{name} has other bytes");
        assert_eq!((&*blob.content_type, &*blob.kind), ("application/dicom", "BlockBlob"));
    }
    let blob = container.get(&log).await.unwrap();
    assert_eq!((&*blob.content_type, &*blob.kind), ("application/x-ndjson", "AppendBlob"));
    let (exported, skipped) = (&document["results"]["exported"], &document["results"]["skipped"]);
    assert_eq!(exported, &names.len());
    let log = String::from_utf8(blob.bytes.into()).unwrap();
    assert_eq!(skipped, &log.lines().count());
    log
}

/// The whole archive is there: nothing is skipped, and what was passed over is told.
async fn assert_whole(container: &Container<'_>, outcome: &Outcome) {
    let document = outcome.ended(0, "completed");
    let log = assert_there(container, &document, archive().instances.keys()).await;
    assert_eq!(log, "");
    let href = format!("{}/{}/errors.log", container.url(), id(&document));
    assert_eq!(document["results"]["errorHref"], href.as_str());
    assert_passed_over(outcome, &document);
}

/// Duplicates, and files without readable UIDs, on stderr and among the warnings.
fn assert_passed_over(outcome: &Outcome, document: &Value) {
    let Archive { duplicates, unidentified, .. } = archive();
    assert_eq!(
        outcome.stderr,
        format!(
            "passed over: {duplicates} files that repeat an instance, {unidentified} DICOM files without readable \
             UIDs, 0 unreadable files, 0 unreadable folders\n"
        )
    );
    let warnings: BTreeMap<_, _> = document["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| (warning["code"].as_str().unwrap(), warning["message"].as_str().unwrap()))
        .collect();
    assert!(warnings["duplicateInstance"].ends_with(&format!(": {duplicates}")), "{warnings:?}");
    assert!(warnings["unidentifiedFile"].ends_with(&format!(": {unidentified}")), "{warnings:?}");
}

/// A SAS that no warning is due for.
pub(crate) fn lasting(container: &Container<'_>) -> String {
    container.sas_url_until("w", Utc::now() + TimeDelta::hours(2))
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_1_and_2_a_write_only_sas_brings_the_archive_byte_for_byte() {
    let container = Azurite::shared().container().await;
    let outcome = Export::of(&archive().root).to(&lasting(&container)).run().await;
    assert_whole(&container, &outcome).await;
    assert_eq!(outcome.document()["warnings"].as_array().unwrap().len(), 2);
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn the_emulators_connection_string_does_so() {
    let container = Azurite::shared().container().await;
    let emulator = container.connection_string(&format!("AccountName={ACCOUNT};AccountKey={KEY}"));
    let arguments = ["--development", "--connection-string", &emulator, "--container", container.name()];
    let outcome = arguments.iter().fold(Export::of(&archive().root), Export::arg).run().await;
    assert_whole(&container, &outcome).await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn a_connection_string_with_a_sas_does_so() {
    let container = Azurite::shared().container().await;
    // Within the hour: that is warned about.
    let url = container.sas_url_until("w", Utc::now() + TimeDelta::minutes(30));
    let sas = container
        .connection_string(&url.replacen(&container.url(), "SharedAccessSignature=", 1).replace("=?", "="));
    let arguments = ["--development", "--connection-string", &sas, "--container", container.name()];
    let outcome = arguments.iter().fold(Export::of(&archive().root), Export::arg).run().await;
    assert_whole(&container, &outcome).await;
    let document = outcome.document();
    let warnings = document["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|warning| warning["code"] == "credentialExpires"), "{document}");
    for secret in signatures(&url) {
        assert!(!outcome.stdout.contains(&secret) && !outcome.stderr.contains(&secret));
    }
}

#[tokio::test]
#[ignore = "needs pydicom's files: tests/run.sh"]
async fn a_folder_gets_the_archive_byte_for_byte() {
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("not/there yet");
    std::fs::create_dir(folder.path().join("not")).unwrap();
    let outcome = Export::of(&archive().root).arg("--destination").arg(&to).run().await;
    let document = outcome.ended(0, "completed");
    assert_passed_over(&outcome, &document);
    assert_eq!((&document["results"]["exported"], &document["results"]["skipped"]), (&129.into(), &0.into()));
    let root = to.join(id(&document));
    assert_eq!(std::fs::read(root.join("errors.log")).unwrap(), b"");
    let files = walkdir::WalkDir::new(&to).into_iter().map(Result::unwrap);
    let files: BTreeSet<_> =
        files.filter(|file| file.file_type().is_file()).map(|file| file.into_path()).collect();
    let path = |instance: &String| root.join(format!("results/{instance}.dcm"));
    let expected = archive().instances.keys().map(path).chain([root.join("errors.log")]);
    assert_eq!(files, expected.collect());
    for instance in archive().instances.keys() {
        assert!(std::fs::read(path(instance)).unwrap() == archive().bytes(instance), "{instance}");
    }
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn an_unknown_study_is_skipped_and_named_in_the_log() {
    let container = Azurite::shared().container().await;
    let known = archive().instances.keys().next().unwrap().split('/').next().unwrap();
    let export = Export::of(&archive().root).to(&lasting(&container));
    let outcome =
        ["--identifier", "1.2.3.4.5.6.7", "--identifier", known].iter().fold(export, Export::arg).run().await;
    let document = outcome.ended(3, "completed");
    let of_study = format!("{known}/");
    let wanted = archive().instances.keys().filter(|instance| instance.starts_with(&of_study));
    let log = assert_there(&container, &document, wanted).await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(log.ends_with('\n') && lines.len() == 1, "{log}");
    assert_eq!(lines[0]["identifier"], "1.2.3.4.5.6.7");
    assert_eq!(document["results"]["skipped"], 1);
    assert_eq!(document["percentComplete"], 100);
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn identifiers_come_from_a_file_too() {
    let container = Azurite::shared().container().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("identifiers");
    let part = |instance: &str, parts| instance.split('/').take(parts).collect::<Vec<_>>().join("/");
    let instances: Vec<_> = archive().instances.keys().collect();
    let (study, series, one) = (part(instances[0], 1), part(instances[60], 2), instances[120]);
    // Lines of both kinds, empty ones, spaces, a repetition.
    std::fs::write(&file, format!("{study}\r\n\n  {series} \n{study}\n{one}")).unwrap();
    let other = part(instances[100], 1);
    let export = Export::of(&archive().root).to(&lasting(&container)).arg("--identifiers-file").arg(&file);
    let outcome = export.arg("--identifier").arg(&other).run().await;
    let covering = [study, series, one.clone(), other].map(|identifier| format!("{identifier}/"));
    let covered =
        |instance: &&String| covering.iter().any(|covering| format!("{instance}/").starts_with(covering));
    let wanted: Vec<_> = instances.into_iter().filter(covered).collect();
    assert!(wanted.len() > 3 && wanted.len() < 129);
    assert_there(&container, &outcome.ended(0, "completed"), wanted).await;
}
