//! [`AppendLog`]: a log as an append blob.
//!
//! One task per blob writes, regardless of how many callers and sinks this process has. It joins waiting lines into
//! blocks, and sends each with the position at which it must be appended (`x-ms-blob-condition-appendpos`). A block whose
//! response was lost can therefore be sent again: if the blob no longer has that length, it contains the block already,
//! unless another process writes to it, which is checked.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, Weak};

use bytes::Bytes;
use object_store::PutPayload;
use reqwest::header::{HeaderName, HeaderValue, IF_NONE_MATCH};
use tokio::sync::oneshot;

use super::client::{BLOB_CONTENT_TYPE, BLOB_TYPE, BlobClient, BlobRequest};
use super::response::{IMMUTABLE, Response};
use crate::error::{Error, ErrorKind, Result};
use crate::model::BlobPath;
use crate::sink::{AppendLimits, LogKey};
use crate::sync::lock;

/// The most bytes that Azure accepts in one append (before version 2022-11-02 of its API).
const MAX_APPEND_BYTES: usize = 4 << 20;

/// The maximum number of blocks of an append blob.
const MAX_APPENDS: u32 = 50_000;

/// How many appends are remembered that were reported as failed and turned out to be in the blob.
const MAX_CONFIRMED: usize = 256;

const MAX_SIZE: HeaderName = HeaderName::from_static("x-ms-blob-condition-maxsize");
const APPEND_POSITION: HeaderName = HeaderName::from_static("x-ms-blob-condition-appendpos");
const APPEND_OFFSET: &str = "x-ms-blob-append-offset";
const NDJSON: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// The logs of this process, by URL.
static LOGS: LazyLock<Mutex<HashMap<String, Weak<AppendLog>>>> = LazyLock::new(Mutex::default);

/// The limits on appends to one log.
pub(super) fn limits() -> AppendLimits {
    AppendLimits::new(MAX_APPEND_BYTES as u64, Some(MAX_APPENDS))
}

/// Creates an empty append blob if there is none, and returns whether it did.
pub(super) async fn create(client: &BlobClient, path: &BlobPath) -> Result<bool> {
    // Without the condition an existing log is truncated.
    let request = BlobRequest::put(path, PutPayload::new())
        .header(BLOB_TYPE, HeaderValue::from_static("AppendBlob"))
        .header(BLOB_CONTENT_TYPE, NDJSON)
        .header(IF_NONE_MATCH, HeaderValue::from_static("*"));
    let response = client.send(request).await?;
    // The service may check the policy of the container before the condition: it only concerns blobs that exist.
    if response.is(409, "BlobAlreadyExists") || response.is(409, IMMUTABLE) {
        return Ok(false);
    }
    response.error_for_status().map(|_| true)
}

/// A log, and what this process knows about it.
pub(super) struct AppendLog {
    path: BlobPath,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pending: VecDeque<PendingAppend>,
    /// Whether a task is writing.
    writing: bool,
    tail: Tail,
    /// The block that was sent and neither confirmed nor refused yet.
    sent: Option<Block>,
    /// Lines that are in the blob although their callers received an error. Repeated appends of them succeed.
    confirmed: VecDeque<(LogKey, Bytes)>,
}

/// The position of the next block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Tail {
    /// The blob was written by an earlier process. The next response contains the position.
    #[default]
    Unknown,
    /// From an offset of zero, which servers also return that do not report offsets.
    Unconfirmed(u64),
    Known(u64),
    /// The server does not report offsets.
    Unsupported,
}

/// Lines that wait to be sent, and their caller.
struct PendingAppend {
    key: LogKey,
    lines: Bytes,
    client: Arc<BlobClient>,
    done: oneshot::Sender<Result<()>>,
}

/// Whole lines that are appended with one request.
type Block = Vec<(LogKey, Bytes)>;

/// The writer's next request.
struct Job {
    block: Block,
    callers: Vec<oneshot::Sender<Result<()>>>,
    client: Arc<BlobClient>,
    /// Whether the block was sent before and not confirmed.
    is_retry: bool,
    /// How many appends were waiting behind it.
    waiting: usize,
}

impl AppendLog {
    /// Returns the log of this URL.
    pub(super) fn shared(url: String, path: &BlobPath) -> Arc<Self> {
        let mut logs = lock(&LOGS);
        if let Some(log) = logs.get(&url).and_then(Weak::upgrade) {
            return log;
        }
        logs.retain(|_, log| log.strong_count() > 0);
        let log = Arc::new(Self { path: path.clone(), state: Mutex::default() });
        logs.insert(url, Arc::downgrade(&log));
        log
    }

    /// Records that the blob was created just now.
    pub(super) fn created(&self) {
        let mut state = lock(&self.state);
        (state.tail, state.sent) = (Tail::Known(0), None);
        state.confirmed.clear();
    }

    /// Appends whole lines, which are durable when it returns. They are sent with the client of the latest caller.
    ///
    /// # Cancellation
    /// Dropping the future removes lines that are still waiting. Lines that are being sent may be appended.
    pub(super) async fn append(
        self: &Arc<Self>,
        client: &Arc<BlobClient>,
        key: LogKey,
        lines: Bytes,
    ) -> Result<()> {
        for lines in split(lines)? {
            let (done, outcome) = oneshot::channel();
            let start = {
                let mut state = lock(&self.state);
                state.pending.push_back(PendingAppend { key, lines, client: Arc::clone(client), done });
                !std::mem::replace(&mut state.writing, true)
            };
            if start {
                // The task ends when nothing is pending.
                tokio::spawn(Writer { log: Arc::clone(self), ended: false }.run());
            }
            let stopped = |_| Error::new(ErrorKind::Unavailable, "the task that writes the log stopped");
            outcome.await.map_err(stopped)??;
        }
        Ok(())
    }

    /// Sends a block until it is known whether the blob contains it.
    ///
    /// # Errors
    /// A permanent error: the blob does not contain the block. A transient error: this is not known.
    async fn send(&self, job: &Job) -> Result<()> {
        let payload: PutPayload = job.block.iter().map(|(_, lines)| lines.clone()).collect();
        let length = payload.content_length() as u64;
        let mut unclear = job.is_retry;
        loop {
            let tail = lock(&self.state).tail;
            let mut request = BlobRequest::put(&self.path, payload.clone()).query("comp=appendblock");
            let position = match tail {
                Tail::Unconfirmed(at) | Tail::Known(at) => Some(at),
                Tail::Unknown | Tail::Unsupported => None,
            };
            if let Some(at) = position {
                request = request.header(APPEND_POSITION, at);
            }
            let response = job.client.send(request).await?;
            let refused = position.is_some() && response.is(412, "AppendPositionConditionNotMet");
            let (tail, done) = match tail {
                Tail::Known(at) if refused && std::mem::take(&mut unclear) => {
                    self.look_for(job, &payload, at).await?
                }
                // Another process writes, or wrote.
                Tail::Known(_) if refused => (Tail::Unknown, false),
                Tail::Unconfirmed(_) if refused => (Tail::Unsupported, false),
                Tail::Known(at) | Tail::Unconfirmed(at) => (Tail::Known(at + length), true),
                Tail::Unknown => (tail_after(&response, length), true),
                Tail::Unsupported => (Tail::Unsupported, true),
            };
            if !refused {
                check(response, &self.path)?;
            }
            lock(&self.state).tail = tail;
            if done {
                return Ok(());
            }
        }
    }

    /// Finds out whether a block whose response was lost was appended at `at`, where something was appended. If the
    /// credential cannot read the blob, the block is sent again unless the blob is long enough to contain it. Returns the
    /// new tail and whether the blob contains the block.
    async fn look_for(&self, job: &Job, payload: &PutPayload, at: u64) -> Result<(Tail, bool)> {
        let length = payload.content_length();
        let response = job.client.send(BlobRequest::get(&self.path, at, length)).await?;
        if let Some((content, size)) = response.content() {
            let block: Bytes = payload.clone().into();
            return Ok((Tail::Known(size), *content == block));
        }
        let end = at + length as u64;
        let request = BlobRequest::put(&self.path, payload.clone())
            .query("comp=appendblock")
            .header(MAX_SIZE, end + length as u64 - 1);
        let response = job.client.send(request).await?;
        if response.is(412, "MaxBlobSizeConditionNotMet") {
            return Ok((Tail::Known(end), true));
        }
        let tail = tail_after(&response, length as u64);
        check(response, &self.path)?;
        Ok((tail, true))
    }
}

/// The end of the blob after an unconditional append.
fn tail_after(response: &Response, length: u64) -> Tail {
    match response.header(APPEND_OFFSET).and_then(|offset| offset.parse::<u64>().ok()) {
        None => Tail::Unsupported,
        Some(0) => Tail::Unconfirmed(length),
        Some(offset) => Tail::Known(offset + length),
    }
}

fn check(response: Response, log: &BlobPath) -> Result<()> {
    let name = log.as_str().rsplit('/').next().unwrap_or_default();
    if response.is(409, IMMUTABLE) {
        let message = format!(
            "{name} cannot be appended to: the immutability policy of the container must allow protected append writes"
        );
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    if response.is(409, "BlockCountExceedsLimit") {
        let message = format!("{name} is full: Azure allows 50,000 appends to a blob");
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    response.error_for_status().map(drop)
}

/// Splits lines so that each part fits into one append. There is rarely more than one.
fn split(mut lines: Bytes) -> Result<Vec<Bytes>> {
    let mut parts = Vec::new();
    while lines.len() > MAX_APPEND_BYTES {
        let Some(end) = lines[..MAX_APPEND_BYTES].iter().rposition(|b| *b == b'\n') else {
            return Err(Error::new(ErrorKind::Unsupported, "a line of the log is longer than 4 MiB"));
        };
        parts.push(lines.split_to(end + 1));
    }
    // Azure refuses an empty append.
    if !lines.is_empty() {
        parts.push(lines);
    }
    Ok(parts)
}

/// The task that writes a log.
struct Writer {
    log: Arc<AppendLog>,
    ended: bool,
}

impl Writer {
    async fn run(mut self) {
        while let Some(job) = self.next() {
            let outcome = self.log.send(&job).await;
            self.complete(job, outcome);
        }
    }

    /// Returns the next request. If nothing is pending, the writer has ended and `None` is returned.
    fn next(&mut self) -> Option<Job> {
        let mut state = lock(&self.log.state);
        let State { pending, sent, confirmed, .. } = &mut *state;
        pending.retain(|append| !append.done.is_closed());
        if sent.is_none() {
            pending.retain_mut(|append| !complete_confirmed(confirmed, append));
        }
        let Some(client) = pending.back().map(|latest| Arc::clone(&latest.client)) else {
            state.writing = false;
            self.ended = true;
            return None;
        };
        if let Some(block) = sent.clone() {
            return Some(Job { block, callers: Vec::new(), client, is_retry: true, waiting: pending.len() });
        }
        let (mut block, mut callers, mut length) = (Block::new(), Vec::new(), 0);
        while pending.front().is_some_and(|next| length + next.lines.len() <= MAX_APPEND_BYTES) {
            let Some(next) = pending.pop_front() else { break };
            length += next.lines.len();
            block.push((next.key, next.lines));
            callers.push(next.done);
        }
        *sent = Some(block.clone());
        Some(Job { block, callers, client, is_retry: false, waiting: pending.len() })
    }

    fn complete(&self, job: Job, outcome: Result<()>) {
        let mut state = lock(&self.log.state);
        let mut callers = job.callers;
        match &outcome {
            Ok(()) => {
                state.sent = None;
                if job.is_retry {
                    state.confirmed.extend(job.block);
                    let surplus = state.confirmed.len().saturating_sub(MAX_CONFIRMED);
                    state.confirmed.drain(..surplus);
                }
            }
            // A block that the blob may contain is sent again before any other. The callers that wait behind it fail
            // too: the engine retries them after a pause, and sending theirs now would skip that pause.
            Err(error) if job.is_retry || error.kind().is_transient() => {
                let waiting = job.waiting.min(state.pending.len());
                callers.extend(state.pending.drain(..waiting).map(|append| append.done));
            }
            Err(_) => state.sent = None,
        }
        drop(state);
        for caller in callers {
            // The caller may have been dropped.
            let _ = caller.send(outcome.as_ref().copied().map_err(copy_of));
        }
    }
}

impl Drop for Writer {
    /// The runtime has ended. The callers' senders are dropped, and they retry on another runtime.
    fn drop(&mut self) {
        if !self.ended {
            let mut state = lock(&self.log.state);
            state.writing = false;
            state.pending.clear();
        }
    }
}

/// Completes an append whose lines are in the blob already, and returns whether they are.
fn complete_confirmed(confirmed: &mut VecDeque<(LogKey, Bytes)>, append: &mut PendingAppend) -> bool {
    let same = |(key, lines): &(LogKey, Bytes)| *key == append.key && *lines == append.lines;
    let Some(index) = confirmed.iter().position(same) else { return false };
    confirmed.remove(index);
    let (placeholder, _) = oneshot::channel();
    // The caller may have been dropped.
    let _ = std::mem::replace(&mut append.done, placeholder).send(Ok(()));
    true
}

/// The same error for each of several callers.
fn copy_of(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.message().to_owned());
    match error.retry_after() {
        Some(wait) => copy.with_retry_after(wait),
        None => copy,
    }
}

impl fmt::Debug for AppendLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppendLog")
            .field("path", &self.path)
            .field("tail", &lock(&self.state).tail)
            .finish_non_exhaustive()
    }
}
