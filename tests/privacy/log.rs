//! The log of this process: every level of every crate.

use std::io;
use std::sync::{Arc, LazyLock, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::prelude::*;

use crate::canary::Canaries;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    // There is no filter. Records of the `log` crate, which reqwest and rustls use, are included.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(log.clone())
        .with_ansi(false)
        .with_span_events(FmtSpan::FULL);
    tracing_subscriber::registry().with(layer).init();
    log
});

/// Starts to record the log, for all tests of this binary.
pub(crate) fn start() {
    LazyLock::force(&LOG);
}

/// Asserts that no canary is in the log, and that each of these crates has logged something.
#[track_caller]
pub(crate) fn assert_no_leak(canaries: &Canaries, crates: &[&str]) {
    let log = LOG.0.lock().unwrap().clone();
    for name in crates {
        let has_logged = log.split(|byte| *byte == b'\n').any(|line| {
            let line = String::from_utf8_lossy(line);
            (line.contains("TRACE") || line.contains("DEBUG") || line.contains("INFO"))
                && line.contains(&format!(" {name}::"))
        });
        assert!(has_logged, "{name} has logged nothing");
    }
    canaries.assert_absent("the log", &log);
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

#[test]
fn the_log_records_every_level_and_both_facades() {
    start();
    tracing::trace!(canary = "logged-through-tracing", "message");
    log::trace!("logged-through-log");
    let log = LOG.0.lock().unwrap().clone();
    let canaries =
        Canaries::default().with("tracing", "logged-through-tracing").with("log", "logged-through-log");
    canaries.assert_all_present("the log", log);
}
