//! [`ExportEngineBuilder`]: sources, destinations and options of an engine.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::engine::ExportEngine;
use crate::engine::runner::RunnerOptions;
use crate::error::Result;
use crate::limits::{Concurrency, RetryPolicy};
use crate::pipeline::{Checksums, ExportConfig, ExportObserver, ExportOptions, require_nonzero};
use crate::sink::SinkProvider;
use crate::source::{InstanceSource, SingleSource, SourceProvider};
use crate::store::{MemoryOperationStore, MemorySecretStore, OperationStore, SecretStore, TimeLimited};

/// Builds an [`ExportEngine`]; see [`ExportEngine::builder`].
///
/// ```
/// use std::time::Duration;
/// use dicom_export::{Concurrency, ExportEngine, MemorySink, MemorySource, RetryPolicy};
///
/// let engine = ExportEngine::builder(MemorySource::new())
///     .destination("azureblob", MemorySink::new().provider())
///     .memory_budget(256 << 20)
///     .concurrency(Concurrency::Fixed(32))
///     .retry(RetryPolicy::with_budget(Duration::from_secs(3600)))
///     .build()?;
/// # Ok::<(), dicom_export::Error>(())
/// ```
#[must_use]
pub struct ExportEngineBuilder {
    sources: Arc<dyn SourceProvider>,
    destinations: HashMap<String, Arc<dyn SinkProvider>>,
    store: Arc<dyn OperationStore>,
    /// `None`: in memory.
    secrets: Option<Arc<dyn SecretStore>>,
    observer: Option<Arc<dyn ExportObserver>>,
    options: ExportOptions,
    runner: RunnerOptions,
}

impl ExportEngine {
    /// Returns a builder for an engine that exports from one source.
    pub fn builder(source: impl InstanceSource) -> ExportEngineBuilder {
        ExportEngineBuilder::new(source)
    }

    /// Returns a builder for an engine whose operations each have their own source, for example one per tenant.
    pub fn builder_with_provider(sources: impl SourceProvider) -> ExportEngineBuilder {
        ExportEngineBuilder::with_provider(sources)
    }
}

impl ExportEngineBuilder {
    fn new(source: impl InstanceSource) -> Self {
        Self::with_provider(SingleSource(Arc::new(source)))
    }

    fn with_provider(sources: impl SourceProvider) -> Self {
        Self {
            sources: Arc::new(sources),
            destinations: HashMap::new(),
            store: Arc::new(MemoryOperationStore::new()),
            secrets: None,
            observer: None,
            options: ExportOptions::default(),
            runner: RunnerOptions {
                name: default_runner_name(),
                checkpoint_interval: Duration::from_secs(1),
                lease_duration: Duration::from_secs(15),
                takeover_interval: Some(Duration::from_secs(15)),
            },
        }
    }

    /// Registers the provider of a destination type. A second provider for the same type replaces the first, so that an
    /// application's tests can replace `azureblob`. Default: none.
    pub fn destination(mut self, kind: &str, provider: impl SinkProvider) -> Self {
        self.destinations.insert(kind.to_ascii_lowercase(), Arc::new(provider));
        self
    }

    /// Sets the store of operations. Default: in memory.
    pub fn operation_store(mut self, store: impl OperationStore) -> Self {
        self.store = Arc::new(store);
        self
    }

    /// Sets the store of the credentials of running operations. Default: in memory. After a restart, an operation whose
    /// credentials were in memory fails with `credentialsNeeded`, and can be resumed with a destination.
    pub fn secret_store(mut self, secrets: impl SecretStore) -> Self {
        self.secrets = Some(Arc::new(secrets));
        self
    }

    /// Registers an observer that is called after each batch. Default: none.
    pub fn observer(mut self, observer: impl ExportObserver) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Sets the number of concurrent requests towards one destination account. Default: [`Concurrency::Auto`].
    pub fn concurrency(mut self, concurrency: Concurrency) -> Self {
        self.options.concurrency = concurrency;
        self
    }

    /// Sets the memory budget: how many bytes of instances all operations of the engine hold at once, including those
    /// being sent. Default: 64 MiB. One operation uses at most three quarters of it. The process needs about 20 MiB in
    /// addition. An instance larger than the budget is streamed in parts; with less than 43 MiB, or while several
    /// operations run, large instances are sent in fewer or smaller blocks.
    pub fn memory_budget(mut self, bytes: u64) -> Self {
        self.options.memory_budget = bytes;
        self
    }

    /// Sets how many bytes of instances all operations of the engine transfer per second, for example because the line is
    /// shared. Bytes that a destination copies from the source itself do not count. It can be changed later with
    /// [`ExportEngine::set_bytes_per_second`]. Default: 0, which means no limit.
    pub fn bytes_per_second(mut self, bytes: u64) -> Self {
        self.options.bytes_per_second = bytes;
        self
    }

    /// Sets how many bytes of instances all operations of the engine transfer per second to one destination account.
    /// Default: 0, which means no limit.
    pub fn bytes_per_second_per_account(mut self, bytes: u64) -> Self {
        self.options.bytes_per_second_per_account = bytes;
        self
    }

    /// Sets how transient failures of the source and of the destination are retried. Default: for 10 minutes without a
    /// success in between.
    pub fn retry(mut self, retry: RetryPolicy) -> Self {
        self.options.retry = retry;
        self
    }

    /// Sets how long a call of the source or of a store may take, and how long a content may pause between two chunks.
    /// Default: 10 minutes. A call that takes longer counts as a transient failure. Calls of the destination have no such
    /// limit: how long a `put` takes depends on the size of the instance.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.options.call_timeout = timeout;
        self
    }

    /// Sets the maximum number of instances of a batch and of a listing page. Default: 256. Batches in progress are
    /// repeated after a crash: smaller ones repeat less and save more checkpoints.
    pub fn batch_size(mut self, instances: usize) -> Self {
        self.options.batch_size = instances;
        self
    }

    /// Sets the shortest time between two checkpoints. Default: 1 second.
    pub fn checkpoint_interval(mut self, interval: Duration) -> Self {
        self.runner.checkpoint_interval = interval;
        self
    }

    /// Sets the name of this runner, which tells the replicas that share a store apart. It is stored with the operations
    /// that the engine runs, and is part of their status documents and its log. Default: the name of the host and the id of
    /// the process, as in `pacs-1:4711`.
    pub fn runner_name(mut self, name: impl Into<String>) -> Self {
        self.runner.name = name.into();
        self
    }

    /// Sets how long an operation belongs to a runner that does not respond. Default: 15 seconds. A runner renews its
    /// lease after each third of this time. The clocks of replicas that share a store must agree to within a fraction of
    /// it, unless the store has a [clock](OperationStore::now) of its own.
    pub fn lease_duration(mut self, duration: Duration) -> Self {
        self.runner.lease_duration = duration;
        self
    }

    /// Sets how often the engine looks for operations that have not ended and that no runner holds, for example because
    /// their process was killed, and runs them. Default: 15 seconds. `None` turns it off, for a host that calls
    /// [`ExportEngine::run`] from a job system of its own. The search starts with the first call of
    /// [`ExportEngine::start`], [`ExportEngine::resume`] or [`ExportEngine::resume_all`], and ends with the shutdown.
    pub fn takeover_interval(mut self, interval: Option<Duration>) -> Self {
        self.runner.takeover_interval = interval;
        self
    }

    /// Sets how many operations may run at once; a start or a resumption above it fails with
    /// [`ErrorKind::LimitReached`](crate::ErrorKind::LimitReached). Default: any number.
    ///
    /// Every operation in the store that has not ended counts: also those of other replicas, and those that a crash has
    /// left, until they end or are canceled. Two replicas may each accept one more operation at the same moment. The client
    /// of a Restate server does not support limits.
    pub fn max_running(mut self, operations: usize) -> Self {
        self.options.max_running.overall = Some(operations);
        self
    }

    /// Sets how many operations of one [partition](crate::OperationContext::partition) may run at once, as
    /// [`max_running`](Self::max_running) does for all. Operations without a partition are not limited. Default: any
    /// number.
    pub fn max_running_per_partition(mut self, operations: usize) -> Self {
        self.options.max_running.per_partition = Some(operations);
        self
    }

    /// Sets how long ended operations are kept in the store. Default: 7 days. Exported data is never deleted.
    pub fn retention(mut self, age: Duration) -> Self {
        self.options.retention = age;
        self
    }

    /// Sets whether the checksums that the destination returns are verified. Default: [`Checksums::Sent`].
    pub fn checksums(mut self, checksums: Checksums) -> Self {
        self.options.verify.checksums = checksums;
        self
    }

    /// Sets whether an instance's UIDs are compared with the identifier under which it is listed. Default:
    /// [`IdentityCheck::Off`](crate::IdentityCheck::Off). A comparison takes microseconds.
    #[cfg(feature = "dicom")]
    pub fn identity_check(mut self, check: crate::IdentityCheck) -> Self {
        self.options.verify.content_check = check.into_content_check();
        self
    }

    /// Sets whether operations write `<operation id>/manifest.jsonl`, with a [`ManifestEntry`] for each exported
    /// instance. Default: no. An operation keeps the setting with which it was started.
    ///
    /// The SHA-256 of each instance is computed while it is read, which takes half a second of CPU time per GB on a
    /// processor with SHA instructions. Nothing is copied at the destination, and up to 16 MiB more memory is used. On
    /// Azure, the manifest of one operation can hold about 250 million instances.
    ///
    /// [`ManifestEntry`]: crate::ManifestEntry
    pub fn manifest(mut self, write: bool) -> Self {
        self.options.manifest = write;
        self
    }

    /// Builds the engine.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if an option is zero that must not be; the message names it.
    pub fn build(self) -> Result<ExportEngine> {
        let store =
            Arc::new(TimeLimited { inner: Arc::clone(&self.store), limit: self.options.call_timeout });
        let runner = self.runner.clone();
        require_nonzero("lease_duration", runner.lease_duration.is_zero())?;
        require_nonzero("takeover_interval", runner.takeover_interval == Some(Duration::ZERO))?;
        Ok(ExportEngine::new(self.build_config()?, store, runner))
    }

    /// Builds the configuration for another runner, which has its own operation store, leases and checkpoints.
    ///
    /// # Errors
    /// As [`build`](Self::build).
    pub fn build_config(self) -> Result<ExportConfig> {
        let secrets = match self.secrets {
            Some(secrets) => (secrets, true),
            None => (Arc::new(MemorySecretStore::new()) as Arc<dyn SecretStore>, false),
        };
        ExportConfig::new(self.sources, self.destinations, secrets, self.observer, self.options)
    }
}

fn default_runner_name() -> String {
    format!("{}:{}", gethostname::gethostname().to_string_lossy(), std::process::id())
}

impl fmt::Debug for ExportEngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destinations: Vec<_> = self.destinations.keys().collect();
        f.debug_struct("ExportEngineBuilder")
            .field("destinations", &destinations)
            .field("has_host_secrets", &self.secrets.is_some())
            .field("options", &self.options)
            .field("runner", &self.runner)
            .finish_non_exhaustive()
    }
}
