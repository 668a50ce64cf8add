//! What the engine itself costs: a source that makes its pages up, a sink that drops.
//!
//! `cargo bench --bench engine`
#![allow(missing_docs, reason = "criterion makes the functions")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dicom_export::sink::{LogKey, Stored};
use dicom_export::source::{Cursor, Instance, ListRequest, Page};
use dicom_export::{
    BlobPath, BlobSink, Content, ExportEngine, ExportSource, InstanceIdentifier, InstanceSource,
    NewOperation, OperationStatus, Result, Uid, Upload,
};
use futures::StreamExt;

const CHUNK: usize = 1 << 20;

/// `count` instances of `size` bytes each, all the same bytes.
struct Generated {
    count: u64,
    size: u64,
    chunk: Bytes,
}

#[async_trait]
impl InstanceSource for Generated {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let from: u64 = request.after.map(|cursor| cursor.decode()).transpose()?.unwrap_or(0);
        let to = (from + request.limit as u64).min(self.count);
        let study = Uid::new("1.2.826.0.1.3680043.10.999.1")?;
        let mut instances = Vec::with_capacity((to - from) as usize);
        for n in from..to {
            let series = Uid::new(&format!("1.2.826.0.1.3680043.10.999.2.{}", n / 500))?;
            let sop = Uid::new(&format!("1.2.826.0.1.3680043.10.999.3.{n}"))?;
            instances.push(
                Instance::new(InstanceIdentifier::new(study.clone(), series, sop)).with_size(self.size),
            );
        }
        Ok(match to == self.count {
            true => Page::last(instances),
            false => Page::more(instances, Cursor::encode(&to)?),
        })
    }

    async fn open(&self, _: &Instance) -> Result<Content> {
        if self.size <= CHUNK as u64 {
            return Ok(Content::from_bytes(self.chunk.slice(..self.size as usize)));
        }
        let chunks = (0..self.size / CHUNK as u64).map({
            let chunk = self.chunk.clone();
            move |_| Ok(chunk.clone())
        });
        Ok(Content::from_stream(Some(self.size), futures::stream::iter(chunks)))
    }
}

struct Dropped;

#[async_trait]
impl BlobSink for Dropped {
    async fn prepare(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    async fn put(&self, _: &BlobPath, content: Content, _: &Upload) -> Result<Stored> {
        if let Some(bytes) = content.as_bytes() {
            return Ok(Stored::new(bytes.len() as u64));
        }
        let (mut size, mut chunks) = (0, content.into_stream());
        while let Some(chunk) = chunks.next().await {
            size += chunk?.len() as u64;
        }
        Ok(Stored::new(size))
    }

    async fn append(&self, _: &BlobPath, _: LogKey, _: Bytes) -> Result<()> {
        Ok(())
    }

    async fn finish(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    fn url(&self, path: &BlobPath) -> String {
        path.to_string()
    }

    fn account(&self) -> String {
        "dropped".to_owned()
    }
}

async fn export(count: u64, size: u64) {
    let source = Generated { count, size, chunk: Bytes::from(vec![7; CHUNK]) };
    let engine = ExportEngine::builder(source).build().unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(Dropped);
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, count));
}

fn engine(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut group = criterion.benchmark_group("engine");
    group.sample_size(10).measurement_time(Duration::from_secs(5));
    let count = 100_000;
    group.throughput(Throughput::Elements(count));
    group.bench_function("an instance", |bench| bench.to_async(&runtime).iter(|| export(count, 20_000)));
    group.throughput(Throughput::Bytes(1 << 30));
    group.bench_function("a stream of 1 GiB", |bench| bench.to_async(&runtime).iter(|| export(1, 1 << 30)));
    group.finish();
}

criterion_group!(benches, engine);
criterion_main!(benches);
