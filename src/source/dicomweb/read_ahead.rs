//! [`ReadAhead`]: reads studies of small instances with one request each.
//!
//! A request for each instance costs a round trip and the server's work for a request, which is more than the transfer of a
//! small instance. When an instance turns out to be small, the study or series that it was listed with is read as one
//! multipart response into a cache, and instances that it returns in time need no request of their own. All others are read
//! one by one: what the response does not contain, contains too late or contains after an error is never missed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::client::Client;
use super::retrieve::retrieve_all;
use super::study_listing::StudyScope;
use crate::content::head::{UidValue, read_prefix};
use crate::error::Result;
use crate::model::{Instance, InstanceIdentifier, Uid};
use crate::sync::lock;

/// The default capacity in bytes.
pub(super) const DEFAULT_CAPACITY: u64 = 16 << 20;

/// Larger instances are not read ahead.
const MAX_INSTANCE: u64 = 128 << 10;

/// The instances of smaller studies and series are read one by one.
const MIN_INSTANCES: usize = 16;

/// The maximum number of studies and series that are read at once.
const MAX_CONCURRENT: usize = 4;

/// How many studies and series are remembered, so that none is read twice.
const MAX_REMEMBERED: usize = 1024;

/// The bytes that one permit of the semaphore stands for.
const PERMIT_LEN: u64 = 1 << 10;

/// How long a read waits for room in the cache before it ends.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// How long instances are kept that nobody opens: their operation may have ended.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// The cache, and what is being read.
pub(super) struct ReadAhead {
    /// The free room of the cache.
    room: Arc<Semaphore>,
    /// The maximum length of an instance.
    max_instance: u64,
    reads: Arc<Mutex<Reads>>,
}

#[derive(Default)]
struct Reads {
    active: HashMap<StudyScope, ActiveRead>,
    /// What was read or is being read, the newest at the back.
    remembered: VecDeque<StudyScope>,
}

struct ActiveRead {
    read: Arc<StudyRead>,
    _task: AbortOnDropHandle<()>,
}

/// A study or series that is being read.
struct StudyRead {
    scope: StudyScope,
    state: Mutex<State>,
    /// Notified when an instance arrives and when the phase changes.
    changed: Notify,
}

struct State {
    phase: Phase,
    arrived: HashMap<Uid, (Bytes, OwnedSemaphorePermit)>,
    /// Instances that were opened: they are not needed when they arrive.
    opened: HashSet<Uid>,
    last_opened: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Reading,
    /// There is no room for the next instance.
    Full,
    Ended,
}

/// What an instance was listed with. It is the locator of the instance.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct ListedWith {
    /// The number of instances.
    pub(super) instances: usize,
    /// Whether it is a series and not a whole study.
    pub(super) is_series: bool,
}

impl ReadAhead {
    pub(super) fn with_capacity(bytes: u64) -> Self {
        let permits = usize::try_from(bytes / PERMIT_LEN).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(permits)),
            max_instance: MAX_INSTANCE.min(permits as u64 * PERMIT_LEN),
            reads: Arc::default(),
        }
    }

    /// Returns the bytes of an instance whose study or series is being read. Waits for the instance while the read advances.
    ///
    /// # Cancellation
    /// Dropping the future changes nothing.
    pub(super) async fn take(&self, identifier: &InstanceIdentifier) -> Option<Bytes> {
        let read = {
            let reads = lock(&self.reads);
            let active = |is_series| reads.active.get(&scope(identifier, is_series));
            Arc::clone(&active(false).or_else(|| active(true))?.read)
        };
        read.take(identifier.sop_instance_uid()).await
    }

    /// Starts to read what an instance was listed with, after the instance was retrieved with this length, if that is likely
    /// to be faster than one request for each instance.
    pub(super) fn retrieved(&self, client: &Client, instance: &Instance, length: Option<u64>) {
        if !length.is_some_and(|length| (1..=self.max_instance).contains(&length)) {
            return;
        }
        let listed: ListedWith = instance.locator().decode().unwrap_or_default();
        if listed.instances < MIN_INSTANCES {
            return;
        }
        let scope = scope(instance.identifier(), listed.is_series);
        let mut reads = lock(&self.reads);
        if reads.remembered.contains(&scope) {
            return;
        }
        if reads.active.values().filter(|active| active.read.is_reading()).count() == MAX_CONCURRENT {
            return;
        }
        if reads.remembered.len() == MAX_REMEMBERED {
            reads.remembered.pop_front();
        }
        reads.remembered.push_back(scope.clone());
        let read = Arc::new(StudyRead::new(scope.clone()));
        let (client, room, max) = (client.clone(), Arc::clone(&self.room), self.max_instance);
        let all = Arc::downgrade(&self.reads);
        let task = {
            let read = Arc::clone(&read);
            async move {
                if let Err(error) = read.run(&client, &room, max).await {
                    let kind = error.kind().as_str();
                    tracing::debug!(kind, error = %error.report(), "a study is read instance by instance");
                }
                read.set_phase(Phase::Ended);
                read.wait_until_idle().await;
                if let Some(all) = all.upgrade() {
                    lock(&all).active.remove(&read.scope);
                }
            }
        };
        let task = AbortOnDropHandle::new(tokio::spawn(task.in_current_span()));
        reads.active.insert(scope, ActiveRead { read, _task: task });
    }
}

/// The study or the series of an instance.
fn scope(identifier: &InstanceIdentifier, is_series: bool) -> StudyScope {
    let series = is_series.then(|| identifier.series_instance_uid().clone());
    StudyScope { study: identifier.study_instance_uid().clone(), series }
}

impl StudyRead {
    fn new(scope: StudyScope) -> Self {
        let state = State {
            phase: Phase::Reading,
            arrived: HashMap::new(),
            opened: HashSet::new(),
            last_opened: Instant::now(),
        };
        Self { scope, state: Mutex::new(state), changed: Notify::new() }
    }

    fn is_reading(&self) -> bool {
        lock(&self.state).phase != Phase::Ended
    }

    fn set_phase(&self, phase: Phase) {
        lock(&self.state).phase = phase;
        self.changed.notify_waiters();
    }

    async fn take(&self, instance: &Uid) -> Option<Bytes> {
        loop {
            // Registered before the state is read, so that no change after it is missed.
            let changed = self.changed.notified();
            {
                let mut state = lock(&self.state);
                state.last_opened = Instant::now();
                if let Some((bytes, _room)) = state.arrived.remove(instance) {
                    state.opened.insert(instance.clone());
                    return Some(bytes);
                }
                if state.phase != Phase::Reading || state.opened.contains(instance) {
                    state.opened.insert(instance.clone());
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Reads the response into the cache until it ends, there is no room for long, or something is not as expected.
    async fn run(&self, client: &Client, room: &Arc<Semaphore>, max_instance: u64) -> Result<()> {
        let StudyScope { study, series } = &self.scope;
        let mut parts = retrieve_all(client, &self.scope, max_instance).await?;
        while let Some(bytes) = parts.next().await? {
            let (head, _) = read_prefix(&bytes);
            let UidValue::Uid(instance) = head.sop_instance else { continue };
            let is = |value: &UidValue, uid: &Uid| matches!(value, UidValue::Uid(found) if found == uid);
            let is_own =
                is(&head.study, study) && series.as_ref().is_none_or(|series| is(&head.series, series));
            if !is_own || lock(&self.state).opened.contains(&instance) {
                continue;
            }
            let Some(permit) = self.acquire(room, bytes.len() as u64).await else { return Ok(()) };
            lock(&self.state).arrived.insert(instance, (bytes, permit));
            self.changed.notify_waiters();
        }
        Ok(())
    }

    /// Waits for room in the cache. Meanwhile, instances are read one by one.
    async fn acquire(&self, room: &Arc<Semaphore>, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let permits = bytes.div_ceil(PERMIT_LEN) as u32;
        if let Ok(permit) = Arc::clone(room).try_acquire_many_owned(permits) {
            return Some(permit);
        }
        self.set_phase(Phase::Full);
        let permit = timeout(MAX_WAIT, Arc::clone(room).acquire_many_owned(permits)).await;
        self.set_phase(Phase::Reading);
        permit.ok()?.ok()
    }

    /// Waits until every instance that has arrived was opened, or until none was opened for [`MAX_IDLE`].
    async fn wait_until_idle(&self) {
        loop {
            let wait = {
                let state = lock(&self.state);
                match state.arrived.is_empty() {
                    true => return,
                    false => MAX_IDLE.saturating_sub(state.last_opened.elapsed()),
                }
            };
            if wait.is_zero() {
                return;
            }
            sleep(wait.min(Duration::from_secs(1))).await;
        }
    }
}
