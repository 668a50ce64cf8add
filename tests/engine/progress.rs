//! What a status document says about progress, and who makes it. Time is virtual.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dicom_export::store::{MemoryOperationStore, OperationStore};
use dicom_export::{
    ExportEngine, ExportSource, MemorySource, NewOperation, Operation, OperationId, OperationStatus, Result,
};
use tokio::sync::Semaphore;
use tokio::time::sleep;

use crate::hooked_sink::{HookedSink, SinkCall, SinkHook};
use crate::support::{archive, instance};

/// Each put sends requests, as many as the semaphore has permits, and then hangs until it has more.
#[derive(Clone)]
struct Requests(Arc<Semaphore>);

#[async_trait]
impl SinkHook for Requests {
    async fn before(&self, call: SinkCall<'_>) -> Result<()> {
        let SinkCall::Put(_, _, upload) = call else { return Ok(()) };
        while !self.0.is_closed() {
            upload
                .send_with_retry(|| async {
                    if let Ok(permit) = self.0.acquire().await {
                        permit.forget();
                    }
                    Ok(())
                })
                .await?;
        }
        Ok(())
    }
}

async fn later(engine: &ExportEngine, id: OperationId) -> Operation {
    // Longer than the interval at which the lease is renewed and the status saved.
    sleep(Duration::from_secs(10)).await;
    engine.status(id).await.unwrap()
}

/// `lastUpdatedTime` advances with each renewal of the lease, so a stuck export looked as if it were alive.
#[tokio::test(start_paused = true)]
async fn a_stuck_export_makes_no_progress_and_a_long_transfer_does() {
    let requests = Arc::new(Semaphore::new(0));
    let sink = HookedSink::with_hook(Requests(Arc::clone(&requests)));
    let source = MemorySource::new();
    source.insert(instance(1, 1, 1), vec![7; 1000]);
    let engine = ExportEngine::builder(source).runner_name("the only one").build().unwrap();
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    let id = started.operation_id;
    assert_eq!((started.last_progress_time, started.bytes), (None, 0));
    assert_eq!(started.runner.as_deref(), Some("the only one"));

    // It lists, and then hangs in the first request.
    let first = later(&engine, id).await;
    let listed = first.last_progress_time.expect("the listing is progress");
    let second = later(&engine, id).await;
    assert!(second.last_updated_time > first.last_updated_time, "the lease is renewed");
    assert_eq!(second.last_progress_time, Some(listed), "nothing was finished");

    requests.add_permits(1);
    let third = later(&engine, id).await;
    assert!(third.last_progress_time > Some(listed), "a request was finished");
    assert_eq!((third.results.exported, third.bytes), (0, 0));

    requests.close();
    let ended = engine.wait(id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported, ended.bytes), (OperationStatus::Completed, 1, 1000));
    assert!(ended.last_progress_time > third.last_progress_time);
    assert!(ended.last_progress_time <= Some(ended.last_updated_time));
}

#[tokio::test(start_paused = true)]
async fn the_runner_is_the_one_that_ran_the_operation_last() {
    let store = Arc::new(MemoryOperationStore::new());
    let builder = || ExportEngine::builder(archive(3)).operation_store(Arc::clone(&store));
    let requests = Arc::new(Semaphore::new(0));
    let sink = HookedSink::with_hook(Requests(Arc::clone(&requests)));
    let first = builder().build().unwrap();
    let new = NewOperation::new(ExportSource::Everything, sink.clone());
    let id = first.start(new).await.unwrap().operation_id;
    let name = first.status(id).await.unwrap().runner.unwrap();
    let (host, process) = name.rsplit_once(':').unwrap();
    assert!(!host.is_empty(), "{name}");
    assert_eq!(process, std::process::id().to_string());
    first.shutdown(Duration::ZERO).await;

    requests.close();
    let second = builder().runner_name("second").build().unwrap();
    second.resume(id, Some(sink.into())).await.unwrap();
    let ended = second.wait(id).await.unwrap();
    assert_eq!((ended.status, ended.runner.as_deref()), (OperationStatus::Completed, Some("second")));
    assert_eq!(store.load(id).await.unwrap().runner.as_deref(), Some("second"));
}
