//! Exports that end early, and workers that leave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dicom_export::{ErrorKind, ExportService, ExportSource, NewOperation, OperationStatus, RetryPolicy};

use crate::archive::Archive;
use crate::azurite::Azurite;
use crate::cluster::{Cluster, emulator, ended, until};
use crate::proxy::{Door, Proxy};

fn port(proxy: &Proxy, url: &str) -> u16 {
    reqwest::Url::parse(&proxy.through(url)).unwrap().port().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn a_canceled_export_ends_within_seconds_although_its_destination_stands_still() {
    let archive = Archive::new(2_000);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::before(azurite.port()).await;
    let cluster = Cluster::new(archive.root(), 2, &["--batch-size", "50"]).await;
    let client = cluster.client();
    proxy.set(Door::HoldAfter(1_200));
    let new =
        NewOperation::new(ExportSource::Everything, emulator(&container, port(&proxy, &container.url())));
    let id = client.start(new).await.unwrap().operation_id;
    proxy.seen(1_200).await;
    cluster.settled(40).await;

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
    // What had been finished counts, as far as everything before it was.
    assert!(ended.results.exported > 0 && ended.results.exported <= 1_200, "{ended:?}");
    // Nobody works on it any more: nothing new comes to the destination.
    let requests = proxy.requests().len();
    assert_eq!(client.cancel(id).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(client.resume(id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(client.operation(id).await.unwrap().operation, ended);
    assert_eq!(proxy.requests().len(), requests);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn guarantee_3_a_batch_that_keeps_failing_fails_the_export_which_goes_on_once_it_is_resumed() {
    let archive = Archive::new(1_000);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::before(azurite.port()).await;
    let cluster = Cluster::new(archive.root(), 0, &[]).await;
    let engine = || cluster.engine().batch_size(50).retry(RetryPolicy::with_budget(Duration::from_secs(1)));
    let _worker = cluster.inner_worker(engine()).await;
    let client = cluster.client();
    let new =
        NewOperation::new(ExportSource::Everything, emulator(&container, port(&proxy, &container.url())));
    proxy.set(Door::HoldAfter(300));
    let id = client.start(new).await.unwrap().operation_id;
    proxy.seen(301).await;
    proxy.set(Door::Shut);
    let failed = ended(&cluster, &client, id).await;
    assert_eq!(failed.status, OperationStatus::Failed);
    let error = failed.error.unwrap();
    assert_eq!((&*error.code, &*error.message), ("unavailable", "the destination cannot be reached"));
    assert!(failed.results.exported < archive.len());

    proxy.set(Door::Open);
    let before = proxy.requests().len();
    let resumed = client.resume(id, None).await.unwrap();
    assert_eq!((resumed.status, resumed.error), (OperationStatus::Running, None));
    assert_eq!(client.resume(id, None).await.unwrap_err().kind(), ErrorKind::Conflict);
    let ended = ended(&cluster, &client, id).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len(), 0));
    archive.assert_exported(&container, &id.to_string()).await;
    // What counted was not put again.
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
async fn a_worker_that_is_told_to_stop_finishes_its_batches_and_no_other_runs_them_again() {
    let archive = Archive::new(2_000);
    let azurite = Azurite::shared();
    let container = azurite.container().await;
    let proxy = Proxy::before(azurite.port()).await;
    let cluster = Cluster::new(archive.root(), 2, &["--batch-size", "50"]).await;
    let client = cluster.client();
    proxy.set(Door::HoldAfter(500));
    let new =
        NewOperation::new(ExportSource::Everything, emulator(&container, port(&proxy, &container.url())));
    let id = client.start(new).await.unwrap().operation_id;
    proxy.seen(500).await;
    cluster.settled(40).await;
    let leaving = cluster.workers[0].as_ref().unwrap();
    leaving.signal("-TERM");
    proxy.set(Door::Open);
    until("the worker has left", || leaving.is_gone()).await;
    let ended = ended(&cluster, &client, id).await;
    assert_eq!(ended.status, OperationStatus::Completed, "{ended:?}");
    assert_eq!((ended.results.exported, ended.results.skipped), (archive.len(), 0));
    let mut finished = cluster.all_finished();
    finished.sort_unstable();
    assert_eq!(finished, (0..40).collect::<Vec<_>>());
    archive.assert_exported(&container, &id.to_string()).await;
}

/// Somebody killed the workflow by Restate's admin API: nothing is lost but the batches under way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs Azurite and Restate: tests/run.sh"]
async fn an_export_whose_workflow_was_killed_is_resumed_or_canceled() {
    let archive = Archive::new(200);
    let azurite = Azurite::shared();
    let proxy = Proxy::before(azurite.port()).await;
    let cluster = Cluster::new(archive.root(), 1, &["--batch-size", "50"]).await;
    let client = cluster.client();
    for resumes in [true, false] {
        let container = azurite.container().await;
        proxy.set(Door::HoldAfter(proxy.requests().len() + 60));
        let destination = emulator(&container, port(&proxy, &container.url()));
        let started = client.start(NewOperation::new(ExportSource::Everything, destination)).await.unwrap();
        let id = started.operation_id;
        let client = Arc::clone(&client);
        let sql = format!(
            "select id from sys_invocation where target_service_key = '{id}' \
                           and target_service_name = 'Export'"
        );
        let invocation = cluster.restate.query(&sql).await[0]["id"].as_str().unwrap().to_owned();
        cluster.restate.kill_invocation(&invocation).await;
        proxy.set(Door::Open);
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
