//! A Restate server, and worker processes that share one port.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
use dicom_export::{
    DirectorySource, ErrorKind, ExportDestination, ExportEngine, ExportEngineBuilder, ExportService,
    Operation, OperationId, restate,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::azurite::{ACCOUNT, Container, KEY};
use crate::daemon::Daemon;
use crate::port::Port;
use crate::server::Restate;

const TIMEOUT: Duration = Duration::from_secs(300);

pub(crate) struct Cluster {
    pub(crate) restate: Restate,
    source: PathBuf,
    port: Port,
    arguments: Vec<String>,
    folder: TempDir,
    /// `None`: it was killed.
    pub(crate) workers: Vec<Option<Daemon>>,
}

impl Cluster {
    /// Starts a server and `workers` workers that export this folder.
    pub(crate) async fn new(source: &Path, workers: usize, arguments: &[&str]) -> Self {
        let port = Port::reserve();
        let restate = Restate::new().await;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let folder = TempDir::new().unwrap();
        let mut cluster =
            Self { restate, source: source.to_owned(), port, arguments, folder, workers: vec![] };
        for _ in 0..workers {
            cluster.add_worker();
        }
        for number in 0..workers {
            cluster.wait_until_listening(number);
        }
        if workers > 0 {
            let url = format!("http://127.0.0.1:{}/", cluster.port.number());
            cluster.restate.register(&url).await;
        }
        cluster
    }

    /// Starts a worker in this process. It ends when the returned value is dropped.
    pub(crate) async fn inner_worker(&self, engine: ExportEngineBuilder) -> JoinSet<()> {
        let endpoint = restate::endpoint(engine.build_config().unwrap(), &self.restate.ingress).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(endpoint.serve(listener, Duration::ZERO, std::future::pending()));
        self.restate.register(&url).await;
        serving
    }

    /// Starts another worker, and returns its number.
    pub(crate) fn add_worker(&mut self) -> usize {
        let number = self.workers.len();
        // Cargo puts examples next to the folder of this test.
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("examples/restate_worker");
        let listen = format!("127.0.0.1:{}", self.port.number());
        let mut arguments = vec!["--source".as_ref(), self.source.as_os_str()];
        let rest = ["--development", "--listen", &listen, "--restate", &self.restate.ingress];
        arguments.extend(rest.into_iter().chain(self.arguments.iter().map(String::as_str)).map(OsStr::new));
        let env = [("RUST_LOG", "warn,dicom_export=debug"), ("NO_COLOR", "1")];
        self.workers.push(Some(Daemon::start(&program, arguments, &env, &self.log(number))));
        number
    }

    fn wait_until_listening(&self, number: usize) {
        self.workers[number].as_ref().unwrap().wait_for_output("listening on ");
    }

    pub(crate) fn kill_worker(&mut self, number: usize) {
        self.workers[number].take().unwrap().kill();
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("worker-{number}.log"))
    }

    pub(crate) fn log_text(&self, number: usize) -> String {
        std::fs::read_to_string(self.log(number)).unwrap_or_default()
    }

    /// The numbers of the batches that all workers have finished, with repetitions.
    pub(crate) fn all_finished(&self) -> Vec<u64> {
        (0..self.workers.len()).flat_map(|number| self.batches(number, "batch done")).collect()
    }

    /// Waits until the first batch is finished and Restate knows of all `batches` batches and of every finished one, while
    /// the proxy holds the requests of the others. Returns the finished ones.
    pub(crate) async fn wait_until_held(&self, batches: usize) -> BTreeSet<u64> {
        let sql = "select count(*) as left from sys_invocation \
                   where target_service_name = 'ExportBatch' and status <> 'completed'";
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let finished: BTreeSet<u64> = self.all_finished().into_iter().collect();
            let left = self.restate.query(sql).await[0]["left"].as_u64().unwrap() as usize;
            let again: BTreeSet<u64> = self.all_finished().into_iter().collect();
            if finished == again && finished.contains(&0) && left + finished.len() == batches {
                return finished;
            }
            if Instant::now() > deadline {
                self.fail(&format!("{left} left of {batches}, {} finished", finished.len()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The numbers of the batches in the lines of a worker's log that contain `event`.
    fn batches(&self, number: usize, event: &str) -> Vec<u64> {
        let log = self.log_text(number);
        let lines = log.lines().filter(|line| line.contains(event));
        let number = |line: &str| {
            let (_, rest) = line.split_once("number=")?;
            rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
        };
        lines.filter_map(number).collect()
    }

    pub(crate) fn finished(&self, number: usize) -> BTreeSet<u64> {
        self.batches(number, "batch done").into_iter().collect()
    }

    /// The engine of a server, with the same source and destinations as the workers.
    pub(crate) fn engine(&self) -> ExportEngineBuilder {
        ExportEngine::builder(DirectorySource::open(&self.source).unwrap()).destination(
            ExportDestination::AZURE_BLOB,
            AzureBlobProvider::new(AzureBlobPolicy::development()),
        )
    }

    pub(crate) fn client(&self) -> Arc<restate::Client> {
        self.client_of(self.engine())
    }

    pub(crate) fn client_of(&self, engine: ExportEngineBuilder) -> Arc<restate::Client> {
        let config = engine.build_config().unwrap();
        Arc::new(restate::Client::new(config, &self.restate.ingress, &self.restate.admin).unwrap())
    }

    /// Panics with the ends of all logs.
    pub(crate) fn fail(&self, message: &str) -> ! {
        for number in 0..self.workers.len() {
            let text = self.log_text(number);
            let tail: Vec<_> = text.lines().rev().take(20).collect();
            eprintln!("worker {number}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let text = self.restate.log_text();
        let tail: Vec<_> = text.lines().rev().take(20).collect();
        panic!("{message}\nRestate:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
}

/// A container of the emulator on this port, with the published key.
pub(crate) fn emulator(container: &Container<'_>, port: u16) -> ExportDestination {
    let string =
        format!("BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};AccountName={ACCOUNT};AccountKey={KEY}");
    ExportDestination::azure_blob_from_connection_string(&string, container.name())
}

/// The status document; `None` while the server is not available.
pub(crate) async fn status(client: &restate::Client, id: OperationId) -> Option<Operation> {
    match client.operation(id).await {
        Ok(record) => Some(record.operation),
        Err(error) if error.kind() == ErrorKind::Unavailable => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Waits for the end of an operation.
pub(crate) async fn ended(cluster: &Cluster, client: &restate::Client, id: OperationId) -> Operation {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match status(client, id).await {
            Some(operation) if operation.status.is_ended() => return operation,
            last if Instant::now() > deadline => {
                cluster.fail(&format!("the operation does not end: {last:?}"))
            }
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Waits until a condition is true.
pub(crate) async fn until(condition: &str, is_true: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !is_true() {
        assert!(Instant::now() < deadline, "timed out: {condition}");
        sleep(Duration::from_millis(20)).await;
    }
}
