//! The automatic concurrency limit, compared with the best fixed limit.

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

/// A destination that throttles requests above its limit.
#[derive(Clone)]
struct Server {
    limit: Limit,
    active: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
    /// When the requests of the last second were accepted.
    recent: Arc<Mutex<VecDeque<Instant>>>,
    /// The number of tokens, and when it was computed.
    bucket: Arc<Mutex<Option<(f64, Instant)>>>,
}

#[derive(Clone, Copy)]
enum Limit {
    Unlimited,
    /// The number of concurrent requests.
    Concurrent(usize),
    /// The number of requests in any second. `Retry-After` is one second.
    PerSecond(usize),
    /// A token bucket with this rate per second that holds a tenth of it. `Retry-After` is one second.
    TokenBucket(usize),
    /// All requests fail for this time after this instant.
    Down(Instant, Duration),
}

impl Server {
    fn new(limit: Limit) -> Self {
        let (active, refused) = (Arc::default(), Arc::default());
        Self { limit, active, refused, recent: Arc::default(), bucket: Arc::default() }
    }

    fn latency(&self) -> Duration {
        Duration::from_millis(if matches!(self.limit, Limit::TokenBucket(_)) { 5 } else { 50 })
    }

    /// Takes a token from the bucket, if it has one.
    fn take_token(&self, rate: f64) -> bool {
        let mut bucket = self.bucket.lock().unwrap();
        let (held, at) = bucket.unwrap_or((rate / 10.0, Instant::now()));
        let held = (held + at.elapsed().as_secs_f64() * rate).min(rate / 10.0);
        let taken = held >= 1.0;
        *bucket = Some((if taken { held - 1.0 } else { held }, Instant::now()));
        taken
    }

    async fn serve(&self) -> Result<()> {
        let refusal = match self.limit {
            Limit::Concurrent(max) if self.active.load(SeqCst) >= max => {
                Some(Error::new(ErrorKind::Throttled, "busy"))
            }
            Limit::PerSecond(max) => {
                let mut recent = self.recent.lock().unwrap();
                while recent.front().is_some_and(|at| at.elapsed() >= Duration::from_secs(1)) {
                    recent.pop_front();
                }
                if recent.len() < max {
                    recent.push_back(Instant::now());
                    None
                } else {
                    Some(Error::new(ErrorKind::Throttled, "busy").with_retry_after(Duration::from_secs(1)))
                }
            }
            Limit::TokenBucket(rate) if !self.take_token(rate as f64) => {
                Some(Error::new(ErrorKind::Throttled, "busy").with_retry_after(Duration::from_secs(1)))
            }
            Limit::Down(start, duration) if start.elapsed() < duration => {
                Some(Error::new(ErrorKind::Unavailable, "down"))
            }
            _ => None,
        };
        if let Some(refusal) = refusal {
            self.refused.fetch_add(1, SeqCst);
            sleep(Duration::from_millis(5)).await;
            return Err(refusal);
        }
        self.active.fetch_add(1, SeqCst);
        sleep(self.latency()).await;
        self.active.fetch_sub(1, SeqCst);
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

/// Exports `count` instances. Returns the duration in virtual time.
async fn export(server: &Server, count: u64, concurrency: Concurrency) -> Duration {
    let source = Generated { count, size: 100, chunk: 100, states_size: true, memory: Arc::default() };
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

/// Asserts that the automatic limit takes at most 10% longer than the best fixed limit.
async fn assert_near_best(limit: Limit, count: u64, best: usize) {
    let fixed = export(&Server::new(limit), count, Concurrency::Fixed(best)).await;
    let server = Server::new(limit);
    let automatic = export(&server, count, Concurrency::Auto).await;
    let refused = server.refused.load(SeqCst);
    assert!(
        automatic <= fixed.mul_f64(1.1),
        "{automatic:?} with the automatic limit, {fixed:?} with a fixed one, {refused} requests refused"
    );
}

#[tokio::test(start_paused = true)]
async fn the_limit_settles_at_a_server_with_a_concurrency_limit() {
    for max in [1, 4, 10, 40] {
        assert_near_best(Limit::Concurrent(max), 2_000 * max as u64, max).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_settles_at_a_server_with_a_rate_limit() {
    for rate in [40, 200] {
        // A request takes 50 ms.
        assert_near_best(Limit::PerSecond(rate), 120 * rate as u64, rate / 20).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_settles_at_a_server_with_a_token_bucket() {
    for rate in [400, 1_000] {
        // A request takes 5 ms.
        assert_near_best(Limit::TokenBucket(rate), 90 * rate as u64, rate / 200).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_grows_at_a_server_without_limits() {
    assert_near_best(Limit::Unlimited, 100_000, 128).await;
}

#[tokio::test(start_paused = true)]
async fn the_limit_recovers_after_an_outage() {
    let down = Duration::from_secs(120);
    let took = export(&Server::new(Limit::Down(Instant::now(), down)), 50_000, Concurrency::Auto).await;
    let best = export(&Server::new(Limit::Unlimited), 50_000, Concurrency::Fixed(128)).await;
    // At the end of the outage, the pauses between attempts are up to half a minute.
    assert!(
        took <= down + Duration::from_secs(30) + best.mul_f64(1.1),
        "{took:?}, and {best:?} without the outage"
    );
}
