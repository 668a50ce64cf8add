//! [`ExportService`]: what stands before an engine, local or distributed.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::Result;
use crate::model::OperationKey;
use crate::model::{ExportDestination, ExportRequest, ExportSource};
use crate::model::{Operation, OperationContext, OperationId};
use crate::sink::BlobSink;

/// An operation to be.
#[derive(Debug, Clone)]
pub struct NewOperation {
    pub(crate) id: OperationId,
    pub(crate) source: ExportSource,
    pub(crate) target: Target,
    pub(crate) context: OperationContext,
}

impl NewOperation {
    /// Exports this to there, under a random id.
    pub fn new(source: ExportSource, target: impl Into<Target>) -> Self {
        let (id, context) = (OperationId::random(), OperationContext::default());
        Self { id, source, target: target.into(), context }
    }

    /// With what the host says of it.
    pub fn with_context(mut self, context: OperationContext) -> Self {
        self.context = context;
        self
    }

    /// Under this id: starting it twice is a conflict.
    pub fn with_id(mut self, id: OperationId) -> Self {
        self.id = id;
        self
    }
}

impl From<ExportRequest> for NewOperation {
    fn from(request: ExportRequest) -> Self {
        let (source, destination) = request.into_parts();
        Self::new(source, destination)
    }
}

/// Where an operation writes to.
#[derive(Clone)]
#[non_exhaustive]
pub enum Target {
    /// A request's destination, opened by the provider registered for its type.
    Destination(ExportDestination),
    /// A sink that is open already. It ends with the process: after a restart the operation can be resumed only with
    /// another sink for the same [`account`](BlobSink::location).
    Sink(Arc<dyn BlobSink>),
}

impl From<ExportDestination> for Target {
    fn from(destination: ExportDestination) -> Self {
        Self::Destination(destination)
    }
}

impl From<Arc<dyn BlobSink>> for Target {
    fn from(sink: Arc<dyn BlobSink>) -> Self {
        Self::Sink(sink)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Destination(destination) => fmt::Debug::fmt(destination, f),
            Self::Sink(_) => f.write_str("Sink"),
        }
    }
}

/// An operation as a host sees it: the status document, and what the host said of it when it started.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OperationRecord {
    /// The status document.
    pub operation: Operation,
    /// What the host said.
    pub context: OperationContext,
}

/// Starts exports and answers for them: the engine in this process, or one over many workers.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) for an unknown operation.
///
/// # Cancellation
/// Dropping a future of [`start`](Self::start) or [`resume`](Self::resume) leaves a whole operation or none, running.
#[async_trait]
pub trait ExportService: Send + Sync + 'static {
    /// Accepts an operation and starts it. It returns once the destination has been tried: there is an `errors.log`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), with a JSON pointer, for a request that is wrong; `/destination` for a
    /// destination that cannot be used. [`Unavailable`](crate::ErrorKind::Unavailable) while shutting down.
    async fn start(&self, new: NewOperation) -> Result<Operation>;

    /// Where an operation stands.
    async fn operation(&self, id: OperationId) -> Result<OperationRecord>;

    /// Operations, newest first, those after this one.
    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationRecord>>;

    /// Asks for an operation to be canceled; it winds down within seconds.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when it has ended.
    async fn cancel(&self, id: OperationId) -> Result<()>;

    /// Goes on with an operation that failed, or that nobody runs; with other credentials for the same container if a
    /// target is given.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when there is nothing to resume;
    /// [`Invalid`](crate::ErrorKind::Invalid) for another container, or one that cannot be used.
    async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation>;
}
