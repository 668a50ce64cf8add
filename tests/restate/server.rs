//! A Restate server on ports of its own. `tests/run.sh` installs it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::process::Process;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server; it ends with this value, and with the test process at the latest.
pub(crate) struct Restate {
    process: Option<Process>,
    folder: TempDir,
    pub(crate) ingress: String,
    pub(crate) admin: String,
    http: reqwest::Client,
}

impl Restate {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let [node, ingress, admin] =
            std::array::from_fn(|_| SocketAddr::from(([127, 0, 0, 1], lasting_port())));
        let configuration = format!(
            r#"
            roles = ["http-ingress", "admin", "worker", "log-server", "metadata-server"]
            auto-provision = true
            listen-mode = "tcp"
            bind-ip = "127.0.0.1"
            bind-port = {port}
            base-dir = "{base}"
            node-name = "test"
            default-num-partitions = 4
            disable-telemetry = true
            rocksdb-total-memory-size = "256.0 MiB"
            [ingress]
            bind-address = "{ingress}"
            [admin]
            bind-address = "{admin}"
            disable-web-ui = true
            [worker.invoker]
            http2-streams-per-connection-limit = 4
            "#,
            port = node.port(),
            base = folder.path().join("data").display(),
        );
        std::fs::write(folder.path().join("restate.toml"), configuration).unwrap();
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let (ingress, admin) = (format!("http://{ingress}"), format!("http://{admin}"));
        let mut restate = Self { process: None, folder, ingress, admin, http };
        restate.start().await;
        restate
    }

    /// Starts it, perhaps again, over what is there.
    pub(crate) async fn start(&mut self) {
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/node_modules/@restatedev");
        let program = packages.join(platform()).join("bin/restate-server");
        let configuration = self.folder.path().join("restate.toml");
        let arguments = ["--no-logo".as_ref(), "-c".as_ref(), configuration.as_os_str()];
        let env = [("DO_NOT_TRACK", "1"), ("RUST_LOG", "warn")];
        let start = || Process::start(&program, &arguments, &self.log(), &env);
        let mut process = start();
        let deadline = Instant::now() + PATIENCE;
        while !self.answers().await {
            assert!(Instant::now() < deadline, "Restate does not answer: {}", self.log_text());
            sleep(Duration::from_millis(50)).await;
            // Connections to the one before may hold its ports for a moment: it is started again, as a host would.
            if process.is_gone() {
                process = start();
            }
        }
        self.process = Some(process);
    }

    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    async fn answers(&self) -> bool {
        let healthy = async |url: String| {
            self.http.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
        };
        healthy(format!("{}/health", self.admin)).await
            && healthy(format!("{}/restate/health", self.ingress)).await
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub(crate) fn log_text(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    /// Makes the services at this address known.
    pub(crate) async fn register(&self, uri: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let request = self.http.post(format!("{}/deployments", self.admin)).json(&json!({ "uri": uri }));
            match request.send().await {
                Ok(answer) if answer.status().is_success() => return,
                refused => assert!(Instant::now() < deadline, "{refused:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills an invocation, and returns when it is gone.
    pub(crate) async fn kill_invocation(&self, id: &str) {
        let url = format!("{}/invocations/{id}/kill", self.admin);
        let answer = self.http.patch(url).send().await.unwrap();
        assert!(answer.status().is_success(), "{answer:?}");
        let sql = format!("select id from sys_invocation where id = '{id}' and status <> 'completed'");
        let deadline = Instant::now() + PATIENCE;
        while !self.query(&sql).await.is_empty() {
            assert!(Instant::now() < deadline, "the invocation is still there");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The rows of an SQL query of the admin API.
    pub(crate) async fn query(&self, sql: &str) -> Vec<Value> {
        let request = self.http.post(format!("{}/query", self.admin)).header("accept", "application/json");
        let answer = request.json(&json!({ "query": sql })).send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        assert!(status.is_success(), "{sql}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["rows"].as_array().unwrap().clone()
    }
}

/// A port that is free, and stays so while whoever listens there is started again: the system gives none of these to
/// outgoing connections.
pub(crate) fn lasting_port() -> u16 {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| AtomicU16::new(fastrand::u16(0..10_000)));
    loop {
        let port = 20_000 + NEXT.fetch_add(1, Relaxed) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// The package that has the server for this machine.
fn platform() -> &'static str {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "restate-server-linux-x64",
        ("linux", "aarch64") => "restate-server-linux-arm64",
        ("macos", "x86_64") => "restate-server-darwin-x64",
        ("macos", "aarch64") => "restate-server-darwin-arm64",
        other => panic!("there is no Restate server for {other:?}"),
    }
}
