//! A Restate server, and worker processes behind one port.

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
use crate::process::Process;
use crate::server::{Restate, lasting_port};

const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Cluster {
    pub(crate) restate: Restate,
    source: PathBuf,
    port: u16,
    arguments: Vec<String>,
    folder: TempDir,
    pub(crate) workers: Vec<Option<Process>>,
}

impl Cluster {
    /// So many workers over a folder.
    pub(crate) async fn new(source: &Path, workers: usize, arguments: &[&str]) -> Self {
        let port = lasting_port();
        let restate = Restate::new().await;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let folder = TempDir::new().unwrap();
        let mut cluster =
            Self { restate, source: source.to_owned(), port, arguments, folder, workers: vec![] };
        for _ in 0..workers {
            cluster.add_worker();
        }
        for number in 0..workers {
            cluster.listening(number).await;
        }
        if workers > 0 {
            cluster.restate.register(&format!("http://127.0.0.1:{port}/")).await;
        }
        cluster
    }

    /// A worker in this process, made of this engine. It ends with what is given back.
    pub(crate) async fn inner_worker(&self, engine: ExportEngineBuilder) -> JoinSet<()> {
        let endpoint = restate::endpoint(engine.build().unwrap(), &self.restate.ingress).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(endpoint.serve(listener, Duration::ZERO, std::future::pending()));
        self.restate.register(&url).await;
        serving
    }

    /// One more worker; gives its number.
    pub(crate) fn add_worker(&mut self) -> usize {
        let number = self.workers.len();
        // Where cargo puts examples: beside the folder of this test.
        let test = std::env::current_exe().unwrap();
        let program = test.ancestors().nth(2).unwrap().join("examples/restate_worker");
        let listen = format!("127.0.0.1:{}", self.port);
        let mut arguments = vec!["--source".as_ref(), self.source.as_os_str()];
        let rest = ["--development", "--listen", &listen, "--restate", &self.restate.ingress];
        arguments.extend(rest.into_iter().chain(self.arguments.iter().map(String::as_str)).map(OsStr::new));
        let env = [("RUST_LOG", "warn,dicom_export=debug"), ("NO_COLOR", "1")];
        self.workers.push(Some(Process::start(&program, &arguments, &self.log(number), &env)));
        number
    }

    pub(crate) async fn listening(&self, number: usize) {
        until("the worker listens", || self.log_text(number).contains("listening on")).await;
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

    /// The batches that every worker has finished, each as often as it was.
    pub(crate) fn all_finished(&self) -> Vec<u64> {
        (0..self.workers.len()).flat_map(|number| self.batches(number, "batch done")).collect()
    }

    /// Waits until Restate knows of every batch that a worker has finished while a door is shut; gives those batches.
    pub(crate) async fn settled(&self, batches: usize) -> BTreeSet<u64> {
        let sql = "select count(*) as left from sys_invocation \
                   where target_service_name = 'ExportBatch' and status <> 'completed'";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let finished: BTreeSet<u64> = self.all_finished().into_iter().collect();
            let left = self.restate.query(sql).await[0]["left"].as_u64().unwrap() as usize;
            let again: BTreeSet<u64> = self.all_finished().into_iter().collect();
            if finished == again && !finished.is_empty() && left + finished.len() == batches {
                return finished;
            }
            if Instant::now() > deadline {
                self.say(&format!("{left} left of {batches}, {} finished", finished.len()));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The batches that a worker has finished, or begun.
    pub(crate) fn batches(&self, number: usize, what: &str) -> Vec<u64> {
        let log = self.log_text(number);
        let lines = log.lines().filter(|line| line.contains(what));
        let number = |line: &str| {
            let (_, rest) = line.split_once("number=")?;
            rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
        };
        lines.filter_map(number).collect()
    }

    pub(crate) fn finished(&self, number: usize) -> BTreeSet<u64> {
        self.batches(number, "batch done").into_iter().collect()
    }

    /// How a server's engine is made: like the workers'.
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
        let engine = engine.build().unwrap();
        Arc::new(restate::Client::new(engine, &self.restate.ingress, &self.restate.admin).unwrap())
    }

    /// Panics with what everybody said last.
    pub(crate) fn say(&self, complaint: &str) -> ! {
        for number in 0..self.workers.len() {
            let text = self.log_text(number);
            let tail: Vec<_> = text.lines().rev().take(20).collect();
            eprintln!("worker {number}:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        let text = self.restate.log_text();
        let tail: Vec<_> = text.lines().rev().take(20).collect();
        panic!("{complaint}\nRestate:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
    }
}

/// The emulator by its published key, which is no secret, through this port.
pub(crate) fn emulator(container: &Container<'_>, port: u16) -> ExportDestination {
    let string =
        format!("BlobEndpoint=http://127.0.0.1:{port}/{ACCOUNT};AccountName={ACCOUNT};AccountKey={KEY}");
    ExportDestination::azure_blob_from_connection_string(&string, container.name())
}

/// The status document, whatever becomes of the server meanwhile.
pub(crate) async fn status(client: &restate::Client, id: OperationId) -> Option<Operation> {
    match client.operation(id).await {
        Ok(record) => Some(record.operation),
        Err(error) if error.kind() == ErrorKind::Unavailable => None,
        Err(error) => panic!("{error:?}"),
    }
}

/// Waits for the end of an operation.
pub(crate) async fn ended(cluster: &Cluster, client: &restate::Client, id: OperationId) -> Operation {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match status(client, id).await {
            Some(operation) if operation.status.is_ended() => return operation,
            seen if Instant::now() > deadline => cluster.say(&format!("it does not end: {seen:?}")),
            _ => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not so: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
