//! The log as an append blob.
//!
//! One task a blob writes, whatever the number of callers and sinks in this process: it joins the lines that wait
//! into lumps, and says with each where in the blob it belongs (`x-ms-blob-condition-appendpos`). So a lump whose
//! answer was lost can be sent again: a blob that is no longer of that length has it already.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, Weak};

use bytes::Bytes;
use object_store::PutPayload;
use reqwest::header::{HeaderName, HeaderValue, IF_NONE_MATCH};
use tokio::sync::oneshot;

use super::answer::Answer;
use super::client::{BLOB_CONTENT_TYPE, BLOB_TYPE, BlobClient, Put};
use crate::error::{Error, ErrorKind, Result};
use crate::model::BlobPath;
use crate::sink::LogKey;
use crate::sync::lock;

/// The most that Azure takes in one append (before version 2022-11-02 of its API).
const LUMP: usize = 4 << 20;

/// How many appends are remembered whose callers were told of trouble and may come back.
const REMEMBERED: usize = 256;

const POSITION: HeaderName = HeaderName::from_static("x-ms-blob-condition-appendpos");
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// The logs that this process writes, by URL.
static LOGS: LazyLock<Mutex<HashMap<String, Weak<Log>>>> = LazyLock::new(Mutex::default);

/// Leaves an empty append blob where there is none; whether there was none.
pub(super) async fn create(client: &BlobClient, path: &BlobPath) -> Result<bool> {
    // Without the condition a log that is there would be emptied.
    let put = Put::new(path, PutPayload::new())
        .header(BLOB_TYPE, HeaderValue::from_static("AppendBlob"))
        .header(BLOB_CONTENT_TYPE, NDJSON)
        .header(IF_NONE_MATCH, HeaderValue::from_static("*"));
    let answer = client.send(put).await?;
    if answer.code() == "BlobAlreadyExists" {
        return Ok(false);
    }
    answer.into_done().map(|_| true)
}

/// A log, and what this process knows of it.
pub(super) struct Log {
    path: BlobPath,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Whether a task is writing.
    writing: bool,
    tail: Tail,
    /// What was sent and has no clear answer yet.
    sent: Option<Lump>,
    /// What is in the blob although its callers were told of trouble: when they come back it is done.
    settled: VecDeque<(LogKey, Bytes)>,
}

/// Where the next lump belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Tail {
    /// Written by an earlier process: the next answer tells.
    #[default]
    Unknown,
    /// As an answer told it that a server which tells nothing true would have given, too: zero.
    Told(u64),
    Known(u64),
    /// The server does not tell.
    Untold,
}

/// Lines, and who waits for them.
struct Waiting {
    key: LogKey,
    lines: Bytes,
    client: Arc<BlobClient>,
    done: oneshot::Sender<Result<()>>,
}

/// What one append holds: whole lines.
type Lump = Vec<(LogKey, Bytes)>;

/// What the writer does next.
struct Job {
    lump: Lump,
    callers: Vec<oneshot::Sender<Result<()>>>,
    client: Arc<BlobClient>,
    /// It was sent before, without a clear answer.
    again: bool,
    /// How many were waiting behind it.
    behind: usize,
}

impl Log {
    /// The log of this URL.
    pub(super) fn of(url: String, path: &BlobPath) -> Arc<Self> {
        let mut logs = lock(&LOGS);
        if let Some(log) = logs.get(&url).and_then(Weak::upgrade) {
            return log;
        }
        logs.retain(|_, log| log.strong_count() > 0);
        let log = Arc::new(Self { path: path.clone(), state: Mutex::default() });
        logs.insert(url, Arc::downgrade(&log));
        log
    }

    /// It is new, and empty.
    pub(super) fn created(&self) {
        let mut state = self.lock();
        (state.tail, state.sent) = (Tail::Known(0), None);
        state.settled.clear();
    }

    /// Appends whole lines; they are durable once it returns. Written with the client of whoever comes last.
    ///
    /// Dropping the future takes back lines that still wait; those on their way may arrive.
    pub(super) async fn append(
        self: &Arc<Self>,
        client: &Arc<BlobClient>,
        key: LogKey,
        lines: Bytes,
    ) -> Result<()> {
        for lines in pieces(lines)? {
            let (done, outcome) = oneshot::channel();
            let start = {
                let mut state = self.lock();
                state.waiting.push_back(Waiting { key, lines, client: Arc::clone(client), done });
                !std::mem::replace(&mut state.writing, true)
            };
            if start {
                // Ends when nothing waits.
                tokio::spawn(Writer { log: Arc::clone(self), ended: false }.run());
            }
            let stopped = |_| Error::new(ErrorKind::Unavailable, "the log's writer stopped");
            outcome.await.map_err(stopped)??;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sends a lump until it is clear whether it is in the blob.
    ///
    /// # Errors
    /// That it is not, or, where transient, that it is not clear.
    async fn send(&self, job: &Job) -> Result<()> {
        let payload: PutPayload = job.lump.iter().map(|(_, lines)| lines.clone()).collect();
        let length = payload.content_length() as u64;
        loop {
            let tail = self.lock().tail;
            let mut put = Put::new(&self.path, payload.clone()).query("comp=appendblock");
            let position = match tail {
                Tail::Told(at) | Tail::Known(at) => Some(at),
                Tail::Unknown | Tail::Untold => None,
            };
            if let Some(at) = position {
                put = put.header(POSITION, at);
            }
            let answer = job.client.send(put).await?;
            let refused = position.is_some() && answer.code() == "AppendPositionConditionNotMet";
            let (tail, done) = match tail {
                // This process is the only one that writes, so it was this very lump.
                Tail::Known(at) if refused && job.again => (Tail::Known(at + length), true),
                // Another process writes, or wrote.
                Tail::Known(_) if refused => (Tail::Unknown, false),
                Tail::Told(_) if refused => (Tail::Untold, false),
                Tail::Known(at) | Tail::Told(at) => (Tail::Known(at + length), true),
                Tail::Unknown => (told(&answer, length), true),
                Tail::Untold => (Tail::Untold, true),
            };
            if !refused {
                check(answer, &self.path)?;
            }
            self.lock().tail = tail;
            if done {
                return Ok(());
            }
        }
    }
}

/// The end of the blob after an append at wherever it ended.
fn told(answer: &Answer, length: u64) -> Tail {
    match answer.header("x-ms-blob-append-offset").and_then(|offset| offset.parse::<u64>().ok()) {
        None => Tail::Untold,
        Some(0) => Tail::Told(length),
        Some(offset) => Tail::Known(offset + length),
    }
}

fn check(answer: Answer, log: &BlobPath) -> Result<()> {
    if answer.code() == "BlockCountExceedsLimit" {
        let name = log.as_str().rsplit('/').next().unwrap_or_default();
        let message = format!("{name} is full: Azure takes 50,000 appends to one blob");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    answer.into_done().map(drop)
}

/// Whole lines in pieces that fit a lump: nearly always one.
fn pieces(mut lines: Bytes) -> Result<Vec<Bytes>> {
    let mut pieces = Vec::new();
    while lines.len() > LUMP {
        let Some(end) = lines[..LUMP].iter().rposition(|b| *b == b'\n') else {
            return Err(Error::new(ErrorKind::Unsupported, "a line of the log is longer than 4 MiB"));
        };
        pieces.push(lines.split_to(end + 1));
    }
    // Azure refuses an append of nothing.
    if !lines.is_empty() {
        pieces.push(lines);
    }
    Ok(pieces)
}

/// The one task that writes a log.
struct Writer {
    log: Arc<Log>,
    ended: bool,
}

impl Writer {
    async fn run(mut self) {
        while let Some(job) = self.next() {
            let outcome = self.log.send(&job).await;
            self.finish(job, outcome);
        }
    }

    /// What to send next; `None`, and the writer has ended, when nothing waits.
    fn next(&mut self) -> Option<Job> {
        let mut state = self.log.lock();
        let State { waiting, sent, settled, .. } = &mut *state;
        waiting.retain(|waiting| !waiting.done.is_closed());
        if sent.is_none() {
            waiting.retain_mut(|waiting| !is_settled(settled, waiting));
        }
        let Some(client) = waiting.back().map(|latest| Arc::clone(&latest.client)) else {
            state.writing = false;
            self.ended = true;
            return None;
        };
        if let Some(lump) = sent.clone() {
            return Some(Job { lump, callers: Vec::new(), client, again: true, behind: waiting.len() });
        }
        let (mut lump, mut callers, mut length) = (Lump::new(), Vec::new(), 0);
        while waiting.front().is_some_and(|next| length + next.lines.len() <= LUMP) {
            let Some(next) = waiting.pop_front() else { break };
            length += next.lines.len();
            lump.push((next.key, next.lines));
            callers.push(next.done);
        }
        *sent = Some(lump.clone());
        Some(Job { lump, callers, client, again: false, behind: waiting.len() })
    }

    fn finish(&self, job: Job, outcome: Result<()>) {
        let mut state = self.log.lock();
        let mut callers = job.callers;
        match &outcome {
            Ok(()) => {
                state.sent = None;
                if job.again {
                    state.settled.extend(job.lump);
                    let surplus = state.settled.len().saturating_sub(REMEMBERED);
                    state.settled.drain(..surplus);
                }
            }
            Err(error) => {
                // A lump that may be there stays the next thing to send. Whoever waited behind it comes back after a
                // pause of the engine's; sending theirs at once would be the pause left out.
                let unclear = job.again || error.kind().is_transient();
                if unclear {
                    let behind = job.behind.min(state.waiting.len());
                    callers.extend(state.waiting.drain(..behind).map(|waiting| waiting.done));
                } else {
                    state.sent = None;
                }
            }
        }
        drop(state);
        for caller in callers {
            // Gone callers need no answer.
            let _ = caller.send(outcome.as_ref().copied().map_err(again));
        }
    }
}

impl Drop for Writer {
    /// Its runtime has ended: its callers, whose answer is dropped, repeat in another.
    fn drop(&mut self) {
        if !self.ended {
            let mut state = self.log.lock();
            state.writing = false;
            state.waiting.clear();
        }
    }
}

/// Answers a caller whose lines turned out to be in the blob.
fn is_settled(settled: &mut VecDeque<(LogKey, Bytes)>, waiting: &mut Waiting) -> bool {
    let same = |(key, lines): &(LogKey, Bytes)| *key == waiting.key && *lines == waiting.lines;
    let Some(index) = settled.iter().position(same) else { return false };
    settled.remove(index);
    let (spent, _) = oneshot::channel();
    // A caller that has gone meanwhile needs no answer.
    let _ = std::mem::replace(&mut waiting.done, spent).send(Ok(()));
    true
}

/// The same error for each of several callers.
fn again(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.message().to_owned());
    match error.retry_after() {
        Some(wait) => copy.with_retry_after(wait),
        None => copy,
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("path", &self.path)
            .field("tail", &self.lock().tail)
            .finish_non_exhaustive()
    }
}
