//! Exports of the archive of real files: the blobs and the output.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{TimeDelta, Utc};
use serde_json::Value;
use tempfile::TempDir;

use crate::archive::{Archive, archive};
use crate::azurite::{ACCOUNT, Azurite, Container, KEY};
use crate::process::{Export, Outcome};
use crate::signatures;

fn operation_id(document: &Value) -> &str {
    document["operationId"].as_str().unwrap()
}

/// Asserts that the container contains exactly these instances and the log, and returns the log.
async fn assert_instances<'a>(
    container: &Container<'_>,
    document: &Value,
    instances: impl IntoIterator<Item = &'a String>,
) -> String {
    let id = operation_id(document);
    let log = format!("{id}/errors.log");
    let names: BTreeMap<_, _> =
        instances.into_iter().map(|instance| (format!("{id}/results/{instance}.dcm"), instance)).collect();
    let expected: BTreeSet<_> = names.keys().chain([&log]).cloned().collect();
    assert_eq!(container.list().await.into_keys().collect::<BTreeSet<_>>(), expected);
    for (name, instance) in &names {
        let blob = container.get(name).await.unwrap();
        assert!(blob.bytes == archive().bytes(instance), "{name} has different bytes");
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

/// Asserts that the whole archive was exported and that the files without three UIDs were skipped.
async fn assert_complete(container: &Container<'_>, outcome: &Outcome) {
    let document = outcome.assert_ended(3, "completed");
    let log = assert_instances(container, &document, archive().instances.keys()).await;
    assert_skipped(&log);
    let href = format!("{}/{}/errors.log", container.url(), operation_id(&document));
    assert_eq!(document["results"]["errorHref"], href.as_str());
    assert_reported(outcome, &document);
}

fn assert_skipped(log: &str) {
    assert_eq!(log.lines().count(), archive().unidentified);
    assert!(log.lines().all(|line| line.contains("a DICOM file has no Study Instance UID")), "{log}");
}

/// Asserts that stderr and the warnings count what was left out.
fn assert_reported(outcome: &Outcome, document: &Value) {
    let Archive { duplicates, unidentified, directories, .. } = archive();
    // Before it, there may be warnings of the log.
    assert_eq!(
        outcome.stderr.lines().filter(|line| !line.contains(" WARN ")).collect::<Vec<_>>(),
        [format!(
            "left out: {duplicates} duplicates, {directories} DICOMDIR files; skipped: {unidentified} DICOM files \
             without valid UIDs, 0 unreadable files, 0 unreadable folders"
        )]
    );
    let warnings: BTreeMap<_, _> = document["warnings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|warning| (warning["code"].as_str().unwrap(), warning["message"].as_str().unwrap()))
        .collect();
    assert!(warnings["duplicateInstance"].ends_with(&format!(": {duplicates}")), "{warnings:?}");
    assert!(warnings["dicomdir"].ends_with(&format!(": {directories}")), "{warnings:?}");
    assert!(warnings["missingPreamble"].ends_with(": 2"), "{warnings:?}");
}

/// A SAS that does not expire soon enough for a warning.
pub(crate) fn write_only_sas(container: &Container<'_>) -> String {
    container.sas_url_until("w", Utc::now() + TimeDelta::hours(2))
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn guarantee_1_and_2_the_archive_is_exported_byte_for_byte_with_a_write_only_sas() {
    let container = Azurite::shared().container().await;
    let outcome = Export::of(&archive().root).to(&write_only_sas(&container)).run().await;
    assert_complete(&container, &outcome).await;
    assert_eq!(outcome.document()["warnings"].as_array().unwrap().len(), 3);
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn the_archive_is_exported_with_the_connection_string_of_the_emulator() {
    let container = Azurite::shared().container().await;
    let emulator = container.connection_string(&format!("AccountName={ACCOUNT};AccountKey={KEY}"));
    let arguments = ["--development", "--connection-string", &emulator, "--container", container.name()];
    let outcome = arguments.iter().fold(Export::of(&archive().root), Export::arg).run().await;
    assert_complete(&container, &outcome).await;
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn the_archive_is_exported_with_a_connection_string_with_a_sas() {
    let container = Azurite::shared().container().await;
    // It expires within the hour, which causes a warning.
    let url = container.sas_url_until("w", Utc::now() + TimeDelta::minutes(30));
    let sas = container
        .connection_string(&url.replacen(&container.url(), "SharedAccessSignature=", 1).replace("=?", "="));
    let arguments = ["--development", "--connection-string", &sas, "--container", container.name()];
    let outcome = arguments.iter().fold(Export::of(&archive().root), Export::arg).run().await;
    assert_complete(&container, &outcome).await;
    let document = outcome.document();
    let warnings = document["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|warning| warning["code"] == "credentialExpires"), "{document}");
    for secret in signatures(&url) {
        assert!(!outcome.stdout.contains(&secret) && !outcome.stderr.contains(&secret));
    }
}

#[tokio::test]
#[ignore = "needs pydicom's files: tests/run.sh"]
async fn the_archive_is_exported_to_a_folder_byte_for_byte() {
    let folder = TempDir::new().unwrap();
    let to = folder.path().join("parent/new folder");
    std::fs::create_dir(folder.path().join("parent")).unwrap();
    let outcome = Export::of(&archive().root).arg("--destination").arg(&to).run().await;
    let document = outcome.assert_ended(3, "completed");
    assert_reported(&outcome, &document);
    assert_eq!(
        (&document["results"]["exported"], &document["results"]["skipped"]),
        (&131.into(), &20.into())
    );
    let root = to.join(operation_id(&document));
    assert_skipped(&std::fs::read_to_string(root.join("errors.log")).unwrap());
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
    let export = Export::of(&archive().root).to(&write_only_sas(&container));
    let outcome =
        ["--identifier", "1.2.3.4.5.6.7", "--identifier", known].iter().fold(export, Export::arg).run().await;
    let document = outcome.assert_ended(3, "completed");
    let of_study = format!("{known}/");
    let expected_instances = archive().instances.keys().filter(|instance| instance.starts_with(&of_study));
    let log = assert_instances(&container, &document, expected_instances).await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(log.ends_with('\n') && lines.len() == 1, "{log}");
    assert_eq!(lines[0]["identifier"], "1.2.3.4.5.6.7");
    assert_eq!(document["results"]["skipped"], 1);
    assert_eq!(document["percentComplete"], 100);
}

#[tokio::test]
#[ignore = "needs Azurite: tests/run.sh"]
async fn identifiers_are_read_from_a_file() {
    let container = Azurite::shared().container().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("identifiers");
    let part = |instance: &str, parts| instance.split('/').take(parts).collect::<Vec<_>>().join("/");
    let instances: Vec<_> = archive().instances.keys().collect();
    let (study, series, one) = (part(instances[0], 1), part(instances[60], 2), instances[120]);
    // Both kinds of line ends, empty lines, spaces, and a repetition.
    std::fs::write(&file, format!("{study}\r\n\n  {series} \n{study}\n{one}")).unwrap();
    let other = part(instances[100], 1);
    let export =
        Export::of(&archive().root).to(&write_only_sas(&container)).arg("--identifiers-file").arg(&file);
    let outcome = export.arg("--identifier").arg(&other).run().await;
    let covering = [study, series, one.clone(), other].map(|identifier| format!("{identifier}/"));
    let covered =
        |instance: &&String| covering.iter().any(|covering| format!("{instance}/").starts_with(covering));
    let expected_instances: Vec<_> = instances.into_iter().filter(covered).collect();
    assert!(expected_instances.len() > 3 && expected_instances.len() < 131);
    assert_instances(&container, &outcome.assert_ended(0, "completed"), expected_instances).await;
}

#[tokio::test]
#[ignore = "needs pydicom's files: tests/run.sh"]
async fn an_index_is_kept_for_the_next_export_of_a_folder() {
    let folder = TempDir::new().unwrap();
    let index = folder.path().join("index");
    let study = archive().instances.keys().next().unwrap().split('/').next().unwrap();
    for to in ["first", "second"] {
        let export = Export::of(&archive().root).arg("--destination").arg(folder.path().join(to));
        let outcome = export.arg("--identifier").arg(study).arg("--index").arg(&index).run().await;
        let document = outcome.assert_ended(0, "completed");
        let expected = archive().instances.keys().filter(|one| one.starts_with(study)).count();
        assert_eq!(document["results"]["exported"], expected);
        assert!(index.exists());
    }
    let export = Export::of("http://127.0.0.1:9/dicom-web").arg("--destination").arg(folder.path());
    let outcome = export.arg("--index").arg(&index).run().await;
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.stderr.contains("only a folder can have an index"), "{}", outcome.stderr);
}
