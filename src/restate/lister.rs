//! The step `plan`: a stretch of a listing at a time, so that no journal entry holds much.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use restate_sdk::prelude::{HandlerResult, Json};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::engine::{Batch, Planner};
use crate::error::Error;
use crate::model::Position;
use crate::restate::wire::{Listed, Run, Stopped, again};
use crate::restate::worker::Worker;

/// What a stretch ends at, whichever comes first: so many batches, so many bytes of them as JSON, so long.
const BATCHES: usize = 16;
const BYTES: usize = 512 << 10;
const TIME: Duration = Duration::from_millis(500);

/// Lists for one attempt of a segment. Between two stretches it keeps what it has looked up ahead.
pub(crate) struct Lister {
    worker: Worker,
    run: Run,
    planner: Arc<Mutex<Option<Planner>>>,
}

impl Lister {
    pub(crate) fn new(worker: Worker, run: Run) -> Self {
        Self { worker, run, planner: Arc::default() }
    }

    /// Lists on from a position.
    ///
    /// # Errors
    /// Those after which another worker is to try.
    pub(crate) async fn list(&self, after: Position) -> HandlerResult<Json<Listed>> {
        let opened = match self.worker.open(self.run).await {
            Ok(opened) => opened,
            Err(error) if error.kind().is_transient() => return Err(again(error)),
            Err(error) => return Ok(Json(Listed::Stopped(Stopped::failed(&error)))),
        };
        let mut slot = self.planner.lock().await;
        // Taken out: if this is dropped in the midst of it, the planner is of no use any more.
        let kept = slot.take().filter(|planner| *planner.position() == after);
        let mut planner = kept.unwrap_or_else(|| self.worker.planner(&opened, after));
        let listed = tokio::select! {
            biased;
            () = opened.stop.cancelled() => return Ok(Json(Listed::Stopped(opened.why_stopped()))),
            listed = stretch(&mut planner) => listed,
        };
        match listed {
            Ok((batches, bytes)) => {
                let end = planner.position().clone();
                *slot = Some(planner);
                Ok(Json(Listed::Batches { batches, bytes, end }))
            }
            Err(error) => Ok(Json(Listed::Stopped(Stopped::failed(&error)))),
        }
    }
}

async fn stretch(planner: &mut Planner) -> Result<(Vec<Batch>, usize), Error> {
    let began = Instant::now();
    let (mut batches, mut bytes) = (Vec::new(), 0);
    while batches.len() < BATCHES && bytes < BYTES && began.elapsed() < TIME {
        let Some(batch) = planner.next().await? else { break };
        bytes += size(&batch);
        batches.push(batch);
    }
    Ok((batches, bytes))
}

/// A batch's size as JSON.
fn size(batch: &Batch) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Nothing in a batch cannot be written; if it could, its message would say so.
    _ = serde_json::to_writer(&mut count, batch);
    count.0
}
