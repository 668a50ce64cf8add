//! How much runs at once is found, not set: a server that bears only so much, and what is lost by finding out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::{LogKey, PutResult};
use dicom_export::{
    BlobPath, BlobSink, Concurrency, Content, Error, ErrorKind, ExportEngine, ExportSource, NewOperation,
    OperationStatus, Result, UploadContext,
};
use tokio::time::{Instant, sleep};

use crate::support::Generated;

/// A server that answers after a while, and refuses what is more than it bears.
#[derive(Clone)]
struct Server {
    bears: Bears,
    now: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    lately: Arc<Mutex<VecDeque<Instant>>>,
    bucket: Arc<Mutex<Option<(f64, Instant)>>>,
}

#[derive(Clone, Copy)]
enum Bears {
    Anything,
    AtOnce(usize),
    /// More than so many in a second are refused, and asked to come back after one.
    ASecond(usize),
    /// So many a second, and a tenth of that in a burst; what is refused is asked to come back after a second.
    InBursts(usize),
    /// Nothing for a while, from the start on.
    NothingFor(Instant, Duration),
}

impl Server {
    fn new(bears: Bears) -> Self {
        let (now, refused) = (Arc::default(), Arc::default());
        Self { bears, now, refused, lately: Arc::default(), bucket: Arc::default() }
    }

    fn latency(&self) -> Duration {
        Duration::from_millis(if matches!(self.bears, Bears::InBursts(_)) { 5 } else { 50 })
    }

    /// Whether the bucket has one for this request.
    fn takes(&self, rate: f64) -> bool {
        let mut bucket = self.bucket.lock().unwrap();
        let (held, at) = bucket.unwrap_or((rate / 10.0, Instant::now()));
        let held = (held + at.elapsed().as_secs_f64() * rate).min(rate / 10.0);
        let taken = held >= 1.0;
        *bucket = Some((if taken { held - 1.0 } else { held }, Instant::now()));
        taken
    }

    async fn serve(&self) -> Result<()> {
        let refusal = match self.bears {
            Bears::AtOnce(most) if self.now.load(SeqCst) >= most => {
                Some(Error::new(ErrorKind::Throttled, "busy"))
            }
            Bears::ASecond(most) => {
                let mut lately = self.lately.lock().unwrap();
                while lately.front().is_some_and(|at| at.elapsed() >= Duration::from_secs(1)) {
                    lately.pop_front();
                }
                if lately.len() < most {
                    lately.push_back(Instant::now());
                    None
                } else {
                    Some(Error::new(ErrorKind::Throttled, "busy").with_retry_after(Duration::from_secs(1)))
                }
            }
            Bears::InBursts(rate) if !self.takes(rate as f64) => {
                Some(Error::new(ErrorKind::Throttled, "busy").with_retry_after(Duration::from_secs(1)))
            }
            Bears::NothingFor(start, long) if start.elapsed() < long => {
                Some(Error::new(ErrorKind::Unavailable, "down"))
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.refused.fetch_add(1, SeqCst);
            sleep(Duration::from_millis(5)).await;
            return Err(refusal);
        }
        self.now.fetch_add(1, SeqCst);
        sleep(self.latency()).await;
        self.now.fetch_sub(1, SeqCst);
        Ok(())
    }
}

#[async_trait]
impl BlobSink for Server {
    async fn prepare(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    async fn put(&self, _: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        upload.send_with_retry(|| self.serve()).await?;
        Ok(PutResult::new(content.length().unwrap()))
    }

    async fn append(&self, _: &BlobPath, _: LogKey, _: Bytes) -> Result<()> {
        Ok(())
    }

    async fn finish(&self, _: &BlobPath) -> Result<()> {
        Ok(())
    }

    fn url(&self, path: &BlobPath) -> String {
        path.to_string()
    }

    fn location(&self) -> String {
        "server".to_owned()
    }
}

/// How long an export of so many instances takes.
async fn export(server: &Server, count: u64, concurrency: Concurrency) -> Duration {
    let source = Generated { count, size: 100, chunk: 100, states_size: true, alive: Arc::default() };
    let engine = ExportEngine::builder(source).concurrency(concurrency).build().unwrap();
    let begin = Instant::now();
    let sink: Arc<dyn BlobSink> = Arc::new(server.clone());
    let id = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap().operation_id;
    let ended = engine.wait(id).await.unwrap();
    assert_eq!(
        (ended.status, ended.results.exported, ended.results.skipped),
        (OperationStatus::Completed, count, 0)
    );
    begin.elapsed()
}

/// Within a tenth of the best fixed setting, in virtual time.
async fn as_good_as_the_best(bears: Bears, count: u64, best: usize) {
    let fixed = export(&Server::new(bears), count, Concurrency::Fixed(best)).await;
    let server = Server::new(bears);
    let found = export(&server, count, Concurrency::Auto).await;
    let refused = server.refused.load(SeqCst);
    assert!(found <= fixed.mul_f64(1.1), "{found:?} beside {fixed:?}, {refused} refused");
}

#[tokio::test(start_paused = true)]
async fn the_limit_settles_at_a_server_with_a_concurrency_limit() {
    for most in [1, 4, 10, 40] {
        as_good_as_the_best(Bears::AtOnce(most), 2_000 * most as u64, most).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_settles_at_a_server_with_a_rate_limit() {
    for rate in [40, 200] {
        // So many at once at 50 ms each.
        as_good_as_the_best(Bears::ASecond(rate), 120 * rate as u64, rate / 20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_settles_at_a_server_that_accepts_bursts_and_then_asks_for_a_pause() {
    for rate in [400, 1_000] {
        // So many at once at 5 ms each.
        as_good_as_the_best(Bears::InBursts(rate), 90 * rate as u64, rate / 200).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_grows_at_a_server_without_limits() {
    as_good_as_the_best(Bears::Anything, 100_000, 128).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_is_used_again() {
    let down = Duration::from_secs(120);
    let took = export(&Server::new(Bears::NothingFor(Instant::now(), down)), 50_000, Concurrency::Auto).await;
    let best = export(&Server::new(Bears::Anything), 50_000, Concurrency::Fixed(128)).await;
    // The pauses between tries are up to half a minute by then.
    assert!(took <= down + Duration::from_secs(30) + best.mul_f64(1.1), "{took:?} beside {best:?}");
}
