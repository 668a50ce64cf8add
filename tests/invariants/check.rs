//! Checks of the container and the store against the guarantees.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::SeqCst;

use dicom_export::store::OperationStore;
use dicom_export::{BlobPath, ErrorLogEntry, InstanceIdentifier, ManifestEntry, OperationStatus};
use sha2::{Digest, Sha256};

use crate::archive::Item;
use crate::case::Case;

/// The contents of the container.
struct Found {
    exported: BTreeSet<InstanceIdentifier>,
    log: Option<Vec<ErrorLogEntry>>,
    manifest: Option<Vec<ManifestEntry>>,
}

impl Case {
    /// Reads the container. Guarantees 1 and 8: every visible blob is whole at any time.
    async fn found(&self) -> Found {
        let (results, log) = (format!("{}/results/", self.id), format!("{}/errors.log", self.id));
        let mut found = Found { exported: BTreeSet::new(), log: None, manifest: None };
        let covered = self.archive.covered(&self.wanted);
        for (name, bytes) in self.container.blobs().await {
            if let Some(name) = name.strip_prefix(&results).and_then(|name| name.strip_suffix(".dcm")) {
                let id: InstanceIdentifier = name.parse().unwrap();
                match covered.get(&id) {
                    Some(Item::Instance(held)) => assert!(held.bytes == bytes, "{id} is not whole"),
                    _ => panic!("{id} does not belong there"),
                }
                found.exported.insert(id);
            } else if name == log {
                let text = std::str::from_utf8(&bytes).unwrap();
                assert!(text.is_empty() || text.ends_with('\n'), "the log ends in the middle of a line");
                found.log = Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
            } else if name == BlobPath::manifest(self.id).as_str() {
                let text = std::str::from_utf8(&bytes).unwrap();
                assert!(text.is_empty() || text.ends_with('\n'), "the manifest ends in the middle of a line");
                found.manifest = Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect());
            }
        }
        found
    }

    /// Checks what holds after every crash. Returns the status of the operation, if it was accepted.
    pub(crate) async fn hold_so_far(&self) -> Option<OperationStatus> {
        let found = self.found().await;
        let stored = self.store.load(self.id).await.ok()?;
        assert!(found.log.is_some(), "an operation that was accepted has a log");
        let (good, bad) = self.expected();
        let totals = &stored.totals;
        assert!(
            totals.exported <= found.exported.len() as u64,
            "{totals:?}: more is counted than was exported"
        );
        assert!(totals.exported + totals.skipped <= good + bad, "{totals:?} of {good} and {bad}");
        match stored.status {
            OperationStatus::Failed => {
                assert!(stored.lease.is_none(), "a failed operation can be resumed");
                let error = stored.error.as_ref().expect("a failed operation has an error");
                let expected = [
                    "unavailable",
                    "throttled",
                    "unauthorized",
                    "conflict",
                    "internal",
                    "notFound",
                    "credentialsNeeded",
                ];
                assert!(expected.contains(&&*error.code), "{error:?}");
            }
            OperationStatus::Completed => self.hold_at_the_end().await,
            OperationStatus::Paused => assert!(stored.lease.is_none(), "no runner holds a paused operation"),
            other => {
                assert!(matches!(other, OperationStatus::NotStarted | OperationStatus::Running), "{other:?}")
            }
        }
        Some(stored.status)
    }

    /// Checks guarantees 1 to 5 of a completed operation.
    pub(crate) async fn hold_at_the_end(&self) {
        let found = self.found().await;
        let stored = self.store.load(self.id).await.unwrap();
        assert_eq!((stored.status, &stored.error, &stored.lease), (OperationStatus::Completed, &None, &None));
        let (good, bad) = self.expected();
        let totals = &stored.totals;
        assert_eq!(totals.exported + totals.skipped, good + bad, "{totals:?} of {good} and {bad}");

        let log = found.log.expect("there is a log");
        let logged: BTreeSet<_> = log.iter().map(|entry| entry.identifier().to_owned()).collect();
        let covered = self.archive.covered(&self.wanted);
        let unmatched: BTreeSet<_> =
            self.archive.unmatched(&self.wanted).iter().map(ToString::to_string).collect();
        let mut skipped = unmatched;
        for (id, item) in &covered {
            let name = id.to_string();
            let is_good = matches!(item, Item::Instance(held) if held.bad.is_none());
            if !is_good {
                assert!(!found.exported.contains(id), "{id} cannot be read");
                skipped.insert(name);
            } else {
                assert!(
                    found.exported.contains(id) || logged.contains(&name),
                    "{id} is neither exported nor logged"
                );
            }
        }
        assert!(skipped.is_subset(&logged), "{:?} is not logged", skipped.difference(&logged));
        assert!(logged.iter().all(|name| skipped.contains(name)
            || name.parse().is_ok_and(|id: InstanceIdentifier| covered.contains_key(&id))));
        assert!(totals.skipped <= logged.len() as u64 && totals.exported <= found.exported.len() as u64);
        if !self.may_skip_good {
            assert_eq!(
                (totals.exported, totals.skipped),
                (good, bad),
                "only unreadable instances are skipped"
            );
            assert_eq!(found.exported.len() as u64, good);
            assert_eq!(logged, skipped, "only unreadable instances are logged");
            let bytes: u64 =
                found.exported.iter().map(|id| self.archive.held(id).unwrap().bytes.len() as u64).sum();
            assert_eq!(totals.bytes, bytes);
        }
        assert_eq!(found.manifest.is_some(), self.has_manifest());
        if let Some(manifest) = &found.manifest {
            for entry in manifest {
                let held =
                    self.archive.held(entry.identifier()).expect("an instance in the manifest was exported");
                let sha256: String = Sha256::digest(&held.bytes).iter().map(|b| format!("{b:02x}")).collect();
                assert_eq!((entry.size(), entry.sha256()), (held.bytes.len() as u64, &*sha256));
            }
            let named: BTreeSet<_> = manifest.iter().map(|entry| entry.identifier().clone()).collect();
            assert!(named.is_subset(&found.exported), "each line has its blob");
            assert!(named.len() as u64 >= totals.exported, "each counted instance has a line");
            assert!(self.may_skip_good || named == found.exported, "each blob has a line");
        }
        for entry in &log {
            let of_the_source = [
                "no instance was found",
                "it cannot be listed",
                "it is bad",
                "it is gone",
                "planned fault",
                "planned stream failure",
                "the source returned",
            ];
            let error = entry.error();
            assert!(of_the_source.iter().any(|known| error.starts_with(known)), "{error}");
        }

        let most = self.archive.open.most.load(SeqCst);
        assert!(most <= self.processes * self.archive.open.budget, "{most} bytes were open at once");
    }
}
