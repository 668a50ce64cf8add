//! From a request to a stored operation: everything that is checked before it is accepted.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::inner::Inner;
use crate::engine::lines::logs;
use crate::engine::service::{NewOperation, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::limits::{Retrier, RetryPolicy};
use crate::model::BlobPath;
use crate::model::Checkpoint;
use crate::model::Timestamp;
use crate::model::{OperationId, OperationSpec, StoredDestination};
use crate::secret::Secret;
use crate::sink::BlobSink;

/// How long passing trouble of the destination or of a store may hold up a start, or the end.
const BRIEFLY: Duration = Duration::from_secs(30);

/// The destination type of an operation that was given an open sink.
const OPEN_SINK: &str = "sink";

/// A target that has been tried.
pub(crate) struct Tried {
    pub(crate) destination: StoredDestination,
    pub(crate) secret: Option<Secret>,
    pub(crate) sink: Arc<dyn BlobSink>,
}

/// An operation that has been checked and tried, and is stored nowhere yet.
pub(crate) struct Draft {
    pub(crate) spec: OperationSpec,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) secret: Option<Secret>,
    pub(crate) sink: Arc<dyn BlobSink>,
}

impl Inner {
    /// Checks a request, tries its source and its destination, and stores the operation.
    pub(super) async fn admit(&self, new: NewOperation) -> Result<Arc<OperationSpec>> {
        let Draft { spec, checkpoint, secret, sink } = self.draft(new).await?;
        // First the operation: one of this id that is there already keeps its secret.
        self.create(&spec, &checkpoint).await?;
        if let Err(error) = self.remember(&spec.destination, spec.id, secret, sink).await {
            if let Err(error) = self.brief_retrier().run(|| self.store.delete(spec.id)).await {
                tracing::warn!(kind = error.kind().as_str(), "a refused operation could not be deleted");
            }
            return Err(error);
        }
        Ok(Arc::new(spec))
    }

    /// Checks a request, and tries its source and its destination.
    pub(crate) async fn draft(&self, new: NewOperation) -> Result<Draft> {
        let NewOperation { id, source, target, context } = new;
        let now = Timestamp::now();
        let mut spec = OperationSpec {
            id,
            created_time: now,
            source,
            destination: StoredDestination::new("", "", serde_json::Value::Null, false),
            error_href: String::new(),
            context,
            manifest: self.options.manifest,
        };
        self.sources.open(&spec).await?;
        let Tried { destination, secret, sink } = self.try_target(&spec, target, None).await?;
        spec.destination = destination;
        spec.error_href = sink.url(&BlobPath::error_log(id));
        let mut checkpoint = Checkpoint {
            error_href: spec.error_href.clone(),
            context: spec.context.clone(),
            ..Checkpoint::first(now)
        };
        checkpoint.warn_of_expiry(spec.destination.expires, None);
        Ok(Draft { spec, checkpoint, secret, sink })
    }

    /// Stores an operation, once, although the store's answer may be lost.
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        let retrier = self.brief_retrier();
        match retrier.run(|| self.store.create(spec, checkpoint)).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                let stored = retrier.run(|| self.store.spec(spec.id)).await?;
                // Another operation of this id was accepted at another time.
                if *stored == *spec { Ok(()) } else { Err(error) }
            }
            outcome => outcome,
        }
    }

    /// For what somebody waits for.
    fn brief_retrier(&self) -> Retrier {
        let budget = self.options.retry.budget.min(BRIEFLY);
        Retrier::new(RetryPolicy { budget, ..self.options.retry.clone() })
    }

    /// Tries a resumed operation's new target, and keeps it instead of the old one.
    pub(super) async fn replace_target(
        &self,
        spec: &OperationSpec,
        target: Target,
    ) -> Result<StoredDestination> {
        let begun_in = Some(&*spec.destination.location);
        let Tried { destination, secret, sink } = self.try_target(spec, target, begun_in).await?;
        self.remember(&destination, spec.id, secret, sink).await?;
        Ok(destination)
    }

    /// The sink of a stored operation.
    pub(crate) async fn open_sink(&self, spec: &OperationSpec) -> Result<Arc<dyn BlobSink>> {
        if let Some(sink) = self.open_sinks().get(&spec.id) {
            return Ok(Arc::clone(sink));
        }
        let secret = self.secret(spec.id, &spec.destination).await?;
        match self.destinations.get(&spec.destination.r#type) {
            Some(provider) => provider.open(spec, secret.as_ref()).await,
            None if spec.destination.r#type == OPEN_SINK => Err(Error::credentials_needed()),
            None => {
                Err(Error::new(ErrorKind::Unsupported, "the operation's destination type is not served here"))
            }
        }
    }

    /// The secret of a stored operation, if it needs one.
    pub(crate) async fn secret(
        &self,
        id: OperationId,
        destination: &StoredDestination,
    ) -> Result<Option<Secret>> {
        match destination.has_secret {
            true => self.secrets.get(id).await?.ok_or_else(Error::credentials_needed).map(Some),
            false => Ok(None),
        }
    }

    /// Drops what must not outlive the operation's end.
    pub(crate) async fn forget(&self, id: OperationId) {
        self.open_sinks().remove(&id);
        if let Err(error) = self.brief_retrier().run(|| self.secrets.delete(id)).await {
            tracing::warn!(kind = error.kind().as_str(), "an ended operation's secret could not be deleted");
        }
    }

    /// Checks a target, which has to be the container that the operation began in, and leaves empty logs there.
    /// Nothing is sent anywhere else.
    pub(crate) async fn try_target(
        &self,
        spec: &OperationSpec,
        target: Target,
        begun_in: Option<&str>,
    ) -> Result<Tried> {
        let same_place = |location: &str| match begun_in {
            Some(begun_in) if begun_in != location => {
                Err(Error::invalid("/destination", "an operation is resumed in the container it began in"))
            }
            _ => Ok(()),
        };
        let tried = match target {
            Target::Sink(sink) => {
                let destination =
                    StoredDestination::new(OPEN_SINK, sink.location(), serde_json::Value::Null, false);
                same_place(&destination.location)?;
                Tried { destination, secret: None, sink }
            }
            Target::Destination(wanted) => {
                let provider = self.destinations.get(wanted.kind()).ok_or_else(|| {
                    Error::invalid(
                        "/destination/type",
                        "'/destination/type' is not a destination type that is served here",
                    )
                })?;
                let checked = provider
                    .validate(wanted.expose_settings())
                    .map_err(|error| error.under("/destination/settings"))?;
                same_place(&checked.location)?;
                let has_secret = checked.secret.is_some();
                let mut destination =
                    StoredDestination::new(wanted.kind(), checked.location, checked.public, has_secret);
                destination.expires = checked.expires;
                let spec = OperationSpec { destination: destination.clone(), ..spec.clone() };
                let sink = provider.open(&spec, checked.secret.as_ref()).await.map_err(unusable)?;
                Tried { destination, secret: checked.secret, sink }
            }
        };
        let retrier = self.brief_retrier();
        for log in logs(spec) {
            retrier.run(|| tried.sink.prepare(&log)).await.map_err(unusable)?;
        }
        Ok(tried)
    }

    async fn remember(
        &self,
        destination: &StoredDestination,
        id: OperationId,
        secret: Option<Secret>,
        sink: Arc<dyn BlobSink>,
    ) -> Result<()> {
        if destination.r#type == OPEN_SINK {
            self.open_sinks().insert(id, sink);
        }
        match secret {
            Some(secret) => self.brief_retrier().run(|| self.secrets.put(id, &secret)).await,
            None => Ok(()),
        }
    }
}

/// A destination that cannot be used is the request's fault.
fn unusable(error: Error) -> Error {
    let message = format!("the destination cannot be used: {}", error.message());
    Error::invalid("/destination", message).with_source(error)
}
