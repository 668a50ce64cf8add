//! [`ExportEngineBuilder`]: the engine's knobs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::checks::{Checks, Checksums};
use crate::engine::{ExportEngine, ExportObserver};
use crate::error::{Error, ErrorKind, Result};
use crate::flow::{Concurrency, Retry};
use crate::sink::SinkProvider;
use crate::source::{InstanceSource, OneSource, SourceProvider};
use crate::store::{MemoryOperationStore, MemorySecretStore, OperationStore, SecretStore};

/// What an engine is made of; see [`ExportEngine::builder`].
#[must_use]
pub struct ExportEngineBuilder {
    pub(crate) sources: Arc<dyn SourceProvider>,
    pub(crate) destinations: HashMap<String, Arc<dyn SinkProvider>>,
    pub(crate) store: Arc<dyn OperationStore>,
    pub(crate) secrets: Arc<dyn SecretStore>,
    pub(crate) has_own_secrets: bool,
    pub(crate) observer: Option<Arc<dyn ExportObserver>>,
    pub(crate) knobs: Knobs,
}

#[derive(Debug, Clone)]
pub(crate) struct Knobs {
    pub(crate) concurrency: Concurrency,
    pub(crate) memory: u64,
    pub(crate) retry: Retry,
    pub(crate) batch_size: usize,
    pub(crate) checkpoint_every: Duration,
    pub(crate) lease: Duration,
    pub(crate) retention: Duration,
    pub(crate) checks: Checks,
    pub(crate) receipt: bool,
}

impl ExportEngineBuilder {
    pub(crate) fn over(sources: Arc<dyn SourceProvider>) -> Self {
        Self {
            sources,
            destinations: HashMap::new(),
            store: Arc::new(MemoryOperationStore::new()),
            secrets: Arc::new(MemorySecretStore::new()),
            has_own_secrets: false,
            observer: None,
            knobs: Knobs {
                concurrency: Concurrency::default(),
                memory: 64 << 20,
                retry: Retry::default(),
                batch_size: 256,
                checkpoint_every: Duration::from_secs(1),
                lease: Duration::from_secs(15),
                retention: Duration::from_secs(7 * 24 * 3600),
                checks: Checks::default(),
                receipt: false,
            },
        }
    }

    pub(crate) fn over_one(source: impl InstanceSource) -> Self {
        Self::over(Arc::new(OneSource(Arc::new(source))))
    }

    /// Opens destinations of this type with this provider. A second registration replaces the first, so that an
    /// application's tests can stand in for `azureblob`. Default: none.
    pub fn destination(mut self, kind: &str, provider: impl SinkProvider) -> Self {
        self.destinations.insert(kind.to_ascii_lowercase(), Arc::new(provider));
        self
    }

    /// Keeps operations here. Default: in memory.
    pub fn store(mut self, store: Arc<dyn OperationStore>) -> Self {
        self.store = store;
        self
    }

    /// Keeps credentials of running operations here. Default: in memory, which after a restart leaves an operation
    /// that needs them `failed` until it is resumed with a destination.
    pub fn secrets(mut self, secrets: Arc<dyn SecretStore>) -> Self {
        (self.secrets, self.has_own_secrets) = (secrets, true);
        self
    }

    /// Tells this of every batch. Default: nobody.
    pub fn observer(mut self, observer: impl ExportObserver) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// How many requests run at once towards one destination account. Default: [`Concurrency::Auto`].
    pub fn concurrency(mut self, concurrency: Concurrency) -> Self {
        self.knobs.concurrency = concurrency;
        self
    }

    /// The byte budget: how many bytes of instances all the engine's operations hold at once, those on their way
    /// included. Default: 64 MiB, of which one operation takes three quarters at most. The process holds some 20 MiB
    /// besides. An instance larger than the budget passes through it piece by piece; with less than 43 MiB, or while
    /// several operations run, large instances are sent in fewer or smaller blocks.
    pub fn memory(mut self, bytes: u64) -> Self {
        self.knobs.memory = bytes;
        self
    }

    /// How failures that pass are repeated, towards the source and towards the destination. Default: for 10 minutes
    /// without a success between.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.knobs.retry = retry;
        self
    }

    /// How many instances a batch holds at most, and a page of a listing. Default: 256. A crash repeats the batches
    /// under way; smaller ones repeat less and checkpoint more.
    pub fn batch_size(mut self, instances: usize) -> Self {
        self.knobs.batch_size = instances;
        self
    }

    /// How often the checkpoint is saved at most. Default: every second.
    pub fn checkpoint_every(mut self, interval: Duration) -> Self {
        self.knobs.checkpoint_every = interval;
        self
    }

    /// How long a runner that does not answer keeps its operation. Default: 15 seconds; it is renewed every third of
    /// that. Clocks of replicas over one store must agree to within a fraction of it.
    pub fn lease(mut self, term: Duration) -> Self {
        self.knobs.lease = term;
        self
    }

    /// How long ended operations are remembered. Default: 7 days. What they exported stays.
    pub fn retention(mut self, age: Duration) -> Self {
        self.knobs.retention = age;
        self
    }

    /// Whether what the destination says it stored is compared with what it was sent. Default: [`Checksums::Sent`].
    pub fn checksums(mut self, checksums: Checksums) -> Self {
        self.knobs.checks.checksums = checksums;
        self
    }

    /// Whether operations write a receipt: `<operation id>/manifest.jsonl`, with a [`ManifestEntry`] for each exported
    /// instance. Default: no. An operation keeps to what held when it was accepted.
    ///
    /// The SHA-256 of every instance is computed while it passes: half a second of CPU a GB where the processor has
    /// instructions for it, more where not. Instances that could be copied at the destination are streamed, and up to
    /// 16 MiB more are held. On Azure the receipt of one operation holds some 250 million instances.
    ///
    /// [`ManifestEntry`]: crate::ManifestEntry
    pub fn receipt(mut self, write: bool) -> Self {
        self.knobs.receipt = write;
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a knob at zero; the message names it.
    pub fn build(self) -> Result<ExportEngine> {
        let Knobs { memory, batch_size, lease, .. } = self.knobs;
        let zero = [
            ("memory", memory == 0),
            ("batch_size", batch_size == 0),
            ("lease", lease.is_zero()),
            ("concurrency", self.knobs.concurrency == Concurrency::Fixed(0)),
        ];
        match zero.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((knob, _)) => {
                Err(Error::new(ErrorKind::Invalid, format!("the engine's {knob} must not be zero")))
            }
            None => Ok(ExportEngine::assemble(self)),
        }
    }
}

impl std::fmt::Debug for ExportEngineBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let destinations: Vec<_> = self.destinations.keys().collect();
        f.debug_struct("ExportEngineBuilder")
            .field("destinations", &destinations)
            .field("has_own_secrets", &self.has_own_secrets)
            .field("knobs", &self.knobs)
            .finish_non_exhaustive()
    }
}
