//! A PostgreSQL server, from Debian's package, on a free port. `tests/run.sh` installs it.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dicom_export::sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use dicom_export::sqlx::{Connection, PgConnection, PgPool};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::port::Port;

/// The database user.
const USER: &str = "dicom";

/// A server with an empty database. It ends with this value, and at the latest with the test process.
pub(crate) struct Postgres {
    server: Option<Daemon>,
    port: Port,
    folder: TempDir,
}

impl Postgres {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        // The data belongs to another user if the tests run as root.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let data = folder.path().join("data");
        let mut initdb = command("initdb");
        initdb.args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "--username", USER]);
        let output = initdb.arg("--pgdata").arg(&data).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut server = Self { server: None, port: Port::reserve(), folder };
        server.restart().await;
        server
    }

    /// Starts the server again, on the same port and with the same data.
    pub(crate) async fn restart(&mut self) {
        assert!(self.server.is_none(), "the server is running");
        let mut postgres = command("postgres");
        postgres.arg("-D").arg(self.folder.path().join("data")).args(["-p", &self.port.number().to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            "unix_socket_directories=",
            // A test stops the server, never the machine.
            "fsync=off",
            "full_page_writes=off",
            "max_connections=100",
        ] {
            postgres.args(["-c", setting]);
        }
        let arguments: Vec<&OsStr> = postgres.get_args().collect();
        let log = self.folder.path().join("log");
        self.server = Some(Daemon::start(Path::new(postgres.get_program()), arguments, &[], &log));
        while PgConnection::connect_with(&self.options()).await.is_err() {
            assert!(!self.daemon().has_ended(), "the server ended:\n{}", self.daemon().output());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// Stops the server as a crash would: connections end at once, and committed changes stay.
    pub(crate) fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.signal("-QUIT");
            while !server.has_ended() {
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        }
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.server.as_ref().expect("the server is running")
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/postgres", self.port.number())
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.url().parse().unwrap()
    }

    pub(crate) async fn pool(&self) -> PgPool {
        PgPoolOptions::new().max_connections(8).connect_with(self.options()).await.unwrap()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        // Its files belong to another user if the tests run as root, which may delete them.
    }
}

/// A program of the newest installed version. PostgreSQL refuses to run as root, so root runs it as the package's user.
fn command(program: &str) -> Command {
    let mut versions: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect();
    versions.sort_by_key(|path| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()));
    let version = versions.last().expect("PostgreSQL is not installed: run tests/run.sh");
    let program = version.join("bin").join(program);
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    if !is_root {
        return Command::new(program);
    }
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program);
    command
}
