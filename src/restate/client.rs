//! [`Client`]: an [`ExportService`] whose operations run on Restate.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use tracing::Instrument;

use crate::engine::{
    Draft, ExportEngine, ExportService, NewOperation, OperationRecord, Target, Tried, document,
};
use crate::error::{Error, ErrorKind, Result};
use crate::model::OperationKey;
use crate::model::{Operation, OperationId};
use crate::restate::ingress::Door;
use crate::restate::operations::{LISTED, SERVICE};
use crate::restate::specs;
use crate::restate::wire::{Answer, Create, Plan, Resume, View};
use crate::secret::Secret;

/// Records of a page that are asked for at once.
const AT_ONCE: usize = 8;

/// Starts exports on a Restate server and answers for them: [`http::router`](crate::http::router) works over it as over
/// the engine in this process.
///
/// Cloning gives another handle.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    engine: ExportEngine,
    ingress: Door,
    admin: Door,
    plan: Plan,
}

impl Client {
    /// A client of the Restate server whose ingress and admin APIs have these URLs.
    ///
    /// `engine` is made like the workers'; it runs nothing. Its source and its destinations check requests before they
    /// are accepted, its retention is the operations'. A destination with a secret needs a
    /// [secret store](crate::ExportEngineBuilder::secret_store) that the workers share: credentials never go to Restate.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when a URL is none.
    pub fn new(engine: ExportEngine, ingress: &str, admin: &str) -> Result<Self> {
        let retention = engine.inner.options.retention;
        let plan = Plan { window: 64, segment_batches: 256, segment_bytes: 8 << 20, retention };
        Ok(Self(Arc::new(Shared { engine, ingress: Door::new(ingress)?, admin: Door::new(admin)?, plan })))
    }

    /// How many batches of an operation are under way at once, over all workers; while one segment ends and the next
    /// begins, twice as many. Default: 64. A worker holds what it is given, and begins a batch when it has nearly done
    /// those before; with more than 16 workers, 4 a worker.
    pub fn window(mut self, batches: usize) -> Self {
        let Shared { engine, ingress, admin, plan } = &*self.0;
        let plan = Plan { window: batches.max(1), ..plan.clone() };
        self.0 =
            Arc::new(Shared { engine: engine.clone(), ingress: ingress.clone(), admin: admin.clone(), plan });
        self
    }

    /// Runs something to its end although the caller may go away.
    async fn detached<T: Send + 'static>(
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        match tokio::spawn(work.in_current_span()).await {
            Ok(outcome) => outcome,
            Err(cause) => {
                Err(Error::new(ErrorKind::Internal, "the operation could not be started").with_source(cause))
            }
        }
    }
}

impl Shared {
    async fn view(&self, id: OperationId) -> Result<View> {
        self.ingress.ask::<Answer<View>>(SERVICE, &id.to_string(), "view").await?.into_result()
    }

    async fn start(&self, new: NewOperation) -> Result<Operation> {
        self.engine.inner.accepting()?;
        self.check_target(&new.target)?;
        let Draft { spec, checkpoint, secret, sink: _ } = self.engine.inner.draft(new).await?;
        let id = spec.id;
        let reference = specs::upload(&self.ingress, &spec).await?;
        let create =
            Create { checkpoint, destination: spec.destination, spec: reference, plan: self.plan.clone() };
        let replaced = self.keep(id, secret).await?;
        let created: Result<Answer<View>> =
            self.ingress.call(SERVICE, &id.to_string(), "create", &create).await;
        match created.and_then(Answer::into_result) {
            Ok(view) => Ok(document(id, &view.checkpoint)),
            Err(error) => {
                self.put_back(id, replaced).await;
                Err(error)
            }
        }
    }

    async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation> {
        self.engine.inner.accepting()?;
        let view = self.view(id).await?;
        let mut reopened = view.checkpoint.clone();
        let mut replaced = None;
        match target {
            Some(target) => {
                self.check_target(&target)?;
                let spec = specs::fetch(&self.ingress, id, &view.spec).await?;
                let begun_in = Some(&*spec.destination.location);
                let tried = self.engine.inner.try_target(&spec, target, begun_in).await?;
                let Tried { destination, secret, sink: _ } = tried;
                reopened.reopen(Some(&destination));
                replaced = self.keep(id, secret).await?;
            }
            None => {
                self.engine.inner.secret(id, &view.destination).await?;
                reopened.reopen(None);
            }
        }
        let is_abandoned = self.is_abandoned(&view).await?;
        let wish = Resume { reopened, run: view.run, is_abandoned };
        let resumed: Result<Answer<View>> =
            self.ingress.call(SERVICE, &id.to_string(), "resume", &wish).await;
        match resumed.and_then(Answer::into_result) {
            Ok(view) => Ok(document(id, &view.checkpoint)),
            Err(error) => {
                self.put_back(id, replaced).await;
                Err(error)
            }
        }
    }

    async fn cancel(&self, id: OperationId) -> Result<()> {
        let is_abandoned = self.is_abandoned(&self.view(id).await?).await?;
        let canceled: Answer<()> =
            self.ingress.call(SERVICE, &id.to_string(), "cancel", &is_abandoned).await?;
        canceled.into_result()?;
        if is_abandoned {
            self.engine.inner.forget(id).await;
        }
        Ok(())
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationRecord>> {
        #[derive(Deserialize)]
        struct Row {
            service_key: String,
        }
        let before = match after {
            Some(OperationKey { created_time, id }) => format!("and value_utf8 < '{created_time} {id}'"),
            None => String::new(),
        };
        let sql = format!(
            "select service_key from state where service_name = '{SERVICE}' and key = '{LISTED}' {before} \
             order by value_utf8 desc limit {limit}"
        );
        let rows: Vec<Row> = self.admin.query(&sql).await?;
        let records = stream::iter(rows).map(|row| async move {
            let id: OperationId = row.service_key.parse()?;
            match self.view(id).await {
                Ok(view) => Ok(Some(record(id, view))),
                // Forgotten since it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            }
        });
        records.buffered(AT_ONCE).try_filter_map(async |record| Ok(record)).try_collect().await
    }

    /// Whether the run's workflow is gone although the run has not ended: somebody killed or purged it.
    async fn is_abandoned(&self, view: &View) -> Result<bool> {
        #[derive(Deserialize)]
        struct Row {
            status: String,
        }
        if view.checkpoint.status.is_ended() {
            return Ok(false);
        }
        // An invocation's id is letters, digits and underscores.
        let id = view.invocation.replace(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_', "");
        let rows: Vec<Row> =
            self.admin.query(&format!("select status from sys_invocation where id = '{id}'")).await?;
        Ok(rows.iter().all(|row| row.status == "completed"))
    }

    /// What cannot go to workers is refused before anything is tried.
    fn check_target(&self, target: &Target) -> Result<()> {
        let refused = |message: &'static str| Err(Error::invalid("/destination", message));
        match target {
            Target::Sink(_) => refused("an open sink cannot be handed to other processes"),
            Target::Destination(_) if self.engine.inner.has_own_secrets => Ok(()),
            Target::Destination(destination) => {
                let provider = self.engine.inner.destinations.get(destination.kind());
                let checked = provider.map(|provider| provider.validate(destination.expose_settings()));
                match checked {
                    Some(Ok(checked)) if checked.secret.is_some() => refused(
                        "the destination has a secret, and there is no secret store that the workers share",
                    ),
                    // Whatever else is wrong is said in its turn.
                    _ => Ok(()),
                }
            }
        }
    }

    /// Stores an operation's secret; gives what was there.
    async fn keep(&self, id: OperationId, secret: Option<Secret>) -> Result<Option<Kept>> {
        let Some(secret) = secret else { return Ok(None) };
        let secrets = &self.engine.inner.secrets;
        let before = secrets.get(id).await?;
        secrets.put(id, &secret).await?;
        Ok(Some(Kept { before }))
    }

    /// Undoes [`keep`](Self::keep).
    async fn put_back(&self, id: OperationId, kept: Option<Kept>) {
        let secrets = &self.engine.inner.secrets;
        let undone = match kept {
            None => return,
            Some(Kept { before: Some(before) }) => secrets.put(id, &before).await,
            Some(Kept { before: None }) => secrets.delete(id).await,
        };
        if let Err(error) = undone {
            tracing::warn!(
                kind = error.kind().as_str(),
                "a refused operation's secret could not be taken back"
            );
        }
    }
}

/// The secret that was there before.
struct Kept {
    before: Option<Secret>,
}

fn record(id: OperationId, view: View) -> OperationRecord {
    let View { checkpoint, .. } = view;
    OperationRecord { operation: document(id, &checkpoint), context: checkpoint.context }
}

#[async_trait]
impl ExportService for Client {
    async fn start(&self, new: NewOperation) -> Result<Operation> {
        let shared = Arc::clone(&self.0);
        Self::detached(async move { shared.start(new).await }).await
    }

    async fn operation(&self, id: OperationId) -> Result<OperationRecord> {
        self.0.view(id).await.map(|view| record(id, view))
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationRecord>> {
        self.0.list(after, limit).await
    }

    async fn cancel(&self, id: OperationId) -> Result<()> {
        self.0.cancel(id).await
    }

    async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation> {
        let shared = Arc::clone(&self.0);
        Self::detached(async move { shared.resume(id, target).await }).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("plan", &self.0.plan).finish_non_exhaustive()
    }
}
