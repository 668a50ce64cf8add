//! The cost of the engine alone: a source that generates its instances and a sink that discards them, on one thread, so that
//! the time is CPU time.
//!
//! `cargo bench --features testing --bench engine`
#![allow(missing_docs, reason = "criterion generates the functions")]

use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dicom_export::testing::{GeneratedSource, NullSink};
use dicom_export::{BlobSink, ExportEngine, ExportSource, NewOperation, OperationStatus};

async fn export(count: u64, size: u64) {
    let engine = ExportEngine::builder(GeneratedSource::new(count, size)).build().unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(NullSink::new());
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, count));
}

fn engine(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    let count = 100_000;
    group.throughput(Throughput::Elements(count));
    group.bench_function("instance", |bench| bench.to_async(&runtime).iter(|| export(count, 20_000)));
    group.throughput(Throughput::Bytes(1 << 30));
    group.bench_function("a stream of 1 GiB", |bench| bench.to_async(&runtime).iter(|| export(1, 1 << 30)));
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);
