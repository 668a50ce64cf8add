//! The processes: a destination that discards the data, a Restate server, and workers.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::{Plan, Result};

/// The number of attempts to reach a server, 50 ms apart.
const MAX_ATTEMPTS: u32 = 600;

/// A process that prints its address on its first line, and ends with this value.
pub struct Subprocess {
    pub address: SocketAddr,
    _process: Child,
}

impl Subprocess {
    async fn start(mut command: Command) -> Result<Self> {
        let mut process = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line).await?;
        Ok(Self { address: line.trim().parse()?, _process: process })
    }

    pub async fn nullblob(program: &Path) -> Result<Self> {
        let mut command = Command::new(program);
        command.arg("127.0.0.1:0");
        Self::start(command).await
    }

    pub async fn worker(plan: &Plan, ingress: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", "--restate", ingress]);
        command.args([
            "--instances",
            &plan.instances.to_string(),
            "--batch-size",
            &plan.batch_size.to_string(),
        ]);
        Self::start(command).await
    }
}

/// A Restate server over an empty folder.
pub struct Restate {
    pub ingress: String,
    pub admin: String,
    http: reqwest::Client,
    _process: Child,
    _folder: TempDir,
}

impl Restate {
    pub async fn start(program: &Path) -> Result<Self> {
        let folder = TempDir::new()?;
        let mut listeners = Vec::new();
        for _ in 0..3 {
            listeners.push(TcpListener::bind("127.0.0.1:0")?);
        }
        let ports = listeners.iter().map(TcpListener::local_addr).collect::<std::io::Result<Vec<_>>>()?;
        let [node, ingress, admin] = ports[..] else { return Err("no ports".into()) };
        drop(listeners);
        let configuration = format!(
            r#"
            roles = ["http-ingress", "admin", "worker", "log-server", "metadata-server"]
            auto-provision = true
            listen-mode = "tcp"
            bind-ip = "127.0.0.1"
            bind-port = {port}
            base-dir = "{base}"
            node-name = "bench"
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
        let file = folder.path().join("restate.toml");
        std::fs::write(&file, configuration)?;
        let process = Command::new(program)
            .args(["--no-logo", "-c"])
            .arg(&file)
            .envs([("DO_NOT_TRACK", "1"), ("RUST_LOG", "error")])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (ingress, admin) = (format!("http://{ingress}"), format!("http://{admin}"));
        let restate =
            Self { ingress, admin, http: reqwest::Client::new(), _process: process, _folder: folder };
        for url in [format!("{}/health", restate.admin), format!("{}/restate/health", restate.ingress)] {
            restate.wait_until_available(|| restate.http.get(&url)).await?;
        }
        Ok(restate)
    }

    /// Registers the services at this address.
    pub async fn register(&self, services: SocketAddr) -> Result<()> {
        let (url, body) =
            (format!("{}/deployments", self.admin), json!({ "uri": format!("http://{services}/") }));
        self.wait_until_available(|| self.http.post(&url).json(&body)).await
    }

    async fn wait_until_available(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Result<()> {
        for _ in 0..MAX_ATTEMPTS {
            if request().send().await.is_ok_and(|response| response.status().is_success()) {
                return Ok(());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err("Restate is not available".into())
    }
}
