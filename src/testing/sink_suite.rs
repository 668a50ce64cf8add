//! [`sink_conformance`]: a conformance suite for [`BlobSink`].
#![allow(clippy::expect_used, reason = "a suite panics on a violation")]
#![allow(clippy::future_not_send, reason = "a suite is awaited in its test's own task")]

use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use futures::stream::{self, StreamExt};
use tokio::time::timeout;

use crate::content::Content;
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{RetryPolicy, UploadContext};
use crate::model::BlobPath;
use crate::model::InstanceIdentifier;
use crate::model::OperationId;
use crate::sink::{BlobSink, LogKey, PutResult};
use crate::testing::fixtures;

/// Options of [`sink_conformance`] for properties in which sinks may differ.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SinkTestOptions {
    /// Whether appended lines can be read only after [`BlobSink::finish`]. Default: false.
    pub log_is_joined_on_finish: bool,
    /// Additional lengths of blobs, in bytes, for example around the sink's block size. Default: none.
    pub lengths: Vec<usize>,
}

impl SinkTestOptions {
    /// Declares that appended lines can be read only after [`BlobSink::finish`].
    #[must_use]
    pub fn log_is_joined_on_finish(mut self) -> Self {
        self.log_is_joined_on_finish = true;
        self
    }

    /// Adds lengths of blobs, in bytes.
    #[must_use]
    pub fn lengths(mut self, lengths: impl IntoIterator<Item = usize>) -> Self {
        self.lengths.extend(lengths);
        self
    }
}

/// Checks a sink against the contract of [`BlobSink`].
///
/// `read` returns the bytes of a blob by its name, or `None` if it does not exist. It does not use the sink, which may have
/// permission to write only. The suite writes below random operation ids and does not delete its blobs.
///
/// # Panics
/// If the sink violates the contract.
///
/// ```
/// use dicom_export::MemorySink;
/// use dicom_export::testing::{SinkTestOptions, sink_conformance};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let sink = MemorySink::new();
/// sink_conformance(&sink, async |name| sink.get(name), &SinkTestOptions::default()).await;
/// # }
/// ```
pub async fn sink_conformance(
    sink: &dyn BlobSink,
    read: impl AsyncFn(&str) -> Option<Bytes>,
    options: &SinkTestOptions,
) {
    let suite = Suite { sink, read, options };
    suite.preparing_a_log_is_idempotent().await;
    suite.blobs_of_any_length_are_complete().await;
    suite.a_second_put_replaces_the_first().await;
    suite.a_failed_stream_leaves_nothing().await;
    suite.a_dropped_put_leaves_nothing().await;
    suite.concurrent_puts_of_one_path_leave_one_blob().await;
    suite.appended_lines_are_complete().await;
    suite.logs_of_one_operation_are_separate().await;
    suite.urls_contain_no_credential();
}

struct Suite<'a, R> {
    sink: &'a dyn BlobSink,
    read: R,
    options: &'a SinkTestOptions,
}

impl<R: AsyncFn(&str) -> Option<Bytes>> Suite<'_, R> {
    async fn read(&self, path: &BlobPath) -> Option<Bytes> {
        (self.read)(path.as_str()).await
    }

    async fn put(&self, path: &BlobPath, content: Content) -> Result<PutResult> {
        let buffer = self.sink.buffer_size(content.length());
        self.sink.put(path, content, &UploadContext::new(buffer, RetryPolicy::none(), 8)).await
    }

    /// The sink's buffer size for a content of unknown length.
    fn buffer_size(&self) -> usize {
        usize::try_from(self.sink.buffer_size(None)).expect("a buffer size that fits into memory")
    }

    async fn preparing_a_log_is_idempotent(&self) {
        let log = BlobPath::error_log(OperationId::random());
        assert_eq!(self.read(&log).await, None, "a log exists before it is prepared");
        for _ in 0..2 {
            self.sink.prepare(&log).await.expect("prepare succeeds");
            assert_eq!(
                self.read(&log).await,
                Some(Bytes::new()),
                "a prepared log does not exist or is not empty"
            );
        }
        self.sink.finish(&log).await.expect("finish succeeds on an empty log");
        assert_eq!(self.read(&log).await, Some(Bytes::new()), "finish changed an empty log");
        let line = Bytes::from("{}\n");
        self.sink.append(&log, LogKey::new(0, 0), line.clone()).await.expect("append succeeds");
        self.sink.prepare(&log).await.expect("prepare succeeds on an existing log");
        self.sink.finish(&log).await.expect("finish succeeds");
        assert_eq!(self.read(&log).await, Some(line), "prepare changed an existing log");
    }

    async fn blobs_of_any_length_are_complete(&self) {
        let buffer = self.buffer_size();
        let mut lengths = vec![0, 1, 70_000, buffer - 1, buffer, buffer + 1, 2 * buffer + 3];
        lengths.extend(&self.options.lengths);
        for length in lengths {
            let bytes = pattern(length);
            let path = new_path();
            for (known, chunk) in [(true, 0), (true, 1 << 20), (false, 1 << 20), (false, 77_777)] {
                let content = match chunk {
                    0 => Content::from_bytes(bytes.clone()),
                    chunk => Content::from_stream(known.then_some(length as u64), chunks(&bytes, chunk)),
                };
                let stored = self.put(&path, content).await.expect("put succeeds");
                assert_eq!(stored.size, length as u64, "put returned another size than the content's");
                let found = self.read(&path).await.expect("the blob exists after put");
                assert_eq!(
                    found.len(),
                    length,
                    "a blob has another length than its content (length known: {known}, chunks of {chunk})"
                );
                assert!(
                    found == bytes,
                    "a blob of {length} bytes has other bytes than its content (length known: {known})"
                );
            }
        }
    }

    async fn a_second_put_replaces_the_first(&self) {
        let path = new_path();
        for bytes in [pattern(100), pattern(50), pattern(50)] {
            self.put(&path, Content::from_bytes(bytes.clone())).await.expect("put succeeds");
            assert_eq!(
                self.read(&path).await,
                Some(bytes),
                "the blob does not have the content of the last put"
            );
        }
    }

    async fn a_failed_stream_leaves_nothing(&self) {
        let buffer = self.buffer_size();
        for sent in [0, 10, buffer + 10] {
            for length in [None, Some(2 * sent as u64 + 10)] {
                let failing = || {
                    let failure = Err(Error::new(ErrorKind::Unreadable, "planned failure"));
                    let failing = chunks(&pattern(sent), 1 << 20).chain(stream::iter([failure]));
                    Content::from_stream(length, failing)
                };
                let path = new_path();
                self.put(&path, failing()).await.expect_err("put fails if the content fails");
                assert_eq!(
                    self.read(&path).await,
                    None,
                    "a content that failed after {sent} bytes left a blob"
                );
                let before = pattern(33);
                self.put(&path, Content::from_bytes(before.clone())).await.expect("put succeeds");
                self.put(&path, failing()).await.expect_err("put fails if the content fails");
                assert_eq!(self.read(&path).await, Some(before), "a failed content changed an existing blob");
            }
        }
    }

    async fn a_dropped_put_leaves_nothing(&self) {
        let buffer = self.buffer_size();
        for sent in [0, 10, 2 * buffer] {
            let path = new_path();
            // Yields `sent` bytes, signals that, and never ends.
            let (all_sent, is_sent) = tokio::sync::oneshot::channel();
            let endless = chunks(&pattern(sent), 1 << 20).chain(stream::once(async {
                let _ = all_sent.send(());
                std::future::pending().await
            }));
            let put = self.put(&path, Content::from_stream(None, endless));
            let dropped = tokio::select! {
                outcome = put => panic!("put returned before the content ended: {outcome:?}"),
                sent = timeout(Duration::from_secs(30), is_sent) => sent,
            };
            assert!(dropped.is_ok(), "put does not read its content");
            assert_eq!(self.read(&path).await, None, "a dropped put left a blob");
            let bytes = pattern(sent + 1);
            self.put(&path, Content::from_bytes(bytes.clone()))
                .await
                .expect("put succeeds after a dropped put");
            assert!(self.read(&path).await == Some(bytes), "a put after a dropped put stored other bytes");
        }
    }

    async fn concurrent_puts_of_one_path_leave_one_blob(&self) {
        let buffer = self.buffer_size();
        for length in [1000, buffer + 1000] {
            let path = new_path();
            let contents: Vec<_> = (0..4).map(|number| pattern(length + number)).collect();
            let puts = contents.iter().map(|bytes| {
                self.put(&path, Content::from_stream(Some(bytes.len() as u64), chunks(bytes, 1 << 18)))
            });
            // Uploads may fail because of each other, as long as one succeeds.
            let outcomes = join_all(puts).await;
            assert!(
                outcomes.iter().any(Result::is_ok),
                "none of several concurrent puts succeeded: {outcomes:?}"
            );
            let found = self.read(&path).await.expect("the blob exists");
            assert!(contents.contains(&found), "concurrent puts were mixed");
        }
    }

    async fn appended_lines_are_complete(&self) {
        let log = BlobPath::error_log(OperationId::random());
        self.sink.prepare(&log).await.expect("prepare succeeds");
        let line = |batch: u64, line: usize| {
            format!("{{\"batch\":{batch},\"line\":{line},\"{}\":0}}\n", "x".repeat(line * 7))
        };
        let append = |batch: u64| {
            let lines: String = (0..20).map(|number| line(batch, number)).collect();
            self.sink.append(&log, LogKey::new(0, batch), lines.into())
        };
        let check = async |batches: u64| {
            let found = self.read(&log).await.expect("the log exists");
            let found = std::str::from_utf8(&found).expect("text");
            assert!(found.ends_with('\n'), "the last line of the log is incomplete");
            let known: std::collections::HashSet<_> =
                (0..batches).flat_map(|batch| (0..20).map(move |number| line(batch, number))).collect();
            let found: std::collections::HashSet<_> =
                found.split_inclusive('\n').map(str::to_owned).collect();
            assert!(found.is_subset(&known), "the log has an unknown line");
            assert!(found.len() == known.len(), "lines are missing from the log");
        };
        for outcome in join_all((0..8).map(append)).await {
            outcome.expect("append succeeds");
        }
        if !self.options.log_is_joined_on_finish {
            check(8).await;
        }
        self.sink.finish(&log).await.expect("finish succeeds");
        check(8).await;
        // A resumed operation repeats a batch.
        self.sink.prepare(&log).await.expect("prepare succeeds on an existing log");
        for batch in [7, 8] {
            append(batch).await.expect("append succeeds after finish");
        }
        for _ in 0..2 {
            self.sink.finish(&log).await.expect("finish succeeds again");
            check(9).await;
        }
    }

    async fn logs_of_one_operation_are_separate(&self) {
        let operation = OperationId::random();
        let logs = [BlobPath::error_log(operation), BlobPath::manifest(operation)];
        for log in &logs {
            self.sink.prepare(log).await.expect("prepare succeeds");
        }
        let line = |log: &BlobPath, batch: u64| format!("{{\"log\":\"{log}\",\"batch\":{batch}}}\n");
        let (sink, line) = (self.sink, &line);
        let appends = logs.iter().flat_map(|log| {
            // Both logs use the same keys.
            (0..4).map(move |batch| sink.append(log, LogKey::new(0, batch), line(log, batch).into()))
        });
        for outcome in join_all(appends).await {
            outcome.expect("append succeeds");
        }
        for log in &logs {
            self.sink.finish(log).await.expect("finish succeeds");
        }
        for log in &logs {
            let found = self.read(log).await.expect("the log exists");
            let found: std::collections::BTreeSet<_> =
                found.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let expected = (0..4).map(|batch| line(log, batch).into_bytes()).collect();
            assert_eq!(found, expected, "the logs of an operation were mixed");
        }
    }

    fn urls_contain_no_credential(&self) {
        let path = new_path();
        let url = self.sink.url(&path);
        assert!(url.ends_with(path.as_str()), "a URL does not end with the blob's name");
        assert!(!url.contains(['?', '#', '@']), "a URL may contain a credential");
        assert!(!self.sink.location().is_empty(), "the location is empty");
        assert!(!self.sink.location().contains('?'), "the location may contain a credential");
        assert!(self.sink.buffer_size(None) > 0, "the buffer size for an unknown length is zero");
    }
}

fn new_path() -> BlobPath {
    BlobPath::instance(
        OperationId::random(),
        &InstanceIdentifier::new(
            fixtures::study_uid(1),
            fixtures::series_uid(1, 1),
            fixtures::instance_uid(1, 1, 1),
        ),
    )
}

/// Bytes that differ between blocks of any size and between lengths.
fn pattern(length: usize) -> Bytes {
    // A prime, so that blocks begin with different bytes.
    const STEP: usize = 65_521;
    let step: Vec<u8> = (0..STEP).map(|at| (at % 251) as u8 ^ length as u8).collect();
    let mut bytes = step.repeat(length / STEP + 1);
    bytes.truncate(length);
    bytes.into()
}

fn chunks(bytes: &Bytes, size: usize) -> impl futures::Stream<Item = Result<Bytes>> + Send + 'static {
    let bytes = bytes.clone();
    stream::iter(
        (0..bytes.len()).step_by(size).map(move |at| Ok(bytes.slice(at..bytes.len().min(at + size)))),
    )
}
