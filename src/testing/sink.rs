//! The contract of [`BlobSink`], as a test.
#![allow(clippy::expect_used, reason = "a failed expectation is what a test is for")]
#![allow(clippy::future_not_send, reason = "a test waits for it in place, and its closures may be plain")]

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

/// How a sink differs from the plainest one, within its contract.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct SinkTestOptions {
    /// Appended lines can be read only once the log is finished.
    pub log_is_joined_at_the_end: bool,
    /// Lengths to put besides those that the suite tries: around the edges of the sink's blocks.
    pub lengths: Vec<usize>,
}

impl SinkTestOptions {
    /// Appended lines can be read only once the log is finished.
    pub fn log_is_joined_at_the_end(mut self) -> Self {
        self.log_is_joined_at_the_end = true;
        self
    }

    /// With lengths to put besides those that the suite tries.
    pub fn lengths(mut self, lengths: impl IntoIterator<Item = usize>) -> Self {
        self.lengths.extend(lengths);
        self
    }
}

/// Holds a sink to the contract of [`BlobSink`].
///
/// `read` gives the bytes of a blob by its name, `None` when there is none; it goes past the sink, which may only be
/// allowed to write. The suite works under operation ids of its own and leaves what it wrote.
///
/// # Panics
/// With a message, where the contract is broken.
pub async fn sink_conformance(
    sink: &dyn BlobSink,
    read: impl AsyncFn(&str) -> Option<Bytes>,
    quirks: &SinkTestOptions,
) {
    let suite = Suite { sink, read, quirks };
    suite.a_log_is_prepared_once().await;
    suite.blobs_of_any_length_are_whole().await;
    suite.putting_twice_leaves_one().await;
    suite.a_stream_that_fails_leaves_nothing().await;
    suite.a_put_that_is_dropped_leaves_nothing().await;
    suite.puts_of_one_path_at_once_leave_one().await;
    suite.appended_lines_are_whole().await;
    suite.logs_of_one_operation_are_apart().await;
    suite.urls_hold_no_credential();
}

struct Suite<'a, R> {
    sink: &'a dyn BlobSink,
    read: R,
    quirks: &'a SinkTestOptions,
}

impl<R: AsyncFn(&str) -> Option<Bytes>> Suite<'_, R> {
    async fn read(&self, path: &BlobPath) -> Option<Bytes> {
        (self.read)(path.as_str()).await
    }

    async fn put(&self, path: &BlobPath, content: Content) -> Result<PutResult> {
        let window = self.sink.buffer_size(content.length());
        self.sink.put(path, content, &UploadContext::new(window, RetryPolicy::none(), 8)).await
    }

    async fn a_log_is_prepared_once(&self) {
        let log = BlobPath::error_log(OperationId::random());
        assert_eq!(self.read(&log).await, None, "the sink is not new to the suite's operation");
        for _ in 0..2 {
            self.sink.prepare(&log).await.expect("a log is prepared");
            assert_eq!(
                self.read(&log).await,
                Some(Bytes::new()),
                "a prepared log is not there, or not empty"
            );
        }
        self.sink.finish(&log).await.expect("an empty log is finished");
        assert_eq!(self.read(&log).await, Some(Bytes::new()), "an empty log does not stay one");
        let line = Bytes::from("{}\n");
        self.sink.append(&log, LogKey::batch(0), line.clone()).await.expect("a line is appended");
        self.sink.prepare(&log).await.expect("a log is prepared again");
        self.sink.finish(&log).await.expect("a log is finished");
        assert_eq!(self.read(&log).await, Some(line), "preparing a log again changed it");
    }

    async fn blobs_of_any_length_are_whole(&self) {
        let window = usize::try_from(self.sink.buffer_size(None)).expect("a window");
        let mut lengths = vec![0, 1, 70_000, window - 1, window, window + 1, 2 * window + 3];
        lengths.extend(&self.quirks.lengths);
        for length in lengths {
            let bytes = pattern(length);
            let path = new_path();
            for (known, chunk) in [(true, 0), (true, 1 << 20), (false, 1 << 20), (false, 77_777)] {
                let content = match chunk {
                    0 => Content::from_bytes(bytes.clone()),
                    chunk => Content::from_stream(known.then_some(length as u64), chunks(&bytes, chunk)),
                };
                let stored = self.put(&path, content).await.expect("a blob is put");
                assert_eq!(stored.size, length as u64, "the size that was stored");
                let found = self.read(&path).await.expect("a blob that was put is there");
                assert_eq!(
                    found.len(),
                    length,
                    "the length of a blob (length known: {known}, chunks of {chunk})"
                );
                assert!(found == bytes, "a blob of {length} bytes has others (length known: {known})");
            }
        }
    }

    async fn putting_twice_leaves_one(&self) {
        let path = new_path();
        for bytes in [pattern(100), pattern(50), pattern(50)] {
            self.put(&path, Content::from_bytes(bytes.clone())).await.expect("a blob is put");
            assert_eq!(self.read(&path).await, Some(bytes), "the blob is not what was put last");
        }
    }

    async fn a_stream_that_fails_leaves_nothing(&self) {
        let window = usize::try_from(self.sink.buffer_size(None)).expect("a window");
        for sent in [0, 10, window + 10] {
            for length in [None, Some(2 * sent as u64 + 10)] {
                let failing = || {
                    let failure = Err(Error::new(ErrorKind::Unreadable, "the source failed"));
                    let failing = chunks(&pattern(sent), 1 << 20).chain(stream::iter([failure]));
                    Content::from_stream(length, failing)
                };
                let path = new_path();
                self.put(&path, failing()).await.expect_err("a stream that fails is put");
                assert_eq!(
                    self.read(&path).await,
                    None,
                    "a stream that failed after {sent} bytes left something"
                );
                let before = pattern(33);
                self.put(&path, Content::from_bytes(before.clone())).await.expect("a blob is put");
                self.put(&path, failing()).await.expect_err("a stream that fails is put");
                assert_eq!(
                    self.read(&path).await,
                    Some(before),
                    "a stream that failed changed the blob before it"
                );
            }
        }
    }

    async fn a_put_that_is_dropped_leaves_nothing(&self) {
        let window = usize::try_from(self.sink.buffer_size(None)).expect("a window");
        for sent in [0, 10, 2 * window] {
            let path = new_path();
            // Sends so many bytes, says so, and never ends.
            let (all_sent, is_sent) = tokio::sync::oneshot::channel();
            let endless = chunks(&pattern(sent), 1 << 20).chain(stream::once(async {
                let _ = all_sent.send(());
                std::future::pending().await
            }));
            let put = self.put(&path, Content::from_stream(None, endless));
            let dropped = tokio::select! {
                outcome = put => panic!("a stream that does not end is put: {outcome:?}"),
                sent = timeout(Duration::from_secs(30), is_sent) => sent,
            };
            assert!(dropped.is_ok(), "a put does not read its content");
            assert_eq!(self.read(&path).await, None, "a put that was dropped left something");
            let bytes = pattern(sent + 1);
            self.put(&path, Content::from_bytes(bytes.clone())).await.expect("a blob is put after that");
            assert!(self.read(&path).await == Some(bytes), "a put after one that was dropped");
        }
    }

    async fn puts_of_one_path_at_once_leave_one(&self) {
        let window = usize::try_from(self.sink.buffer_size(None)).expect("a window");
        for length in [1000, window + 1000] {
            let path = new_path();
            let contents: Vec<_> = (0..4).map(|number| pattern(length + number)).collect();
            let puts = contents.iter().map(|bytes| {
                self.put(&path, Content::from_stream(Some(bytes.len() as u64), chunks(bytes, 1 << 18)))
            });
            // Blocks of two uploads may get in each other's way, as long as one is whole in the end.
            let outcomes = join_all(puts).await;
            assert!(
                outcomes.iter().any(Result::is_ok),
                "of puts of one path at once none succeeds: {outcomes:?}"
            );
            let found = self.read(&path).await.expect("one of the blobs is there");
            assert!(contents.contains(&found), "puts of one path at once are mixed");
        }
    }

    async fn appended_lines_are_whole(&self) {
        let log = BlobPath::error_log(OperationId::random());
        self.sink.prepare(&log).await.expect("a log is prepared");
        let line = |batch: u64, line: usize| {
            format!("{{\"batch\":{batch},\"line\":{line},\"{}\":0}}\n", "x".repeat(line * 7))
        };
        let append = |batch: u64| {
            let lines: String = (0..20).map(|number| line(batch, number)).collect();
            self.sink.append(&log, LogKey::batch(batch), lines.into())
        };
        let check = async |batches: u64| {
            let found = self.read(&log).await.expect("the log is there");
            let found = std::str::from_utf8(&found).expect("text");
            assert!(found.ends_with('\n'), "the log's last line is cut");
            let known: std::collections::HashSet<_> =
                (0..batches).flat_map(|batch| (0..20).map(move |number| line(batch, number))).collect();
            let found: std::collections::HashSet<_> =
                found.split_inclusive('\n').map(str::to_owned).collect();
            assert!(found.is_subset(&known), "a line of the log is cut or mixed with another");
            assert!(found.len() == known.len(), "lines of the log are missing");
        };
        for outcome in join_all((0..8).map(append)).await {
            outcome.expect("lines are appended");
        }
        if !self.quirks.log_is_joined_at_the_end {
            check(8).await;
        }
        self.sink.finish(&log).await.expect("a log is finished");
        check(8).await;
        // The operation is resumed, repeats a batch, and ends again.
        self.sink.prepare(&log).await.expect("a log is prepared again");
        for batch in [7, 8] {
            append(batch).await.expect("lines are appended after the end");
        }
        for _ in 0..2 {
            self.sink.finish(&log).await.expect("a log is finished again");
            check(9).await;
        }
    }

    async fn logs_of_one_operation_are_apart(&self) {
        let operation = OperationId::random();
        let logs = [BlobPath::error_log(operation), BlobPath::manifest(operation)];
        for log in &logs {
            self.sink.prepare(log).await.expect("a log is prepared");
        }
        let line = |log: &BlobPath, batch: u64| format!("{{\"log\":\"{log}\",\"batch\":{batch}}}\n");
        let (sink, line) = (self.sink, &line);
        let appends = logs.iter().flat_map(|log| {
            // The same keys for both.
            (0..4).map(move |batch| sink.append(log, LogKey::batch(batch), line(log, batch).into()))
        });
        for outcome in join_all(appends).await {
            outcome.expect("a line is appended");
        }
        for log in &logs {
            self.sink.finish(log).await.expect("a log is finished");
        }
        for log in &logs {
            let found = self.read(log).await.expect("the log is there");
            let found: std::collections::BTreeSet<_> =
                found.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            let expected = (0..4).map(|batch| line(log, batch).into_bytes()).collect();
            assert_eq!(found, expected, "two logs of one operation are not apart");
        }
    }

    fn urls_hold_no_credential(&self) {
        let path = new_path();
        let url = self.sink.url(&path);
        assert!(url.ends_with(path.as_str()), "a blob's URL ends in its name");
        assert!(!url.contains(['?', '#', '@']), "a blob's URL may hold a credential");
        assert!(!self.sink.location().is_empty(), "an account has a name");
        assert!(!self.sink.location().contains('?'), "an account's name may hold a credential");
        assert!(self.sink.buffer_size(None) > 0, "a stream needs some bytes");
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

/// Bytes that do not repeat with any block's length, and differ with the length.
fn pattern(length: usize) -> Bytes {
    // A prime, so that no block of a sink begins alike.
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
