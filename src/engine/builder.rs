//! [`ExportEngineBuilder`]: the engine's options.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::checks::{Checks, Checksums};
use crate::engine::{ExportEngine, ExportObserver};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Concurrency, RetryPolicy};
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
    pub(crate) options: Options,
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) concurrency: Concurrency,
    pub(crate) memory: u64,
    pub(crate) retry: RetryPolicy,
    pub(crate) batch_size: usize,
    pub(crate) checkpoint_interval: Duration,
    pub(crate) lease: Duration,
    pub(crate) retention: Duration,
    pub(crate) checks: Checks,
    pub(crate) manifest: bool,
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
            options: Options {
                concurrency: Concurrency::default(),
                memory: 64 << 20,
                retry: RetryPolicy::default(),
                batch_size: 256,
                checkpoint_interval: Duration::from_secs(1),
                lease: Duration::from_secs(15),
                retention: Duration::from_secs(7 * 24 * 3600),
                checks: Checks::default(),
                manifest: false,
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
    pub fn operation_store(mut self, store: impl OperationStore) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// Keeps credentials of running operations here. Default: in memory, which after a restart leaves an operation
    /// that needs them `failed` until it is resumed with a destination.
    pub fn secret_store(mut self, secrets: impl SecretStore) -> Self {
        (self.secrets, self.has_own_secrets) = (Arc::new(secrets), true);
        self
    }

    /// Tells this of every batch. Default: nobody.
    pub fn observer(mut self, observer: impl ExportObserver) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// How many requests run at once towards one destination account. Default: [`Concurrency::Auto`].
    pub fn concurrency(mut self, concurrency: Concurrency) -> Self {
        self.options.concurrency = concurrency;
        self
    }

    /// The byte budget: how many bytes of instances all the engine's operations hold at once, those on their way
    /// included. Default: 64 MiB, of which one operation takes three quarters at most. The process holds some 20 MiB
    /// besides. An instance larger than the budget passes through it piece by piece; with less than 43 MiB, or while
    /// several operations run, large instances are sent in fewer or smaller blocks.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.options.memory = bytes;
        self
    }

    /// How failures that pass are repeated, towards the source and towards the destination. Default: for 10 minutes
    /// without a success between.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.options.retry = retry;
        self
    }

    /// How many instances a batch holds at most, and a page of a listing. Default: 256. A crash repeats the batches
    /// under way; smaller ones repeat less and checkpoint more.
    pub fn batch_size(mut self, instances: usize) -> Self {
        self.options.batch_size = instances;
        self
    }

    /// How often the checkpoint is saved at most. Default: every second.
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.options.checkpoint_interval = interval;
        self
    }

    /// How long a runner that does not answer keeps its operation. Default: 15 seconds; it is renewed every third of
    /// that. Clocks of replicas over one store must agree to within a fraction of it.
    pub fn lease_duration(mut self, term: Duration) -> Self {
        self.options.lease = term;
        self
    }

    /// How long ended operations are remembered. Default: 7 days. What they exported stays.
    pub fn retention(mut self, age: Duration) -> Self {
        self.options.retention = age;
        self
    }

    /// Whether what the destination says it stored is compared with what it was sent. Default: [`Checksums::Sent`].
    pub fn checksums(mut self, checksums: Checksums) -> Self {
        self.options.checks.checksums = checksums;
        self
    }

    /// Whether operations write a manifest: `<operation id>/manifest.jsonl`, with a [`ManifestEntry`] for each exported
    /// instance. Default: no. An operation keeps to what held when it was accepted.
    ///
    /// The SHA-256 of every instance is computed while it passes: half a second of CPU a GB where the processor has
    /// instructions for it, more where not. Instances that could be copied at the destination are streamed, and up to
    /// 16 MiB more are held. On Azure the manifest of one operation holds some 250 million instances.
    ///
    /// [`ManifestEntry`]: crate::ManifestEntry
    pub fn manifest(mut self, write: bool) -> Self {
        self.options.manifest = write;
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a option at zero; the message names it.
    pub fn build(self) -> Result<ExportEngine> {
        let Options { memory, batch_size, lease, .. } = self.options;
        let zero = [
            ("memory_budget", memory == 0),
            ("batch_size", batch_size == 0),
            ("lease_duration", lease.is_zero()),
            ("concurrency", self.options.concurrency == Concurrency::Fixed(0)),
        ];
        match zero.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((option, _)) => {
                Err(Error::new(ErrorKind::Invalid, format!("the engine's {option} must not be zero")))
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
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
