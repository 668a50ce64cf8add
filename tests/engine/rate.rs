//! Limits on bytes per second.

use std::time::Duration;

use bytes::Bytes;
use dicom_export::testing::{GeneratedSource, NullSink};
use dicom_export::{
    BlobSink, Concurrency, ExportEngine, ExportEngineBuilder, ExportSource, MemorySource, NewOperation,
    OperationId, OperationStatus,
};
use tokio::time::{Instant, sleep};

use crate::support::instance;

const MINUTE: Duration = Duration::from_secs(60);

async fn start(engine: &ExportEngine, sink: impl BlobSink) -> OperationId {
    engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap().operation_id
}

/// The bytes that operations transfer within a minute.
async fn bytes_in_a_minute(engine: &ExportEngine, ids: &[OperationId]) -> u64 {
    let bytes = || ids.iter().map(|id| engine.progress(*id).unwrap().borrow().bytes).sum::<u64>();
    let before = bytes();
    sleep(MINUTE).await;
    bytes() - before
}

fn assert_near(bytes: u64, expected: u64) {
    let ratio = bytes as f64 / expected as f64;
    assert!((0.95..=1.05).contains(&ratio), "{bytes} bytes instead of {expected}");
}

fn generated(size: u64) -> ExportEngineBuilder {
    ExportEngine::builder(GeneratedSource::new(1 << 40, size)).concurrency(Concurrency::Fixed(4))
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_held_over_a_minute_and_can_be_changed() {
    for size in [20_000, 300_000] {
        let engine = generated(size).bytes_per_second(10_000_000).build().unwrap();
        let ids = [start(&engine, NullSink::new()).await, start(&engine, NullSink::new()).await];
        sleep(MINUTE).await;
        assert_near(bytes_in_a_minute(&engine, &ids).await, 600_000_000);
        engine.set_bytes_per_second(1_000_000);
        assert_near(bytes_in_a_minute(&engine, &ids).await, 60_000_000);
        engine.set_bytes_per_second(20_000_000);
        assert_near(bytes_in_a_minute(&engine, &ids).await, 1_200_000_000);
        for id in ids {
            engine.cancel(id).await.unwrap();
            assert_eq!(engine.wait(id).await.unwrap().status, OperationStatus::Canceled);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn each_account_has_its_own_rate_which_can_be_changed() {
    let engine = generated(100_000).bytes_per_second_per_account(1_000_000).build().unwrap();
    let [first, second] = ["a", "b"].map(NullSink::with_location);
    let ids = [start(&engine, first).await, start(&engine, second).await];
    sleep(MINUTE).await;
    for id in ids {
        assert_near(bytes_in_a_minute(&engine, &[id]).await, 60_000_000);
    }
    engine.set_bytes_per_second_per_account(3_000_000);
    let later = start(&engine, NullSink::with_location("c")).await;
    for id in [ids[0], ids[1], later] {
        assert_near(bytes_in_a_minute(&engine, &[id]).await, 180_000_000);
        engine.cancel(id).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_is_removed_delays_nothing_more() {
    let source: MemorySource = [(instance(1, 1, 1), Bytes::from(vec![0; 1_000_000]))].into_iter().collect();
    let engine = ExportEngine::builder(source).bytes_per_second(1).build().unwrap();
    let id = start(&engine, NullSink::new()).await;
    sleep(MINUTE).await;
    assert_eq!(engine.progress(id).unwrap().borrow().exported, 0);
    let began = Instant::now();
    engine.set_bytes_per_second(0);
    assert_eq!(engine.wait(id).await.unwrap().results.exported, 1);
    assert!(began.elapsed() < MINUTE);
}
