//! Processes that end with the test, in whatever way it ends, and that can be killed before.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Runs the command of its arguments until its own standard input ends: that is when whoever started it is gone. It
/// says first which process the command is.
const LEASH: &str = r#""$@" </dev/null >/dev/null & trap "kill -KILL $! 2>/dev/null" EXIT
trap exit HUP INT TERM; echo $!; cat >/dev/null"#;

/// A running process.
pub(crate) struct Process {
    leash: Child,
    pid: u32,
}

impl Process {
    /// What it writes to its standard error goes into `log`, after what is there.
    pub(crate) fn start(program: &Path, arguments: &[&OsStr], log: &Path, env: &[(&str, &str)]) -> Self {
        assert!(program.exists(), "{} is not there: run tests/run.sh", program.display());
        let log = File::options().create(true).append(true).open(log).unwrap();
        let mut leash = Command::new("sh")
            .args(["-c", LEASH, "sh"])
            .arg(program)
            .args(arguments)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(leash.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        Self { leash, pid: pid.trim().parse().unwrap() }
    }

    /// Its id is its own until the leash, whose child it is, ends.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.pid.to_string()]).status().unwrap();
        assert!(sent.success());
    }

    pub(crate) fn is_gone(&self) -> bool {
        let proc = format!("/proc/{}", self.pid);
        // A zombie is gone too, once the last of its other threads is: until then its ports are taken.
        let alone = || std::fs::read_dir(format!("{proc}/task")).map_or(true, |tasks| tasks.count() <= 1);
        match std::fs::read_to_string(format!("{proc}/stat")) {
            Ok(stat) => stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z')) && alone(),
            Err(_) => true,
        }
    }

    /// Kills it, and returns when it is gone.
    pub(crate) fn kill(self) {
        self.signal("-KILL");
        while !self.is_gone() {
            std::thread::yield_now();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.leash.stdin.take());
        let _ = self.leash.wait();
    }
}
