//! Exports that end early, and workers that stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom_export::{ErrorKind, ExportService, ExportSource, NewOperation, OperationStatus, RetryPolicy};

use crate::archive::Archive;
use crate::azurite::Azurite;
use crate::cluster::{Cluster, emulator, ended, until};
use crate::proxy::{Mode, Proxy};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn a_canceled_export_ends_within_seconds_while_its_destination_does_not_respond() {
    let archive = Archive::new(2_000);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let cluster = Cluster::new(archive.root(), 2, &["--batch-size", "50"]).await;
    let client = cluster.client();
    proxy.forward_first(format!("/{}/", archive.first_study()), 50);
    proxy.set_mode(Mode::HoldAfter(1_200));
    let new = NewOperation::new(ExportSource::Everything, emulator(&container, proxy.port()));
    let id = client.start(new).await.unwrap().operation_id;
    proxy.wait_for_requests(1_200).await;
    cluster.wait_until_held(40).await;

    let began = Instant::now();
    client.cancel(id).await.unwrap();
    client
        .cancel(id)
        .await
        .or_else(|error| (error.kind() == ErrorKind::Conflict).then_some(()).ok_or(error))
        .unwrap();
    let ended = ended(&cluster, &client, id).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!((ended.status, &ended.error), (OperationStatus::Canceled, &None));
    // Batches count up to the first one that has not finished.
    let finished = cluster.all_finished();
    let counted = (0..).take_while(|number| finished.contains(number)).count() as u64;
    assert!(counted > 0);
    assert_eq!(ended.results.exported, 50 * counted, "finished: {finished:?}");
    // No worker exports it any more: no new requests reach the destination.
    let requests = proxy.requests().len();
    assert_eq!(client.cancel(id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(client.resume(id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(client.operation(id).await.unwrap().operation, ended);
    assert_eq!(proxy.requests().len(), requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_3_a_batch_that_keeps_failing_fails_the_export_which_can_be_resumed() {
    let archive = Archive::new(1_000);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let cluster = Cluster::new(archive.root(), 0, &[]).await;
    let engine = || cluster.engine().batch_size(50).retry(RetryPolicy::with_budget(Duration::from_secs(1)));
    let _worker = cluster.inner_worker(engine()).await;
    let client = cluster.client();
    let new = NewOperation::new(ExportSource::Everything, emulator(&container, proxy.port()));
    proxy.set_mode(Mode::HoldAfter(300));
    let id = client.start(new).await.unwrap().operation_id;
    proxy.wait_for_requests(301).await;
    proxy.set_mode(Mode::Disconnect);
    let failed = ended(&cluster, &client, id).await;
    assert_eq!(failed.status, OperationStatus::Failed);
    let error = failed.error.unwrap();
    assert_eq!((&*error.code, &*error.message), ("unavailable", "the destination cannot be reached"));
    assert!(failed.results.exported < archive.len());

    proxy.set_mode(Mode::Forward);
    let before = proxy.requests().len();
    let resumed = client.resume(id, None).await.unwrap();
    assert_eq!((resumed.status, resumed.error), (OperationStatus::Running, None));
    assert_eq!(client.resume(id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
    let ended = ended(&cluster, &client, id).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len(), 0));
    archive.assert_exported(&container, &id.to_string()).await;
    // Counted instances are not uploaded again.
    let puts = proxy.requests()[before..].iter().filter(|request| request.ends_with(".dcm")).count() as u64;
    assert_eq!(puts, archive.len() - failed.results.exported);
    let sql = "select target_service_key as key from sys_invocation where target_service_name = 'Export'";
    let keys = cluster.restate.query(sql).await;
    let mut keys: Vec<_> = keys.iter().map(|row| row["key"].as_str().unwrap().to_owned()).collect();
    keys.sort();
    assert_eq!(keys, [id.to_string(), format!("{id}.1")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn a_worker_that_receives_sigterm_finishes_its_batches_and_no_other_worker_repeats_them() {
    let archive = Archive::new(2_000);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::start(azurite.port()).await;
    let cluster = Cluster::new(archive.root(), 2, &["--batch-size", "50"]).await;
    let client = cluster.client();
    proxy.forward_first(format!("/{}/", archive.first_study()), 50);
    proxy.set_mode(Mode::HoldAfter(500));
    let new = NewOperation::new(ExportSource::Everything, emulator(&container, proxy.port()));
    let id = client.start(new).await.unwrap().operation_id;
    proxy.wait_for_requests(500).await;
    cluster.wait_until_held(40).await;
    let stopping = cluster.workers[0].as_ref().unwrap();
    stopping.signal("-TERM");
    proxy.set_mode(Mode::Forward);
    until("the worker has ended", || stopping.has_ended()).await;
    let ended = ended(&cluster, &client, id).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len(), 0));
    let mut finished = cluster.all_finished();
    finished.sort_unstable();
    assert_eq!(finished, (0..40).collect::<Vec<_>>());
    archive.assert_exported(&container, &id.to_string()).await;
}

/// A workflow that was killed through Restate's admin API loses only the batches in flight.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn an_export_whose_workflow_was_killed_can_be_resumed_or_canceled() {
    let archive = Archive::new(200);
    let azurite = Azurite::shared();
    let proxy = Proxy::start(azurite.port()).await;
    let cluster = Cluster::new(archive.root(), 1, &["--batch-size", "50"]).await;
    let client = cluster.client();
    for resumes in [true, false] {
        let container = azurite.container().await;
        proxy.set_mode(Mode::HoldAfter(proxy.requests().len() + 60));
        let destination = emulator(&container, proxy.port());
        let started = client.start(NewOperation::new(ExportSource::Everything, destination)).await.unwrap();
        let id = started.operation_id;
        let client = Arc::clone(&client);
        let sql = format!(
            "select id from sys_invocation where target_service_key = '{id}' \
                           and target_service_name = 'Export'"
        );
        // The workflow is started asynchronously.
        let invocation = cluster.restate.wait_for_row(&sql).await["id"].as_str().unwrap().to_owned();
        cluster.restate.kill_invocation(&invocation).await;
        proxy.set_mode(Mode::Forward);
        if resumes {
            client.resume(id, None).await.unwrap();
            let ended = ended(&cluster, &client, id).await;
            assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
            assert_eq!(ended.results.exported, archive.len());
            archive.assert_exported(&container, &id.to_string()).await;
        } else {
            client.cancel(id).await.unwrap();
            assert_eq!(client.operation(id).await.unwrap().operation.status, OperationStatus::Canceled);
        }
    }
}
