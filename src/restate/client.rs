//! [`Client`]: an [`ExportService`] whose operations run on Restate.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{ExportDestination, Operation, OperationId, OperationKey};
use crate::pipeline::{
    ExportConfig, OpenedDestination, PreparedOperation, announce_end, log_accepted, open_destination,
    prepare, record, reopen, status_document, stored_secret, validate_destination,
};
use crate::restate::http_client::HttpClient;
use crate::restate::messages::{Create, LISTED_KEY, OPERATION_SERVICE, Plan, Reply, Resume, View};
use crate::restate::specs;
use crate::secret::Secret;
use crate::service::{ExportService, NewOperation, OperationRecord, Target, no_limits};
use crate::sink::DestinationType;
use crate::store::OperationFilter;
use crate::sync::detached;

/// How long a workflow that was started may take to be listed by Restate.
const START_TIMEOUT: Duration = Duration::from_secs(10);

const START_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// The number of records of a page that are requested concurrently.
const MAX_CONCURRENT_REQUESTS: usize = 8;

/// Starts and manages exports on a Restate server. [`http::router`](crate::http::router) works with it as with the
/// engine in this process.
///
/// Clones share the client.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    plan: Plan,
}

struct Shared {
    config: ExportConfig,
    ingress: HttpClient,
    admin: HttpClient,
}

impl Client {
    /// Creates a client of the Restate server whose ingress and admin APIs have these URLs.
    ///
    /// `config` is created as for the workers. Its source and its destinations check requests before they are accepted,
    /// and its retention applies to the operations. A destination with a secret needs a
    /// [secret store](crate::ExportEngineBuilder::secret_store) that the workers share: credentials are never sent to
    /// Restate.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) if a URL is not an http or https URL;
    /// [`Unsupported`](ErrorKind::Unsupported) if the configuration limits the number of running operations.
    pub fn new(config: ExportConfig, ingress: &str, admin: &str) -> Result<Self> {
        if !config.options.max_running.is_unlimited() {
            let message = "max_running and max_running_per_partition are not supported on Restate";
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let retention = config.options.retention;
        let plan = Plan { window: 64, segment_batches: 256, segment_bytes: 8 << 20, retention };
        let (ingress, admin) = (HttpClient::new(ingress)?, HttpClient::new(admin)?);
        Ok(Self { shared: Arc::new(Shared { config, ingress, admin }), plan })
    }

    /// Sets the number of batches of an operation that are in progress on all workers; twice as many while one segment
    /// ends and the next starts. Default: 64. A worker queues the batches it receives, and starts one when those before
    /// it are nearly done. With more than 16 workers, use 4 for each.
    #[must_use]
    pub fn window(mut self, batches: usize) -> Self {
        self.plan.window = batches.max(1);
        self
    }
}

impl Shared {
    /// Calls a handler of an operation's object.
    async fn call<T: serde::de::DeserializeOwned>(
        &self,
        id: OperationId,
        handler: &str,
        request: &(impl serde::Serialize + Sync),
    ) -> Result<T> {
        let reply: Reply<T> = self.ingress.call(OPERATION_SERVICE, &id.to_string(), handler, request).await?;
        reply.into_result()
    }

    async fn view(&self, id: OperationId) -> Result<View> {
        self.ingress.get::<Reply<View>>(OPERATION_SERVICE, &id.to_string(), "view").await?.into_result()
    }

    async fn start(&self, new: NewOperation, plan: Plan) -> Result<Operation> {
        self.check_target(&new.target)?;
        if new.bytes_per_second.is_some() {
            return Err(no_limits());
        }
        let PreparedOperation { operation, checkpoint, secret } = prepare(&self.config, new).await?;
        let (id, destination) = (operation.spec.id, operation.spec.destination.clone());
        let accepted = Arc::clone(&operation.spec);
        let spec = specs::upload(&self.ingress, &operation.spec).await?;
        let replaced = self.store_secret(id, secret).await?;
        let created = self.call::<View>(id, "create", &Create { checkpoint, destination, spec, plan }).await;
        if created.is_ok() {
            log_accepted(&accepted);
        }
        self.finish_change(id, created, replaced).await
    }

    async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation> {
        let view = self.view(id).await?;
        let mut reopened = view.checkpoint.clone();
        let mut replaced = None;
        match target {
            Some(target) => {
                self.check_target(&target)?;
                let spec = specs::fetch(&self.ingress, id, &view.spec).await?;
                let required = Some(&*spec.destination.location);
                let OpenedDestination { destination, secret, sink: _ } =
                    open_destination(&self.config, &spec, target, required).await?;
                reopen(&mut reopened, Some(&destination));
                replaced = self.store_secret(id, secret).await?;
            }
            None => {
                stored_secret(&self.config, id, &view.destination).await?;
                reopen(&mut reopened, None);
            }
        }
        let is_abandoned = self.is_abandoned(&view).await?;
        let request = Resume { reopened, run: view.run, is_abandoned };
        let resumed = self.call::<View>(id, "resume", &request).await;
        self.finish_change(id, resumed, replaced).await
    }

    async fn cancel(&self, id: OperationId) -> Result<()> {
        let view = self.view(id).await?;
        let is_abandoned = self.is_abandoned(&view).await?;
        self.call::<()>(id, "cancel", &is_abandoned).await?;
        if is_abandoned {
            self.config.delete_secret(id).await;
            self.announce_end(id).await;
        }
        Ok(())
    }

    /// Tells the observer that an operation has ended whose workflow was killed or purged. This is tried once.
    async fn announce_end(&self, id: OperationId) {
        let Some(observer) = self.config.observer.as_deref() else { return };
        let announce = async { announce_end(observer, &record(id, self.view(id).await?.checkpoint)).await };
        if let Err(error) = announce.await {
            let kind = error.kind().as_str();
            tracing::warn!(operation = %id, kind, error = %error.report(), "the end of the operation is not delivered");
        }
    }

    async fn list(&self, filter: &OperationFilter) -> Result<Vec<OperationRecord>> {
        let (mut found, mut after) = (Vec::new(), filter.after);
        while found.len() < filter.limit {
            let page = self.list_page(after, filter.limit).await?;
            let Some((last, _)) = page.last() else { break };
            after = Some(*last);
            let matching = page.into_iter().filter_map(|(key, view)| {
                let view = view.filter(|view| filter.matches(&view.checkpoint))?;
                Some(record(key.id, view.checkpoint))
            });
            found.extend(matching);
        }
        found.truncate(filter.limit);
        Ok(found)
    }

    /// Lists at most `limit` operations, newest first. The view is `None` if the operation was deleted meanwhile.
    async fn list_page(
        &self,
        after: Option<OperationKey>,
        limit: usize,
    ) -> Result<Vec<(OperationKey, Option<View>)>> {
        #[derive(Deserialize)]
        struct Row {
            value_utf8: String,
        }
        let before = match after {
            Some(OperationKey { created_time, id }) => format!("and value_utf8 < '{created_time} {id}'"),
            None => String::new(),
        };
        let sql = format!(
            "select value_utf8 from state where service_name = '{OPERATION_SERVICE}' and key = '{LISTED_KEY}' \
             {before} order by value_utf8 desc limit {limit}"
        );
        let rows: Vec<Row> = self.admin.query(&sql).await?;
        let views = stream::iter(rows).map(|row| async move {
            let key = listed_key(&row.value_utf8)?;
            match self.view(key.id).await {
                Ok(view) => Ok((key, Some(view))),
                Err(error) if error.kind() == ErrorKind::NotFound => Ok((key, None)),
                Err(error) => Err(error),
            }
        });
        views.buffered(MAX_CONCURRENT_REQUESTS).try_collect().await
    }

    /// Returns whether the workflow of a run that has not ended was killed or purged.
    async fn is_abandoned(&self, view: &View) -> Result<bool> {
        #[derive(Deserialize)]
        struct Row {
            status: String,
        }
        if view.checkpoint.status.is_ended() || view.invocation.is_empty() {
            return Ok(false);
        }
        // An invocation id consists of letters, digits and underscores.
        let id = view.invocation.replace(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_', "");
        let sql = format!("select status from sys_invocation where id = '{id}'");
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let rows: Vec<Row> = self.admin.query(&sql).await?;
            // A workflow is started asynchronously: before it has begun it may not be listed yet.
            if !rows.is_empty() || view.has_begun || Instant::now() > deadline {
                return Ok(rows.iter().all(|row| row.status == "completed"));
            }
            sleep(START_POLL_INTERVAL).await;
        }
    }

    /// Rejects a target that workers cannot use, before anything is opened.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for an open sink, or for a secret without a shared secret store.
    fn check_target(&self, target: &Target) -> Result<()> {
        let rejected = |message: &'static str| Err(Error::invalid("/destination", message));
        match target {
            Target::Sink(_) => rejected("an open sink cannot be passed to other processes"),
            Target::Destination(_) if self.config.has_host_secrets => Ok(()),
            Target::Destination(destination) => {
                let provider = self.config.destination(destination.kind());
                match provider.map(|provider| provider.validate(destination.expose_settings())) {
                    Some(Ok(validated)) if validated.secret.is_some() => rejected(
                        "the destination has a secret, and there is no secret store that the workers share",
                    ),
                    // Other errors are reported when the destination is opened.
                    _ => Ok(()),
                }
            }
        }
    }

    /// Stores an operation's secret and returns the one that it replaced.
    async fn store_secret(&self, id: OperationId, secret: Option<Secret>) -> Result<Option<ReplacedSecret>> {
        let Some(secret) = secret else { return Ok(None) };
        let previous = self.config.secrets.get(id).await?;
        self.config.secrets.put(id, &secret).await?;
        Ok(Some(ReplacedSecret { previous }))
    }

    /// Returns the status document after a change, or restores the secret if the change was rejected.
    async fn finish_change(
        &self,
        id: OperationId,
        changed: Result<View>,
        replaced: Option<ReplacedSecret>,
    ) -> Result<Operation> {
        match changed {
            Ok(view) => Ok(status_document(id, &view.checkpoint)),
            Err(error) => {
                self.restore_secret(id, replaced).await;
                Err(error)
            }
        }
    }

    async fn restore_secret(&self, id: OperationId, replaced: Option<ReplacedSecret>) {
        let restored = match replaced {
            None => return,
            Some(ReplacedSecret { previous: Some(previous) }) => self.config.secrets.put(id, &previous).await,
            Some(ReplacedSecret { previous: None }) => self.config.secrets.delete(id).await,
        };
        if let Err(error) = restored {
            let kind = error.kind().as_str();
            tracing::warn!(operation = %id, kind, error = %error.report(), "cannot restore a rejected operation's secret");
        }
    }
}

/// The secret that was stored before.
struct ReplacedSecret {
    previous: Option<Secret>,
}

/// Parses the value of [`LISTED_KEY`].
fn listed_key(text: &str) -> Result<OperationKey> {
    let damaged = || Error::new(ErrorKind::Internal, "Restate returned an unexpected key of an operation");
    let (created_time, id) = text.split_once(' ').ok_or_else(damaged)?;
    Ok(OperationKey { created_time: created_time.parse()?, id: id.parse()? })
}

#[async_trait]
impl ExportService for Client {
    async fn start(&self, new: NewOperation) -> Result<Operation> {
        let (shared, plan) = (Arc::clone(&self.shared), self.plan.clone());
        detached(async move { shared.start(new, plan).await }).await
    }

    fn location(&self, destination: &ExportDestination) -> Result<String> {
        validate_destination(&self.shared.config, destination).map(|(_, validated)| validated.location)
    }

    fn destination_types(&self) -> Vec<DestinationType> {
        self.shared.config.destination_types()
    }

    async fn operation(&self, id: OperationId) -> Result<OperationRecord> {
        self.shared.view(id).await.map(|view| record(id, view.checkpoint))
    }

    async fn list(&self, filter: &OperationFilter) -> Result<Vec<OperationRecord>> {
        self.shared.list(filter).await
    }

    async fn cancel(&self, id: OperationId) -> Result<()> {
        self.shared.cancel(id).await
    }

    async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation> {
        let shared = Arc::clone(&self.shared);
        detached(async move { shared.resume(id, target).await }).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("plan", &self.plan).finish_non_exhaustive()
    }
}
