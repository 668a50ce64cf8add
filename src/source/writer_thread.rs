//! [`WriterThread`]: the thread that writes an index.

use std::sync::mpsc;
use std::thread;

use crate::error::{Error, ErrorKind, Result};

/// Runs work on one thread.
///
/// An allocator keeps what a thread has freed for that thread. redb allocates and frees every page that it changes, so on
/// Tokio's blocking threads, one after another, it would take several times its cache.
pub(super) struct WriterThread(mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl WriterThread {
    pub(super) fn new() -> Self {
        let (sender, work) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        thread::spawn(move || work.into_iter().for_each(|work| work()));
        Self(sender)
    }

    /// Runs work on the thread and waits for it.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let (sender, outcome) = mpsc::channel();
        let sent = self.0.send(Box::new(move || _ = sender.send(work())));
        let stopped = || Error::new(ErrorKind::Internal, "the thread that writes the index panicked");
        sent.map_err(|_| stopped())?;
        outcome.recv().map_err(|_| stopped())
    }
}
