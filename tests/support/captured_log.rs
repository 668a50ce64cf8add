//! The log of a test.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::cell::RefCell;
use std::io;
use std::sync::{Arc, Mutex, Once};

thread_local! {
    static CURRENT: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// The log of the current thread, on which Tokio runs all tasks of a test.
///
/// One subscriber serves all tests: a subscriber for each thread would change which events are enabled for the others.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// Ends the log when it is dropped.
pub(crate) struct LogGuard(());

impl Log {
    pub(crate) fn start() -> (Self, LogGuard) {
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::INFO)
                .with_writer(|| CurrentLog)
                .with_ansi(false)
                .without_time()
                .init();
        });
        let log = Self::default();
        CURRENT.set(Some(log.clone()));
        (log, LogGuard(()))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim_start().to_owned()).collect()
    }

    /// The level and the rest of each line after the span, without the module.
    pub(crate) fn events(&self) -> Vec<String> {
        let strip = |line: String| {
            let (level, rest) = line.split_once(' ').unwrap();
            let (_, event) = rest.split_once("dicom_export::").unwrap();
            let (_, event) = event.split_once(": ").unwrap();
            format!("{level} {event}")
        };
        self.lines().into_iter().map(strip).collect()
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Writes to the log of the current thread, if there is one.
struct CurrentLog;

impl io::Write for CurrentLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        CURRENT.with_borrow(|log| {
            if let Some(log) = log {
                log.0.lock().unwrap().extend_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
