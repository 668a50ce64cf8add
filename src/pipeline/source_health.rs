//! [`SourceHealth`]: tells an instance that fails from a source that fails for every instance.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures::TryStreamExt;
use tokio::sync::Mutex as AsyncMutex;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{MemoryShare, Retrier};
use crate::model::Instance;
use crate::pipeline::limited_source::LimitedSource;
use crate::sync::{catch_panic, lock};

/// The number of consecutive instances that are refused alike after which the source may refuse all of them.
const MIN_SUSPICIOUS: usize = 12;

/// The maximum size of an instance that is read again to find out whether the source works, in bytes.
const MAX_PROBE_SIZE: u64 = 8 << 20;

/// Whether the source of one run works: what it has returned, and what it has refused since.
///
/// An archive whose license expired, a storage that is not mounted, or a login page in front of a server refuse every
/// instance in the same way. That is a failure of the source, which must not skip all instances.
#[derive(Debug, Default)]
pub(crate) struct SourceHealth {
    state: Mutex<State>,
    /// Held while an instance is read again.
    probing: AsyncMutex<()>,
    /// Whether nothing is refused and an instance to probe is known, so that a success takes no lock.
    is_settled: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    refused: Option<Refused>,
    /// An instance that the source has returned in this run.
    probe: Option<Instance>,
}

/// Consecutive instances that were refused with the same kind of error and the same message.
#[derive(Debug)]
struct Refused {
    kind: ErrorKind,
    message: String,
    count: usize,
}

impl Refused {
    fn is_alike(&self, error: &Error) -> bool {
        self.kind == error.kind() && self.message == error.message()
    }
}

impl SourceHealth {
    /// Records an instance that was exported.
    pub(crate) fn exported(&self, instance: &Instance, size: u64) {
        if self.is_settled.load(Relaxed) {
            return;
        }
        let mut state = lock(&self.state);
        state.refused = None;
        if size <= MAX_PROBE_SIZE {
            state.probe.get_or_insert_with(|| instance.clone());
        }
        self.is_settled.store(state.probe.is_some(), Relaxed);
    }

    /// Records an instance that was skipped because of this error of the source.
    pub(crate) fn refused(&self, error: &Error) {
        let mut state = lock(&self.state);
        self.is_settled.store(false, Relaxed);
        match &mut state.refused {
            Some(refused) if refused.is_alike(error) => refused.count += 1,
            refused => {
                *refused =
                    Some(Refused { kind: error.kind(), message: error.message().to_owned(), count: 1 });
            }
        }
    }

    /// Reads an instance again that the source has returned, unless another call is doing so. If the source returns it, it
    /// works for others than the instances that fail, although there may be none left to export.
    pub(crate) async fn probe(&self, source: &LimitedSource, retry: &Retrier, memory: &MemoryShare) {
        let Ok(_probing) = self.probing.try_lock() else { return };
        let Some(probe) = lock(&self.state).probe.clone() else { return };
        if read(source, &probe, memory).await.is_ok() {
            retry.completed();
        }
    }

    /// Confirms that the source does not refuse every instance, before instances that it refused are skipped: it still
    /// returns an instance that it has returned before.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it does not, or if it has refused a dozen instances alike and returned none.
    pub(crate) async fn confirm(
        &self,
        source: &LimitedSource,
        retry: &Retrier,
        memory: &MemoryShare,
    ) -> Result<()> {
        let (kind, message, count, probe) = {
            let state = lock(&self.state);
            let Some(refused) = &state.refused else { return Ok(()) };
            (refused.kind, refused.message.clone(), refused.count, state.probe.clone())
        };
        let is_suspicious = count >= MIN_SUSPICIOUS;
        let failure = match probe {
            None if !is_suspicious => return Ok(()),
            None => None,
            Some(probe) => match retry.run(|| read(source, &probe, memory)).await {
                Ok(()) => {
                    lock(&self.state).refused = None;
                    return Ok(());
                }
                // It may have been deleted, for example because it was exported.
                Err(error) if error.kind() == ErrorKind::NotFound && !is_suspicious => return Ok(()),
                Err(error) => Some(error),
            },
        };
        let message = format!("the source refuses every instance: {message}");
        let error = Error::new(ErrorKind::Unavailable, message);
        Err(match failure {
            Some(failure) if failure.kind() == ErrorKind::Unauthorized => failure,
            Some(failure) => error.with_source(failure),
            None => {
                error.with_source(Error::new(kind, format!("{count} instances were refused, none returned")))
            }
        })
    }
}

/// Reads an instance to its end.
async fn read(source: &LimitedSource, instance: &Instance, memory: &MemoryShare) -> Result<()> {
    let _permit = memory.acquire(instance.size().unwrap_or(MAX_PROBE_SIZE)).await;
    let read = async { source.open(instance).await?.into_stream().try_for_each(|_| async { Ok(()) }).await };
    catch_panic(read, "the source panicked").await
}
