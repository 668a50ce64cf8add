//! Server processes that end with the test, even if the test is killed.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs its arguments as a command, prints the process id, and kills the command when standard input ends. That happens
/// when the test process ends.
const SUPERVISOR: &str = r#""$@" </dev/null >&2 & trap "kill -KILL $! 2>/dev/null; wait" EXIT
trap exit HUP INT TERM; echo $!; cat >/dev/null"#;

const OUTPUT_TIMEOUT: Duration = Duration::from_secs(300);

/// A running server process.
pub(crate) struct Daemon {
    supervisor: Child,
    pid: u32,
    log: PathBuf,
}

impl Daemon {
    /// Starts a program. Its output is appended to the file `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        env: &[(&str, &str)],
        log: &Path,
    ) -> Self {
        assert!(program.exists(), "{} does not exist: run tests/run.sh", program.display());
        let output = File::options().create(true).append(true).open(log).unwrap();
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(program)
            .args(arguments)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(supervisor.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        Self { supervisor, pid: pid.trim().parse().unwrap(), log: log.to_owned() }
    }

    /// The output of the process so far, after the output of earlier processes with the same log file.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until the process has printed a line that contains `text`, and returns the rest of that line.
    pub(crate) fn wait_for_output(&self, text: &str) -> String {
        let deadline = Instant::now() + OUTPUT_TIMEOUT;
        loop {
            // Read in this order: what a process printed before it ended is not missed.
            let has_ended = self.has_ended();
            let output = self.output();
            let complete = output.rfind('\n').map_or("", |end| &output[..end]);
            if let Some((_, rest)) = complete.lines().find_map(|line| line.split_once(text)) {
                return rest.to_owned();
            }
            assert!(!has_ended, "the process ended without printing {text:?}:\n{output}");
            assert!(Instant::now() < deadline, "the process does not print {text:?}:\n{output}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid.to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn has_ended(&self) -> bool {
        let proc = format!("/proc/{}", self.pid);
        // The main thread of a process is a zombie while other threads still run and keep its ports open.
        let has_one_thread =
            || std::fs::read_dir(format!("{proc}/task")).map_or(true, |tasks| tasks.count() <= 1);
        match std::fs::read_to_string(format!("{proc}/stat")) {
            Ok(stat) => {
                stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')) && has_one_thread()
            }
            Err(_) => true,
        }
    }

    /// Kills the process with SIGKILL, and returns when it has ended.
    pub(crate) fn kill(self) {
        self.signal("-KILL");
        while !self.has_ended() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
    }
}
