//! The cost of Restate per batch, and the scaling of an export with its workers. Called by `benches/restate.sh`.
#![forbid(unsafe_code)]

mod balancer;
mod processes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::testing::GeneratedSource;
use dicom_export::{
    Concurrency, ExportDestination, ExportEngine, ExportService, ExportSource, NewOperation, OperationStatus,
    restate,
};
use tokio::time::sleep;

use crate::processes::{Restate, Subprocess};

pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// The size of an instance in bytes.
const INSTANCE_SIZE: u64 = 20_000;

/// The concurrent requests of a worker.
const REQUESTS: usize = 8;

/// The published account and key of the emulator.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// The instances of an export, and its batch size.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub instances: u64,
    pub batch_size: usize,
}

struct Settings {
    server: PathBuf,
    nullblob: PathBuf,
    rounds: usize,
    instances: u64,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    use lexopt::prelude::*;
    let (mut server, mut nullblob, mut ingress) = (PathBuf::new(), PathBuf::new(), String::new());
    let (mut rounds, mut instances, mut batch_size, mut is_worker) = (3, 6_400, 16, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("server") => server = parser.value()?.into(),
            Long("nullblob") => nullblob = parser.value()?.into(),
            Long("rounds") => rounds = parser.value()?.parse()?,
            Long("instances") => instances = parser.value()?.parse()?,
            Long("batch-size") => batch_size = parser.value()?.parse()?,
            Long("restate") => ingress = parser.value()?.string()?,
            Value(value) if value == "worker" => is_worker = true,
            _ => return Err(argument.unexpected().into()),
        }
    }
    match is_worker {
        true => work(Plan { instances, batch_size }, &ingress).await,
        false => measure(Settings { server, nullblob, rounds, instances }).await,
    }
}

fn engine(plan: Plan) -> Result<ExportEngine> {
    Ok(ExportEngine::builder(GeneratedSource::new(plan.instances, INSTANCE_SIZE))
        .destination(ExportDestination::AZURE_BLOB, AzureBlobProvider::new(AzureBlobPolicy::development()))
        .concurrency(Concurrency::Fixed(REQUESTS))
        .batch_size(plan.batch_size)
        .build()?)
}

fn destination(nullblob: SocketAddr) -> ExportDestination {
    let string = format!("BlobEndpoint=http://{nullblob}/{ACCOUNT};AccountName={ACCOUNT};AccountKey={KEY}");
    ExportDestination::azure_blob_from_connection_string(&string, "export")
}

/// Runs a worker process until it is killed.
async fn work(plan: Plan, ingress: &str) -> Result<()> {
    let endpoint = restate::endpoint(engine(plan)?.config().clone(), ingress)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    endpoint.serve(listener, Duration::ZERO, std::future::pending()).await;
    Ok(())
}

/// Measures the export in one process.
async fn locally(plan: Plan, nullblob: SocketAddr) -> Result<Duration> {
    let engine = engine(plan)?;
    let began = Instant::now();
    let id =
        engine.start(NewOperation::new(ExportSource::Everything, destination(nullblob))).await?.operation_id;
    let ended = engine.wait(id).await?;
    let took = began.elapsed();
    check(ended, plan)?;
    Ok(took)
}

/// Measures the export on this number of workers behind a balancer, with a new Restate server.
async fn on_restate(
    settings: &Settings,
    plan: Plan,
    workers: usize,
    nullblob: SocketAddr,
) -> Result<Duration> {
    let restate = Restate::start(&settings.server).await?;
    let mut processes = Vec::new();
    for _ in 0..workers {
        processes.push(Subprocess::worker(&plan, &restate.ingress).await?);
    }
    let addresses = processes.iter().map(|process| process.address).collect();
    let (balancer, _serving) = balancer::start(addresses).await?;
    restate.register(balancer).await?;
    let client = restate::Client::new(engine(plan)?.config().clone(), &restate.ingress, &restate.admin)?;
    let began = Instant::now();
    let id =
        client.start(NewOperation::new(ExportSource::Everything, destination(nullblob))).await?.operation_id;
    loop {
        let operation = client.operation(id).await?.operation;
        if operation.status.is_ended() {
            let took = began.elapsed();
            check(operation, plan)?;
            return Ok(took);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn check(ended: dicom_export::Operation, plan: Plan) -> Result<()> {
    match (ended.status, ended.results.exported) {
        (OperationStatus::Completed, exported) if exported == plan.instances => Ok(()),
        _ => Err(format!("unexpected result: {ended:?}").into()),
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

async fn measure(settings: Settings) -> Result<()> {
    let nullblob = Subprocess::nullblob(&settings.nullblob).await?;
    let http = reqwest::Client::new();
    let latency = async |milliseconds: u32| -> Result<()> {
        let url = format!("http://{}/limits?latency={milliseconds}", nullblob.address);
        http.get(url).send().await?.error_for_status()?;
        Ok(())
    };

    println!("Cost of a batch, one worker, no latency (medians of {} rounds)\n", settings.rounds);
    println!("| batch size | in one process, ms per batch | on Restate, ms per batch | difference |");
    println!("| --- | --- | --- | --- |");
    for plan in [Plan { instances: 2_000, batch_size: 1 }, Plan { instances: 51_200, batch_size: 256 }] {
        let batches = plan.instances as f64 / plan.batch_size as f64;
        let (mut local, mut distributed) = (Vec::new(), Vec::new());
        for _ in 0..settings.rounds {
            local.push(locally(plan, nullblob.address).await?.as_secs_f64() * 1e3 / batches);
            let took = on_restate(&settings, plan, 1, nullblob.address).await?;
            distributed.push(took.as_secs_f64() * 1e3 / batches);
        }
        let (local, distributed) = (median(local), median(distributed));
        println!("| {} | {local:.2} | {distributed:.2} | {:.2} |", plan.batch_size, distributed - local);
    }

    let plan = Plan { instances: settings.instances, batch_size: 16 };
    println!("\nInstances per second, {REQUESTS} concurrent requests per worker, 50 ms each ({plan:?})\n");
    println!("| workers | instances per second, by round | median | relative to one worker |");
    println!("| --- | --- | --- | --- |");
    latency(50).await?;
    let mut one = None;
    for workers in [1, 2, 4] {
        let mut rates = Vec::new();
        for _ in 0..settings.rounds {
            let took = on_restate(&settings, plan, workers, nullblob.address).await?;
            rates.push(plan.instances as f64 / took.as_secs_f64());
        }
        let each: Vec<_> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        let rate = median(rates);
        let times = rate / *one.get_or_insert(rate);
        println!("| {workers} | {} | {rate:.0} | {times:.2} |", each.join(", "));
    }
    Ok(())
}
