//! Guarantee 4: after a crash at any moment, resuming repeats at most the batches in flight, and the counts are exact.

use std::sync::Arc;
use std::time::Duration;

use dicom_export::store::{MemoryOperationStore, OperationStore};
use dicom_export::{
    ErrorKind, ExportDestination, ExportEngine, ExportSource, InstanceIdentifier, NewOperation,
    OperationStatus,
};
use proptest::prelude::*;

use crate::manifest::assert_manifest;
use crate::support::{
    FaultySink, FaultySinkProvider, FaultySource, Plan, archive, assert_exported, instance, log_of,
};

#[derive(Debug, Clone)]
struct Case {
    instances: usize,
    /// Instances that cannot be read.
    unreadable: Vec<usize>,
    /// The requested studies, some of which are unknown. If empty, everything is exported.
    studies: Vec<usize>,
    batch: usize,
    /// The time until each process crashes, in milliseconds.
    run_times: Vec<u64>,
    /// Instances, and how many of their puts fail before one succeeds.
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
            .prop_map(move |(unreadable, studies, run_times, flaky)| Case {
                instances,
                unreadable,
                studies: studies.into_iter().collect(),
                batch,
                run_times,
                flaky,
            })
    })
}

fn nth(n: usize) -> InstanceIdentifier {
    instance(n / 40, n / 10 % 4, n % 10)
}

async fn assert_survives(case: Case) {
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
            .destination("azureblob", FaultySinkProvider(sink.clone()))
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

    for run_time in &case.run_times {
        // Dropping the future simulates a crash: its work is left unfinished.
        let engine = engine();
        let crashed = tokio::time::timeout(Duration::from_millis(*run_time), engine.run(id)).await.is_err();
        let counted = store.load(id).await.unwrap().totals;
        let operation = engine.status(id).await.unwrap();
        let blobs = assert_exported(&source, &sink.inner, &operation).await as u64;
        assert!(counted.exported <= blobs, "{} counted, {blobs} in the container", counted.exported);
        if !crashed {
            break;
        }
        // The lease of the crashed process expires by the wall clock, which is not paused.
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
    assert_eq!(
        logged.len(),
        unreadable.len() + unmatched,
        "every skipped identifier is logged at least once"
    );
    assert_eq!(assert_manifest(&sink.inner, &ended), listed - unreadable.len(), "manifest");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn guarantee_4_counts_are_exact_after_crashes(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(assert_survives(case));
    }
}
