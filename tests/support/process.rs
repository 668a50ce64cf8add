//! Running the examples `export` and `verify`.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::ffi::OsStr;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinHandle;

const TIMEOUT: Duration = Duration::from_secs(180);

/// A command line.
pub(crate) struct Export(Command);

/// A running process; dropping it kills the process.
pub(crate) struct Running {
    id: u32,
    outcome: JoinHandle<Outcome>,
}

#[derive(Debug)]
pub(crate) struct Outcome {
    /// `None`: the process was ended by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The path of an example.
pub(crate) fn program(name: &str) -> PathBuf {
    // Cargo puts examples next to the folder of this test.
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("examples").join(name);
    assert!(
        program.exists(),
        "the example {name} is not built: run tests/run.sh, or cargo build --all-features --examples"
    );
    program
}

impl Export {
    pub(crate) fn of(source: impl AsRef<OsStr>) -> Self {
        Self::with(["--quiet"]).arg("--source").arg(source)
    }

    pub(crate) fn with(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::of_program("export", arguments)
    }

    /// The example `verify`.
    pub(crate) fn verify(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::of_program("verify", arguments)
    }

    fn of_program(name: &str, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let mut command = Command::new(program(name));
        command.args(arguments).env_remove("RUST_LOG");
        Self(command)
    }

    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.0.arg(argument);
        self
    }

    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.0.args(arguments);
        self
    }

    /// Sets a container of the emulator as the destination, by its URI.
    pub(crate) fn to(self, container: &str) -> Self {
        self.arg("--development").arg("--destination").arg(container)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    pub(crate) fn start(mut self) -> Running {
        let mut child =
            self.0.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let outcome = tokio::task::spawn_blocking(move || {
            let mut stderr = child.stderr.take().unwrap();
            let errors = std::thread::spawn(move || {
                let mut text = String::new();
                stderr.read_to_string(&mut text).map(|_| text)
            });
            let mut stdout = String::new();
            child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
            let stderr = errors.join().unwrap().unwrap();
            Outcome { code: child.wait().unwrap().code(), stdout, stderr }
        });
        Running { id, outcome }
    }

    pub(crate) async fn run(self) -> Outcome {
        self.start().outcome().await
    }
}

impl Running {
    pub(crate) fn signal(&self, signal: &str) {
        // The process id is not reused before the process has been waited for.
        if !self.outcome.is_finished() {
            Command::new("kill").args([signal, &self.id.to_string()]).status().unwrap();
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.outcome.is_finished()
    }

    /// Waits for something that happens while the process runs. Panics if the process ends first.
    pub(crate) async fn until<T>(&mut self, event: impl Future<Output = T>) -> T {
        tokio::select! {
            happened = tokio::time::timeout(TIMEOUT, event) => happened.expect("what is waited for does not happen"),
            outcome = &mut self.outcome => panic!("the process has ended: {:?}", outcome.unwrap()),
        }
    }

    pub(crate) async fn outcome(mut self) -> Outcome {
        match tokio::time::timeout(TIMEOUT, &mut self.outcome).await {
            Ok(outcome) => outcome.unwrap(),
            Err(_) => panic!("the process does not end"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.signal("-KILL");
    }
}

impl Outcome {
    /// The status document, which is the only line on stdout.
    pub(crate) fn document(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        let document: Value = serde_json::from_str(&self.stdout).unwrap();
        assert!(document.is_object(), "{self:?}");
        document
    }

    /// Asserts how the operation ended, and returns its status document.
    #[track_caller]
    pub(crate) fn assert_ended(&self, code: i32, status: &str) -> Value {
        assert_eq!(self.code, Some(code), "{self:?}");
        let document = self.document();
        assert_eq!(document["status"], status, "{document}");
        document
    }

    /// Asserts that the arguments, the source or the destination were rejected, and returns the message.
    #[track_caller]
    pub(crate) fn assert_rejected(&self) -> &str {
        assert_eq!((self.code, &*self.stdout), (Some(2), ""), "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap();
        assert!(line.starts_with("error: ") && !line.contains('\n'), "{self:?}");
        line
    }
}
