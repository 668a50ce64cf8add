//! Measures the peak memory of an export with the default memory budget.
//!
//! `cargo run --release --example memory` exports one instance of 2 GiB, then 200,000 of 20 kB, and fails if either export
//! takes 96 MiB or more. The instances are generated while they are read. The destination is a server in a
//! separate process that discards them. Each export is a separate process too. Peaks are read from `/proc`: Linux only.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::source::{Cursor, Instance, ListRequest, Page};
use dicom_export::{
    Content, ExportDestination, ExportEngine, ExportSource, InstanceIdentifier, InstanceSource, NewOperation,
    OperationStatus,
};
use futures::stream;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The limit for a process, with the default memory budget of 64 MiB.
const LIMIT: u64 = 96 << 20;

/// The instances of one export.
struct Case {
    name: &'static str,
    count: u64,
    size: u64,
    chunk: usize,
}

const CASES: [Case; 2] = [
    Case { name: "one instance of 2 GiB", count: 1, size: 2 << 30, chunk: 256 << 10 },
    Case { name: "200,000 instances of 20 kB", count: 200_000, size: 20_000, chunk: 20_000 },
];

fn main() -> Outcome<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => measure_all(),
        ["serve"] => serve().map(|()| ExitCode::SUCCESS),
        ["export", case, address] => {
            let case = CASES.get(case.parse::<usize>()?).ok_or("no such case")?;
            let runtime = tokio::runtime::Runtime::new()?;
            runtime.block_on(export(case, address)).map(|()| ExitCode::SUCCESS)
        }
        _ => Err("usage: memory".into()),
    }
}

fn measure_all() -> Outcome<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for (number, case) in CASES.iter().enumerate() {
        let server = Subprocess::start(&["serve"])?;
        let export = Subprocess::start(&["export", &number.to_string(), &server.output])?;
        let peak: u64 = export.output.parse()?;
        let within = if peak < LIMIT { "within" } else { "OVER" };
        println!(
            "{}: {:.1} s, peak {}, {within} {}",
            case.name,
            export.duration.as_secs_f64(),
            mib(peak),
            mib(LIMIT)
        );
        if peak >= LIMIT {
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// A process of this program, and the line that it printed.
struct Subprocess {
    process: Child,
    output: String,
    duration: Duration,
}

impl Subprocess {
    fn start(arguments: &[&str]) -> Outcome<Self> {
        let began = Instant::now();
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let read = process.stdout.take().map(|out| BufReader::new(out).read_line(&mut line)).transpose();
        let subprocess = Self { process, output: line.trim().to_owned(), duration: began.elapsed() };
        if read?.unwrap_or_default() == 0 {
            return Err(format!("{arguments:?} failed").into());
        }
        Ok(subprocess)
    }
}

impl Drop for Subprocess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn export(case: &Case, address: &str) -> Outcome {
    let source = Generated { case: Case { ..*case }, chunk: Bytes::from(vec![7; case.chunk]) };
    let provider = AzureBlobProvider::new(AzureBlobPolicy::development());
    let engine =
        ExportEngine::builder(source).destination(ExportDestination::AZURE_BLOB, provider).build()?;
    // The server does not check the SAS.
    let uri = format!("http://{address}/devstoreaccount1/container?sv=2022-11-02&sp=w&sig=bm9uZQ%3D%3D");
    let new = NewOperation::new(ExportSource::Everything, ExportDestination::azure_blob(&uri));
    let started = engine.start(new).await?;
    let ended = engine.wait(started.operation_id).await?;
    if (ended.status, ended.results.exported) != (OperationStatus::Completed, case.count) {
        return Err(serde_json::to_string(&ended)?.into());
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kib: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    writeln!(std::io::stdout(), "{}", kib * 1024)?;
    Ok(())
}

/// Instances that are generated when they are listed. Every chunk is newly allocated, as for a file.
struct Generated {
    case: Case,
    chunk: Bytes,
}

#[async_trait]
impl InstanceSource for Generated {
    async fn list(&self, request: ListRequest<'_>) -> dicom_export::Result<Page> {
        let from: u64 = request.after.map(|cursor| cursor.decode()).transpose()?.unwrap_or(0);
        let to = (from + request.limit as u64).min(self.case.count);
        let instances = (from..to).map(|number| {
            let identifier: InstanceIdentifier =
                format!("1.2/1.2.{}/1.2.3.{number}", number / 500).parse()?;
            Ok(Instance::new(identifier).with_size(self.case.size))
        });
        let instances = instances.collect::<dicom_export::Result<Vec<_>>>()?;
        Ok(if to == self.case.count {
            Page::last(instances)
        } else {
            Page::more(instances, Cursor::encode(&to)?)
        })
    }

    async fn open(&self, _: &Instance) -> dicom_export::Result<Content> {
        let (pattern, mut left) = (self.chunk.clone(), self.case.size as usize);
        let chunks = std::iter::from_fn(move || {
            let next = left.min(pattern.len());
            left -= next;
            (next > 0).then(|| Ok(Bytes::copy_from_slice(&pattern[..next])))
        });
        Ok(Content::from_stream(Some(self.case.size), stream::iter(chunks)))
    }
}

/// Reads requests and responds to each with 201 until the parent process ends.
fn serve() -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?)?;
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // Errors are ignored: clients close connections.
            std::thread::spawn(move || respond(connection));
        }
    });
    // Standard input ends with the parent process.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

fn respond(mut connection: TcpStream) -> std::io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::with_capacity(1 << 18, connection.try_clone()?);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink())?;
        connection.write_all(b"HTTP/1.1 201 Created\r\ncontent-length: 0\r\n\r\n")?;
    }
}
