//! Guarantee 4: after a crash at any moment, resuming repeats at most what was under way, and the counts are exact.

use std::sync::Arc;
use std::time::Duration;

use dicom_export::store::{MemoryOperationStore, OperationStore};
use dicom_export::{
    ErrorKind, ExportDestination, ExportEngine, ExportSource, InstanceIdentifier, NewOperation,
    OperationStatus,
};
use proptest::prelude::*;

use crate::manifest::assert_manifest;
use crate::support::{FaultySink, FaultySource, Plan, Shared, archive, assert_exported, instance, log_of};

#[derive(Debug, Clone)]
struct Case {
    instances: usize,
    /// Instances that cannot be read.
    unreadable: Vec<usize>,
    /// Identifiers asked for, unknown ones among them; none: everything.
    studies: Vec<usize>,
    batch: usize,
    /// After how many milliseconds each process dies.
    lives: Vec<u64>,
    /// How often a put fails before it passes.
    flaky: Vec<(usize, usize)>,
}

fn case() -> impl Strategy<Value = Case> {
    (1..300_usize, 1..40_usize).prop_flat_map(|(instances, batch)| {
        (
            prop::collection::vec(0..instances, 0..6),
            prop::collection::btree_set(0..12_usize, 0..8),
            prop::collection::vec(0..60_u64, 0..8),
            prop::collection::vec((0..instances, 1..4_usize), 0..10),
        )
            .prop_map(move |(unreadable, studies, lives, flaky)| Case {
                instances,
                unreadable,
                studies: studies.into_iter().collect(),
                batch,
                lives,
                flaky,
            })
    })
}

fn nth(n: usize) -> InstanceIdentifier {
    instance(n / 40, n / 10 % 4, n % 10)
}

async fn survives(case: Case) {
    let source = Arc::new(archive(case.instances));
    let plan = Plan::default();
    for n in &case.unreadable {
        plan.fail(&nth(*n), &[ErrorKind::Unreadable; 100]);
    }
    let sink = FaultySink::with_latency(Duration::from_millis(3));
    for (n, times) in &case.flaky {
        sink.plan().fail(&nth(*n), &vec![ErrorKind::Throttled; *times]);
    }
    let store = Arc::new(MemoryOperationStore::new());
    let engine = || {
        ExportEngine::builder(FaultySource { inner: Arc::clone(&source), plan: plan.clone() })
            .destination("azureblob", Shared(sink.clone()))
            .operation_store(store.clone())
            .batch_size(case.batch)
            .checkpoint_interval(Duration::from_millis(20))
            .lease_duration(Duration::from_millis(30))
            .manifest(true)
            .build()
            .unwrap()
    };
    let studies = case.studies.iter().map(|n| format!("1.2.{n}").parse().unwrap());
    let wanted = match case.studies.is_empty() {
        true => ExportSource::Everything,
        false => ExportSource::identifiers(studies).unwrap(),
    };
    let destination = ExportDestination::azure_blob("https://a.blob.core.windows.net/b");
    let created = engine().create(NewOperation::new(wanted, destination)).await.unwrap();
    let id = created.operation_id;

    for life in &case.lives {
        // Dropping the future is the crash: whatever it was doing is left as it is.
        let engine = engine();
        let died = tokio::time::timeout(Duration::from_millis(*life), engine.run(id)).await.is_err();
        let counted = store.load(id).await.unwrap().totals;
        let operation = engine.status(id).await.unwrap();
        let there = assert_exported(&source, &sink.inner, &operation).await as u64;
        assert!(counted.exported <= there, "counted {} of {there}", counted.exported);
        if !died {
            break;
        }
        // The dead process's lease has to lapse, by the wall clock.
        while store
            .load(id)
            .await
            .unwrap()
            .lease
            .is_some_and(|lease| lease.expires > dicom_export::Timestamp::now())
        {
            std::thread::yield_now();
        }
    }
    let last = engine();
    let ended = match last.status(id).await.unwrap().status {
        OperationStatus::Completed => last.status(id).await.unwrap(),
        _ => last.run(id).await.unwrap(),
    };

    let covered = |n: &usize| case.studies.is_empty() || case.studies.contains(&(n / 40));
    let unreadable: std::collections::BTreeSet<_> = case.unreadable.iter().copied().filter(covered).collect();
    let listed = (0..case.instances).filter(covered).count();
    let unmatched = case.studies.iter().filter(|n| **n * 40 >= case.instances).count();
    assert_eq!(ended.status, OperationStatus::Completed, "{:?}", ended.error);
    assert_eq!(ended.results.exported as usize, listed - unreadable.len());
    assert_eq!(ended.results.skipped as usize, unreadable.len() + unmatched);
    assert_eq!(assert_exported(&source, &sink.inner, &ended).await, listed - unreadable.len());
    assert_eq!((ended.operation_id, ended.created_time), (id, created.created_time));
    let logged: std::collections::BTreeSet<_> =
        log_of(&sink.inner, &ended).iter().map(|entry| entry.identifier().to_owned()).collect();
    assert_eq!(logged.len(), unreadable.len() + unmatched, "each named, perhaps more than once");
    assert_eq!(assert_manifest(&sink.inner, &ended), listed - unreadable.len(), "manifest");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn guarantee_4_counts_are_exact_after_any_crashes(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(survives(case));
    }
}
