//! CPU time and memory of the engine alone for up to ten million instances, each number in a separate process. Peaks and CPU
//! times are read from `/proc`: Linux only.
//!
//! `cargo bench --features testing --bench scale`
#![allow(missing_docs, reason = "a program")]

mod measure;

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use dicom_export::testing::{GeneratedSource, NullSink};
use dicom_export::{BlobSink, ExportEngine, ExportSource, NewOperation, OperationStatus};

use crate::measure::{cpu_seconds, peak_mebibytes};

const COUNTS: [u64; 3] = [100_000, 1_000_000, 10_000_000];

fn main() {
    match std::env::args().nth(1).and_then(|count| count.parse().ok()) {
        Some(count) => measure(count),
        None => {
            println!(
                "| instances | wall s | CPU s | CPU µs per instance | peak MiB |\n| --- | --- | --- | --- | --- |"
            );
            for count in COUNTS {
                let program = std::env::current_exe().unwrap();
                assert!(Command::new(program).arg(count.to_string()).status().unwrap().success());
            }
        }
    }
}

fn measure(count: u64) {
    let started = Instant::now();
    tokio::runtime::Runtime::new().unwrap().block_on(export(count));
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds());
    let each = cpu * 1e6 / count as f64;
    println!("| {count} | {wall:.2} | {cpu:.2} | {each:.2} | {:.1} |", peak_mebibytes());
}

async fn export(count: u64) {
    let engine = ExportEngine::builder(GeneratedSource::new(count, 20_000)).build().unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(NullSink::new());
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, count));
}
