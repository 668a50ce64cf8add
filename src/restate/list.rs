//! Listing in chunks, so that no journal entry is large.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use restate_sdk::prelude::{HandlerResult, Json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::error::Error;
use crate::model::Position;
use crate::pipeline::{Batch, Planner};
use crate::restate::messages::{Listed, Run, Stopped, retryable};
use crate::restate::worker::Worker;

/// A chunk ends at the first of these limits: batches, their size as JSON in bytes, time.
const MAX_CHUNK_BATCHES: usize = 16;
const MAX_CHUNK_BYTES: usize = 512 << 10;
const MAX_CHUNK_DURATION: Duration = Duration::from_millis(500);

/// Lists for one attempt of a segment. Between two chunks it keeps what it has listed ahead.
pub(crate) struct Lister {
    worker: Worker,
    run: Run,
    planner: Arc<Mutex<Option<Planner>>>,
}

impl Lister {
    pub(crate) fn new(worker: Worker, run: Run) -> Self {
        Self { worker, run, planner: Arc::default() }
    }

    /// Lists one chunk after `position`.
    ///
    /// # Errors
    /// Errors after which another worker should try.
    pub(crate) async fn list(&self, position: Position) -> HandlerResult<Json<Listed>> {
        let context = match self.worker.open(self.run).await {
            Ok(context) => context,
            Err(error) if error.kind().is_transient() => return Err(retryable(error)),
            Err(error) => return Ok(Json(Listed::Stopped(Stopped::failed(self.run, &error)))),
        };
        let mut slot = self.planner.lock().await;
        // Taken out of the slot, since a planner whose call was dropped must not be used again.
        let kept = slot.take().filter(|planner| *planner.position() == position);
        let mut planner = kept.unwrap_or_else(|| context.pipeline().planner(position));
        let listed = tokio::select! {
            biased;
            () = context.stop.cancelled() => return Ok(Json(Listed::Stopped(context.stop_reason()))),
            listed = list_chunk(&mut planner) => listed,
        };
        match listed {
            Ok((batches, bytes)) => {
                let end = planner.position().clone();
                *slot = Some(planner);
                Ok(Json(Listed::Batches { batches, bytes, end }))
            }
            Err(error) => Ok(Json(Listed::Stopped(Stopped::failed(self.run, &error)))),
        }
    }
}

async fn list_chunk(planner: &mut Planner) -> Result<(Vec<Batch>, usize), Error> {
    let started = Instant::now();
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while batches.len() < MAX_CHUNK_BATCHES
        && bytes < MAX_CHUNK_BYTES
        && started.elapsed() < MAX_CHUNK_DURATION
    {
        let Some(batch) = planner.next().await? else { break };
        bytes += json_size(&batch);
        batches.push(batch);
    }
    Ok((batches, bytes))
}

/// Returns a batch's size as JSON, in bytes.
fn json_size(batch: &Batch) -> usize {
    struct ByteCounter(usize);
    impl io::Write for ByteCounter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = ByteCounter(0);
    // A batch that cannot be serialized fails when it is sent.
    _ = serde_json::to_writer(&mut counter, batch);
    counter.0
}
