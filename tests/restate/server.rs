//! A Restate server on free ports. `tests/run.sh` installs it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::daemon::Daemon;
use crate::port::Port;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A running server. It ends with this value, and at the latest with the test process.
pub(crate) struct Restate {
    process: Option<Daemon>,
    folder: TempDir,
    _ports: [Port; 3],
    pub(crate) ingress: String,
    pub(crate) admin: String,
    http: reqwest::Client,
}

impl Restate {
    pub(crate) async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let ports = [Port::reserve(), Port::reserve(), Port::reserve()];
        let [node, ingress, admin] = ports.each_ref().map(Port::number);
        let configuration = format!(
            r#"
            roles = ["http-ingress", "admin", "worker", "log-server", "metadata-server"]
            auto-provision = true
            listen-mode = "tcp"
            bind-ip = "127.0.0.1"
            bind-port = {node}
            base-dir = "{base}"
            node-name = "test"
            default-num-partitions = 4
            disable-telemetry = true
            rocksdb-total-memory-size = "256.0 MiB"
            [ingress]
            bind-address = "127.0.0.1:{ingress}"
            [admin]
            bind-address = "127.0.0.1:{admin}"
            disable-web-ui = true
            [worker.invoker]
            http2-streams-per-connection-limit = 4
            "#,
            base = folder.path().join("data").display(),
        );
        std::fs::write(folder.path().join("restate.toml"), configuration).unwrap();
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        let [ingress, admin] = [ingress, admin].map(|port| format!("http://127.0.0.1:{port}"));
        let mut restate = Self { process: None, folder, _ports: ports, ingress, admin, http };
        restate.start().await;
        restate
    }

    /// Starts the server with its existing data, also after it was killed.
    pub(crate) async fn start(&mut self) {
        let packages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/node_modules/@restatedev");
        let program = packages.join(platform()).join("bin/restate-server");
        let configuration = self.folder.path().join("restate.toml");
        let arguments = ["--no-logo".as_ref(), "-c".as_ref(), configuration.as_os_str()];
        let env = [("DO_NOT_TRACK", "1"), ("RUST_LOG", "warn")];
        let start = || Daemon::start(&program, arguments, &env, &self.log());
        let mut process = start();
        let deadline = Instant::now() + TIMEOUT;
        while !self.is_healthy().await {
            assert!(Instant::now() < deadline, "Restate is not healthy: {}", self.log_text());
            sleep(Duration::from_millis(50)).await;
            // Connections to the previous process may occupy its ports for a moment, and then the server ends.
            if process.has_ended() {
                process = start();
            }
        }
        self.process = Some(process);
    }

    pub(crate) fn kill(&mut self) {
        self.process.take().unwrap().kill();
    }

    async fn is_healthy(&self) -> bool {
        let healthy = async |url: String| {
            self.http.get(url).send().await.is_ok_and(|response| response.status().is_success())
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

    /// Registers the services at this address.
    pub(crate) async fn register(&self, uri: &str) {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let request = self.http.post(format!("{}/deployments", self.admin)).json(&json!({ "uri": uri }));
            match request.send().await {
                Ok(response) if response.status().is_success() => return,
                failure => assert!(Instant::now() < deadline, "{failure:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Kills an invocation, and returns when it has ended.
    pub(crate) async fn kill_invocation(&self, id: &str) {
        let url = format!("{}/invocations/{id}/kill", self.admin);
        let response = self.http.patch(url).send().await.unwrap();
        assert!(response.status().is_success(), "{response:?}");
        let sql = format!("select id from sys_invocation where id = '{id}' and status <> 'completed'");
        let deadline = Instant::now() + TIMEOUT;
        while !self.query(&sql).await.is_empty() {
            assert!(Instant::now() < deadline, "the invocation has not ended");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The first row of an SQL query of the admin API, as soon as there is one.
    pub(crate) async fn wait_for_row(&self, sql: &str) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(row) = self.query(sql).await.into_iter().next() {
                return row;
            }
            assert!(Instant::now() < deadline, "no row: {sql}");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The rows of an SQL query of the admin API.
    pub(crate) async fn query(&self, sql: &str) -> Vec<Value> {
        let request = self.http.post(format!("{}/query", self.admin)).header("accept", "application/json");
        let response = request.json(&json!({ "query": sql })).send().await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        assert!(status.is_success(), "{sql}: {text}");
        let rows: Value = serde_json::from_str(&text).unwrap();
        rows["rows"].as_array().unwrap().clone()
    }
}

/// The npm package with the server for this platform.
fn platform() -> &'static str {
    match (std::env::consts::OS, std::env::consts::ARCH) {
        ("linux", "x86_64") => "restate-server-linux-x64",
        ("linux", "aarch64") => "restate-server-linux-arm64",
        ("macos", "x86_64") => "restate-server-darwin-x64",
        ("macos", "aarch64") => "restate-server-darwin-arm64",
        other => panic!("there is no Restate server for {other:?}"),
    }
}
