//! A command-line exporter from a folder of DICOM files, a DICOMweb server or a bucket to a folder, an Azure Blob container or a
//! bucket.
//!
//! `cargo run --release --example export -- --help`
//!
//! Only the final status document is written to stdout. Exit status: 0 completed and nothing skipped, 3 completed with
//! skips, 1 failed or canceled, 2 invalid arguments or an unusable source or destination.

mod args;
mod bar;
mod gcs;
#[path = "../server/logging.rs"]
mod logging;
mod s3;
mod source;
mod state;

use std::process::ExitCode;
use std::sync::Arc;

use dicom_export::sink::DirectorySink;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::source::DirectoryReport;
use dicom_export::store::OperationFilter;
use dicom_export::{
    BlobSink, Concurrency, Error, ErrorKind, ExportDestination, ExportEngine, ExportService, NewOperation,
    Operation, OperationId, OperationStatus, RetryPolicy, Target,
};

use crate::args::{Args, Destination, Resume};
use crate::source::{Source, SourceOptions};

const FAILED: u8 = 1;
const UNUSABLE: u8 = 2;
const SKIPPED: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    // What a folder leaves out is printed at the end.
    logging::to_stderr("warn,dicom_export::source::directory::report=off");
    let args = match Args::parse() {
        Ok(Some(args)) => args,
        Ok(None) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(message) => return unusable(&message),
    };
    match export(args).await {
        Ok(code) => code,
        Err(error) => unusable(&error.report().to_string()),
    }
}

/// # Errors
/// Fails if the operation cannot be started.
async fn export(args: Args) -> dicom_export::Result<ExitCode> {
    // The same ratio as between the defaults.
    let read_ahead = args.memory.map(|budget| budget / 4);
    let options = SourceOptions {
        read_ahead,
        index: args.index.clone(),
        layout: args.layout.clone(),
        development: args.development,
    };
    let source = Source::open(&args.source, options)?;
    let engine = engine(&args, &source)?;
    let target = target(args.destination)?;
    let started = match args.resume {
        Some(resume) => engine.resume(operation_to_resume(&engine, resume).await?, Some(target)).await?,
        None => engine.start(NewOperation::new(args.export_source, target)).await?,
    };
    let id = started.operation_id;

    let canceler = engine.clone();
    tokio::spawn(async move {
        // Canceling fails if the operation has just ended.
        if tokio::signal::ctrl_c().await.is_ok() && canceler.cancel(id).await.is_ok() {
            eprintln!("canceling");
        }
    });
    if let Some(progress) = engine.progress(id).filter(|_| !args.quiet) {
        bar::show(progress).await;
    }
    let ended = engine.wait(id).await?;

    if let Source::Folder(folder) = source {
        print_report(&folder.report(), args.show_skipped);
    }
    println!("{}", serde_json::to_string(&ended).unwrap_or_default());
    Ok(exit_code(&ended))
}

/// Prints what the source left out. With `--show-skipped` it prints the paths of skipped files, which can contain names.
fn print_report(report: &DirectoryReport, show_skipped: bool) {
    if !report.is_empty() {
        eprintln!(
            "left out: {} duplicates, {} DICOMDIR files; skipped: {} DICOM files without valid UIDs, {} unreadable \
             files, {} unreadable folders",
            report.duplicates,
            report.directories,
            report.unidentified,
            report.unreadable_files,
            report.unreadable_folders,
        );
    }
    if show_skipped {
        for skipped in &report.skipped {
            eprintln!("skipped: {}: {}", skipped.path.display(), skipped.error);
        }
    }
}

fn engine(args: &Args, source: &Source) -> dicom_export::Result<ExportEngine> {
    let mut policy = match args.development {
        true => AzureBlobPolicy::development(),
        false => AzureBlobPolicy::new(),
    };
    if let Some(pem) = &args.root_certificate {
        policy = policy.with_root_certificate(pem.as_slice());
    }
    let mut builder = ExportEngine::builder(source.instances())
        .destination(ExportDestination::AZURE_BLOB, AzureBlobProvider::new(policy))
        .checksums(args.checksums)
        .identity_check(args.identity)
        .manifest(args.manifest);
    builder = gcs::register(builder);
    builder = s3::register(builder, args.development, args.root_certificate.as_deref())?;
    if let Some(transfers) = args.concurrency {
        builder = builder.concurrency(Concurrency::Fixed(transfers));
    }
    if let Some(bytes) = args.memory {
        builder = builder.memory_budget(bytes);
    }
    if let Some(budget) = args.retry_for {
        builder = builder.retry(RetryPolicy::with_budget(budget));
    }
    if let Some(path) = &args.state {
        builder = builder.operation_store(state::open(path)?);
    }
    builder.build()
}

async fn operation_to_resume(engine: &ExportEngine, resume: Resume) -> dicom_export::Result<OperationId> {
    match resume {
        Resume::Operation(id) => Ok(id),
        Resume::Last => match engine.list(&OperationFilter::new(1)).await?.first() {
            Some(last) => Ok(last.operation.operation_id),
            None => Err(Error::new(ErrorKind::NotFound, "the state file contains no operation")),
        },
    }
}

fn target(destination: Destination) -> dicom_export::Result<Target> {
    Ok(match destination {
        Destination::Folder(path) => {
            let sink: Arc<dyn BlobSink> = Arc::new(DirectorySink::open(path)?);
            sink.into()
        }
        Destination::Gcs(url) => gcs::destination(&url)?.into(),
        Destination::S3(url) => s3::destination(&url)?.into(),
        Destination::Azure(destination) => destination.into(),
    })
}

fn exit_code(ended: &Operation) -> ExitCode {
    match ended.status {
        OperationStatus::Completed if ended.results.skipped == 0 => ExitCode::SUCCESS,
        OperationStatus::Completed => SKIPPED.into(),
        _ => {
            if let Some(error) = &ended.error {
                eprintln!("error: {}", error.message);
            }
            FAILED.into()
        }
    }
}

fn unusable(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    UNUSABLE.into()
}
