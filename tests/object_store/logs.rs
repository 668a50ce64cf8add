//! Logs of several runs of an operation: no line is lost or replaced by a runner that has lost its lease.

use std::sync::Arc;

use bytes::Bytes;
use dicom_export::sink::LogKey;
use dicom_export::{BlobPath, BlobSink, ErrorKind, ObjectStoreSink, OperationId};
use futures::future::FutureExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;

use crate::hooked::{HookedStore, Request};

fn sink(store: Arc<dyn ObjectStore>) -> ObjectStoreSink {
    ObjectStoreSink::new(store, "https://bucket.example")
}

fn logs() -> [BlobPath; 2] {
    let id = OperationId::random();
    [BlobPath::error_log(id), BlobPath::manifest(id)]
}

async fn read(store: &dyn ObjectStore, log: &BlobPath) -> String {
    let bytes = store.get(&Path::from(log.as_str())).await.unwrap().bytes().await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn names(store: &dyn ObjectStore) -> Vec<String> {
    use futures::TryStreamExt;
    store.list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap()
}

/// A runner that was paused beyond its lease appended lines under the keys of its successor, and replaced the successor's
/// lines.
#[tokio::test]
async fn guarantee_4_a_runner_that_lost_its_lease_does_not_replace_the_lines_of_its_successor() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let (old, new) = (sink(Arc::clone(&store)), sink(Arc::clone(&store)));
    for log in logs() {
        old.prepare(&log).await.unwrap();
        old.append(&log, LogKey::new(3, 0), Bytes::from("run 3, batch 0\n")).await.unwrap();
        new.prepare(&log).await.unwrap();
        new.append(&log, LogKey::new(12, 1), Bytes::from("run 12, batch 1\n")).await.unwrap();
        old.append(&log, LogKey::new(3, 1), Bytes::from("run 3, batch 1\n")).await.unwrap();
        new.append(&log, LogKey::new(12, 10), Bytes::from("run 12, batch 10\n")).await.unwrap();
        new.append(&log, LogKey::new(12, 9), Bytes::from("run 12, batch 9\n")).await.unwrap();
        new.finish(&log).await.unwrap();
        let expected =
            ["run 3, batch 0", "run 3, batch 1", "run 12, batch 1", "run 12, batch 9", "run 12, batch 10"];
        assert_eq!(read(&*store, &log).await.lines().collect::<Vec<_>>(), expected);
    }
    assert!(names(&*store).await.iter().all(|name| !name.contains("parts")), "parts remain");
}

/// Two runners join the parts at once: the second one must not replace the log that the first one wrote with an older
/// one, nor fail because the first one deletes the parts.
#[tokio::test]
async fn joining_a_log_twice_at_once_loses_no_line() {
    let [log, _] = logs();
    let reached = Arc::new(Semaphore::new(0));
    for held in [Request::Put, Request::Get, Request::Delete] {
        let free = HookedStore::new(|_, _| async { Ok(()) }.boxed());
        let (gate, arrived) = (Arc::new(Semaphore::new(0)), Arc::clone(&reached));
        let (opened, path) = (Arc::clone(&gate), Path::from(log.as_str()));
        let held_store = free.with_hook(move |request, at| {
            // The log itself, or one of its parts: the first request of this kind waits.
            let waits = request == held && at.as_ref().starts_with(path.as_ref());
            let (gate, arrived) = (Arc::clone(&gate), Arc::clone(&arrived));
            async move {
                if waits {
                    arrived.add_permits(1);
                    // The permit is returned: the gate stays open.
                    drop(gate.acquire().await.unwrap());
                }
                Ok(())
            }
            .boxed()
        });
        let (slow, fast) = (sink(Arc::new(held_store)), sink(Arc::new(free.clone())));
        fast.prepare(&log).await.unwrap();
        fast.append(&log, LogKey::new(1, 0), Bytes::from("one\n")).await.unwrap();
        let (joining_log, joining) = (log.clone(), slow.clone());
        let joining = tokio::spawn(async move { joining.finish(&joining_log).await });
        reached.acquire().await.unwrap().forget();
        fast.append(&log, LogKey::new(2, 1), Bytes::from("two\n")).await.unwrap();
        fast.finish(&log).await.unwrap();
        opened.add_permits(1);
        joining.await.unwrap().unwrap();
        slow.finish(&log).await.unwrap();
        let joined = read(&*free.inner, &log).await;
        for line in ["one\n", "two\n"] {
            assert!(joined.contains(line), "a line is lost when {held:?} is late: {joined:?}");
        }
    }
}

/// Parts were named by batch only before keys had a run.
#[tokio::test]
async fn parts_without_a_run_are_joined_first() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let [log, _] = logs();
    let sink = sink(Arc::clone(&store));
    sink.prepare(&log).await.unwrap();
    sink.append(&log, LogKey::new(1, 5), Bytes::from("second\n")).await.unwrap();
    let part = Path::from(format!("{log}.parts/{:020}", 9));
    store.put(&part, Bytes::from("first\n").into()).await.unwrap();
    sink.finish(&log).await.unwrap();
    assert_eq!(read(&*store, &log).await, "first\nsecond\n");
    assert_eq!(names(&*store).await, [log.to_string()]);
}

/// Logs are joined at the end: a credential that cannot do that was found only after everything had been exported.
#[tokio::test]
async fn a_credential_that_cannot_join_logs_is_refused_at_the_start() {
    for (denied, message) in [
        (
            Request::List,
            "the destination's credential may not list objects, which completing the logs requires",
        ),
        (
            Request::Get,
            "the destination's credential may not read objects, which completing the logs requires",
        ),
        (
            Request::Delete,
            "the destination's credential may not delete objects, which completing the logs requires",
        ),
        (Request::Put, "the destination refuses the credential"),
    ] {
        let store = HookedStore::new(move |request, path| {
            let refused =
                object_store::Error::PermissionDenied { path: path.to_string(), source: "planned".into() };
            async move { if request == denied { Err(refused) } else { Ok(()) } }.boxed()
        });
        let [log, _] = logs();
        let error = sink(Arc::new(store)).prepare(&log).await.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Unauthorized, message));
    }
}
