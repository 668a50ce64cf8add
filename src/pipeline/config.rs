//! [`ExportConfig`]: what a runner needs to run exports.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Concurrency, Limiter, MemoryBudget, RateLimit, Retrier, RetryPolicy, Side};
use crate::model::{OperationId, OperationSpec};
use crate::pipeline::ExportObserver;
use crate::pipeline::limited_source::LimitedSource;
use crate::pipeline::metrics::SharedMetrics;
use crate::pipeline::verify::VerifyConfig;
use crate::sink::{DestinationType, SinkProvider};
use crate::source::SourceProvider;
use crate::store::{SecretStore, TimeLimited};
use crate::sync::{lock, within};

/// The retry budget of calls that a caller waits for, or that follow the end of an operation. It ends before a start times
/// out, so that the caller gets the error of the call.
const SHORT_RETRY_BUDGET: Duration = Duration::from_secs(20);

/// Sources, destinations and options of exports, independent of where they run.
///
/// An [`ExportEngine`](crate::ExportEngine) contains one; a worker or a client on Restate is created from one. It is
/// built with [`ExportEngineBuilder::build_config`](crate::ExportEngineBuilder::build_config). Clones share the memory
/// budget and the limits on concurrent requests.
#[derive(Clone)]
pub struct ExportConfig {
    sources: Arc<dyn SourceProvider>,
    pub(crate) destinations: Arc<HashMap<String, Arc<dyn SinkProvider>>>,
    pub(crate) secrets: Arc<dyn SecretStore>,
    /// Whether the host provided the secret store, which other processes may share.
    pub(crate) has_host_secrets: bool,
    pub(crate) observer: Option<Arc<dyn ExportObserver>>,
    pub(crate) options: ExportOptions,
    pub(crate) memory: MemoryBudget,
    /// The limit on bytes of all operations.
    pub(crate) bytes: Arc<RateLimit>,
    pub(super) metrics: SharedMetrics,
    accounts: Arc<Mutex<Accounts>>,
}

/// The destination accounts of running operations.
struct Accounts {
    /// By throttle key.
    limiters: HashMap<String, Weak<Limiter>>,
    /// The limit of each account. Zero: no limit.
    bytes_per_second: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct ExportOptions {
    pub(crate) concurrency: Concurrency,
    /// In bytes.
    pub(crate) memory_budget: u64,
    /// Of all operations together. Zero: no limit.
    pub(crate) bytes_per_second: u64,
    /// Of all operations towards one destination account. Zero: no limit.
    pub(crate) bytes_per_second_per_account: u64,
    pub(crate) retry: RetryPolicy,
    /// Of a call of the source or of a store.
    pub(crate) call_timeout: Duration,
    /// In instances.
    pub(crate) batch_size: usize,
    pub(crate) retention: Duration,
    pub(crate) verify: VerifyConfig,
    /// Whether new operations write `manifest.jsonl`.
    pub(crate) manifest: bool,
    pub(crate) max_running: MaxRunning,
}

/// How many operations may run at once. `None`: any number.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MaxRunning {
    pub(crate) overall: Option<usize>,
    /// Of each partition.
    pub(crate) per_partition: Option<usize>,
}

impl MaxRunning {
    /// Whether any number of operations may run.
    #[cfg(feature = "restate")]
    pub(crate) fn is_unlimited(self) -> bool {
        self.overall.is_none() && self.per_partition.is_none()
    }
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            concurrency: Concurrency::default(),
            memory_budget: 64 << 20,
            bytes_per_second: 0,
            bytes_per_second_per_account: 0,
            retry: RetryPolicy::default(),
            call_timeout: Duration::from_secs(600),
            batch_size: 256,
            retention: Duration::from_secs(7 * 24 * 3600),
            verify: VerifyConfig::default(),
            manifest: false,
            max_running: MaxRunning::default(),
        }
    }
}

impl ExportConfig {
    /// # Errors
    /// [`ErrorKind::Invalid`] if an option is zero that must not be; the message names it.
    pub(crate) fn new(
        sources: Arc<dyn SourceProvider>,
        destinations: HashMap<String, Arc<dyn SinkProvider>>,
        (secrets, has_host_secrets): (Arc<dyn SecretStore>, bool),
        observer: Option<Arc<dyn ExportObserver>>,
        options: ExportOptions,
    ) -> Result<Self> {
        require_nonzero("memory_budget", options.memory_budget == 0)?;
        require_nonzero("call_timeout", options.call_timeout.is_zero())?;
        require_nonzero("batch_size", options.batch_size == 0)?;
        require_nonzero("concurrency", options.concurrency == Concurrency::Fixed(0))?;
        let bytes_per_second = options.bytes_per_second_per_account;
        let secrets = Arc::new(TimeLimited { inner: secrets, limit: options.call_timeout });
        Ok(Self {
            sources,
            destinations: Arc::new(destinations),
            secrets,
            has_host_secrets,
            observer,
            memory: MemoryBudget::new(options.memory_budget),
            bytes: Arc::new(RateLimit::new(options.bytes_per_second)),
            options,
            metrics: Default::default(),
            accounts: Arc::new(Mutex::new(Accounts { limiters: HashMap::new(), bytes_per_second })),
        })
    }

    /// Opens the source of an operation.
    ///
    /// # Errors
    /// The provider's, or [`ErrorKind::Unavailable`] if it does not respond.
    pub(crate) async fn open_source(&self, spec: &OperationSpec) -> Result<LimitedSource> {
        let limit = self.options.call_timeout;
        let source = within(limit, "the provider of the source", self.sources.open(spec)).await?;
        Ok(LimitedSource::new(source, limit))
    }

    /// Returns the limiter that all operations with this throttle key share.
    pub(crate) fn limiter(&self, throttle_key: &str) -> Arc<Limiter> {
        let mut accounts = lock(&self.accounts);
        accounts.limiters.retain(|_, limiter| limiter.strong_count() > 0);
        if let Some(limiter) = accounts.limiters.get(throttle_key).and_then(Weak::upgrade) {
            return limiter;
        }
        let limiter = Arc::new(Limiter::new(self.options.concurrency, accounts.bytes_per_second));
        accounts.limiters.insert(throttle_key.to_owned(), Arc::downgrade(&limiter));
        limiter
    }

    /// Changes the limit on bytes per second of each account. Zero removes it.
    pub(crate) fn set_bytes_per_second_per_account(&self, bytes: u64) {
        let mut accounts = lock(&self.accounts);
        accounts.bytes_per_second = bytes;
        accounts.limiters.values().filter_map(Weak::upgrade).for_each(|limiter| limiter.bytes().set(bytes));
    }

    /// Returns the provider of a destination type.
    pub(crate) fn destination(&self, kind: &str) -> Option<&dyn SinkProvider> {
        self.destinations.get(kind).map(|provider| &**provider)
    }

    /// The destination types with the schemas of their settings, sorted by name.
    pub(crate) fn destination_types(&self) -> Vec<DestinationType> {
        let described = self.destinations.iter().map(|(kind, provider)| {
            let named = DestinationType::new(kind);
            match provider.settings_schema() {
                Some(schema) => named.with_settings_schema(schema),
                None => named,
            }
        });
        let mut types: Vec<_> = described.collect();
        types.sort_by(|one, other| one.name.cmp(&other.name));
        types
    }

    /// Returns a retrier for calls that a caller waits for, or that follow the end of an operation.
    pub(crate) fn short_retrier(&self) -> Retrier {
        let policy = &self.options.retry;
        let policy = RetryPolicy { budget: policy.budget.min(SHORT_RETRY_BUDGET), ..policy.clone() };
        Retrier::new(Side::OperationStore, policy)
    }

    /// Deletes the secret of an operation that has ended. A failure is logged: the secret is deleted with the operation.
    pub(crate) async fn delete_secret(&self, id: OperationId) {
        if let Err(error) = self.short_retrier().run(|| self.secrets.delete(id)).await {
            let kind = error.kind().as_str();
            tracing::warn!(operation = %id, kind, error = %error.report(), "cannot delete an ended operation's secret");
        }
    }
}

/// # Errors
/// [`ErrorKind::Invalid`] if `is_zero`.
pub(crate) fn require_nonzero(option: &str, is_zero: bool) -> Result<()> {
    match is_zero {
        true => Err(Error::new(ErrorKind::Invalid, format!("the option {option} must not be zero"))),
        false => Ok(()),
    }
}

impl fmt::Debug for ExportConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destinations: Vec<_> = self.destinations.keys().collect();
        f.debug_struct("ExportConfig")
            .field("destinations", &destinations)
            .field("has_host_secrets", &self.has_host_secrets)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
