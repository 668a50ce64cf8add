//! Lists and exports a folder of small files: the time to the first page, to the first exported instance, of everything, and
//! of a resumption half way, and the peak memory; without an index, while building one, and with one. Each measurement is a
//! process of its own. The files, of 3 kB each, are created in the target folder and kept. Reads `/proc`: Linux only.
//!
//! `cargo bench --all-features --bench folder [-- FILES]`, by default a million files, which take 4 GB.
#![allow(missing_docs, reason = "a program")]

mod measure;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::{LogKey, PutResult};
use dicom_export::source::{Cursor, ListRequest, Page, Scope};
use dicom_export::testing::{NullSink, fixtures};
use dicom_export::{
    BlobPath, BlobSink, Content, DirectorySource, ExportEngine, ExportSource, InstanceSource, NewOperation,
    OperationStatus, Result, UploadContext,
};

use crate::measure::peak_mebibytes;

const PAGE_SIZE: usize = 500;

const MEASUREMENTS: [&str; 4] = ["first page", "everything", "resume", "export"];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match &arguments[..] {
        [measurement, folder, index] => runtime.block_on(measure(measurement, folder, index)),
        [] => compare(1_000_000),
        [files] => compare(files.parse().expect("a number of files")),
        _ => panic!("usage: folder [FILES]"),
    }
}

/// Creates the files, unless an earlier run did, and measures in one process after the other.
fn compare(files: u32) {
    let program = std::env::current_exe().unwrap();
    let folder = program.ancestors().nth(3).unwrap().join(format!("folder-bench/{files}"));
    create(&folder, files);
    let index = folder.with_extension("index");
    let cursor = folder.with_extension("cursor");
    println!("| measurement | index | s | peak MiB |\n| --- | --- | --- | --- |");
    for (name, index) in [("none", Path::new("")), ("built", &index), ("used", &index)] {
        if name == "built" {
            _ = std::fs::remove_file(index);
        }
        // The index is built once, by the listing of everything.
        for measurement in MEASUREMENTS.iter().filter(|one| name != "built" || **one == "everything") {
            let output = Command::new(&program).arg(measurement).arg(&folder).arg(index).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            print!("| {measurement} | {name} | {}", String::from_utf8_lossy(&output.stdout));
        }
    }
    _ = std::fs::remove_file(cursor);
}

fn create(folder: &Path, files: u32) {
    let complete = folder.with_extension("complete");
    if complete.exists() {
        return;
    }
    std::fs::create_dir_all(folder).unwrap();
    for n in 0..files {
        let file = fixtures::ct_slice(1 + n / 1000, 1 + n / 100 % 10, n);
        std::fs::write(folder.join(format!("{n:08}.dcm")), file).unwrap();
    }
    std::fs::write(complete, "").unwrap();
}

fn source(folder: &Path, index: &str) -> DirectorySource {
    let source = DirectorySource::open(folder).unwrap();
    if index.is_empty() { source } else { source.with_index(index).unwrap() }
}

async fn page(source: &DirectorySource, after: Option<&Cursor>) -> Page {
    source.list(ListRequest::new(Scope::Everything, after, PAGE_SIZE)).await.unwrap()
}

async fn measure(measurement: &str, folder: &str, index: &str) {
    let folder = PathBuf::from(folder);
    let cursor = folder.with_extension("cursor");
    let started = Instant::now();
    let source = source(&folder, index);
    let seconds = match measurement {
        "first page" => {
            page(&source, None).await;
            started.elapsed()
        }
        "everything" => {
            let (mut pages, mut after) = (Vec::new(), None);
            loop {
                after = page(&source, after.as_ref()).await.next;
                let Some(next) = &after else { break };
                pages.push(next.clone());
            }
            let elapsed = started.elapsed();
            std::fs::write(cursor, pages[pages.len() / 2].as_str()).unwrap();
            elapsed
        }
        "resume" => {
            let after = Cursor::new(std::fs::read_to_string(cursor).unwrap());
            page(&source, Some(&after)).await;
            started.elapsed()
        }
        "export" => {
            let sink = FirstPut::default();
            let first = Arc::clone(&sink.first);
            let engine = ExportEngine::builder(source).build().unwrap();
            let export = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
            let ended = engine.wait(export.operation_id).await.unwrap();
            assert_eq!(ended.status, OperationStatus::Completed);
            let first = first.get().unwrap().duration_since(started).as_secs_f64();
            print!("first instance {first:.2}, all ");
            started.elapsed()
        }
        other => panic!("unknown measurement {other}"),
    };
    println!("{:.2} | {:.0} |", seconds.as_secs_f64(), peak_mebibytes());
}

/// Discards instances, and records when the first one arrives.
#[derive(Default)]
struct FirstPut {
    inner: NullSink,
    first: Arc<OnceLock<Instant>>,
}

#[async_trait]
impl BlobSink for FirstPut {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.inner.prepare(log).await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        self.first.get_or_init(Instant::now);
        self.inner.put(path, content, upload).await
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.inner.append(log, key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        self.inner.finish(log).await
    }

    fn url(&self, path: &BlobPath) -> String {
        self.inner.url(path)
    }

    fn location(&self) -> String {
        self.inner.location()
    }
}
