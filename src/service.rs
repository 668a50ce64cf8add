//! [`ExportService`]: the interface of an engine, local or distributed.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

use async_trait::async_trait;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    ExportDestination, ExportRequest, ExportSource, Operation, OperationContext, OperationId,
};
use crate::sink::{BlobSink, DestinationType};
use crate::store::OperationFilter;

/// A request to start an operation.
///
/// ```
/// use dicom_export::{ExportSource, MemorySink, NewOperation, OperationContext};
///
/// let context = OperationContext::default().with_partition("radiology").with_caller("alice");
/// let new = NewOperation::new(ExportSource::Everything, MemorySink::new()).with_context(context);
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct NewOperation {
    pub(crate) id: OperationId,
    pub(crate) source: ExportSource,
    pub(crate) target: Target,
    pub(crate) context: OperationContext,
    pub(crate) bytes_per_second: Option<NonZeroU64>,
}

impl NewOperation {
    /// Creates a request that exports `source` to `target` under a random id.
    pub fn new(source: ExportSource, target: impl Into<Target>) -> Self {
        let (id, context) = (OperationId::random(), OperationContext::default());
        Self { id, source, target: target.into(), context, bytes_per_second: None }
    }

    /// Sets what the host wants to store with the operation.
    pub fn with_context(mut self, context: OperationContext) -> Self {
        self.context = context;
        self
    }

    /// Limits the bytes of instances that the operation transfers per second, in addition to the limits of the engine and
    /// of the destination account. Zero: no limit, the default. It is stored with the operation, and
    /// [`ExportService::set_bytes_per_second`] changes it.
    pub fn with_bytes_per_second(mut self, bytes: u64) -> Self {
        self.bytes_per_second = NonZeroU64::new(bytes);
        self
    }

    /// Sets the operation's id. Starting a second operation under the same id is a conflict.
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

/// Where an operation writes.
#[derive(Clone)]
#[non_exhaustive]
pub enum Target {
    /// The destination of a request, opened by the provider registered for its type.
    Destination(ExportDestination),
    /// A sink that is already open. It lasts as long as the process: after a restart, the operation can be resumed only
    /// with another sink for the same [`location`](BlobSink::location).
    Sink(Arc<dyn BlobSink>),
}

impl From<ExportDestination> for Target {
    fn from(destination: ExportDestination) -> Self {
        Self::Destination(destination)
    }
}

impl<S: BlobSink> From<S> for Target {
    fn from(sink: S) -> Self {
        Self::Sink(Arc::new(sink))
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

/// An operation as the host sees it: the status document, and what the host stored with it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct OperationRecord {
    /// The status document.
    pub operation: Operation,
    /// What the host stored when it started the operation.
    pub context: OperationContext,
}

/// Starts exports and manages them: the engine in this process, or one over many workers.
///
/// # Errors
/// [`NotFound`](crate::ErrorKind::NotFound) for an unknown operation; otherwise the operation store's.
///
/// # Cancellation
/// Dropping a future of [`start`](Self::start) or [`resume`](Self::resume) leaves an operation that is complete and
/// running, or none.
///
/// ```
/// use dicom_export::{ExportEngine, ExportService, ExportSource, MemorySink, MemorySource, NewOperation};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
/// let service: Box<dyn ExportService> = Box::new(ExportEngine::builder(MemorySource::new()).build()?);
/// let operation = service.start(NewOperation::new(ExportSource::Everything, MemorySink::new())).await?;
/// let record = service.operation(operation.operation_id).await?;
/// assert_eq!(record.operation.operation_id, operation.operation_id);
/// # Ok(()) }
/// ```
#[async_trait]
pub trait ExportService: Send + Sync + 'static {
    /// Accepts an operation and starts it. It returns after the destination was opened and the empty `errors.log` was
    /// created.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), with a JSON pointer, for a request that is wrong; `/destination` for a
    /// destination that cannot be used. [`LimitReached`](crate::ErrorKind::LimitReached) while too many operations run.
    /// [`Unavailable`](crate::ErrorKind::Unavailable) while shutting down.
    async fn start(&self, new: NewOperation) -> Result<Operation>;

    /// Validates a destination without opening it, and returns its location, which identifies the container and the
    /// prefix in it.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), with a JSON pointer.
    fn location(&self, destination: &ExportDestination) -> Result<String>;

    /// The destination types that requests can name, sorted by name, for the description of the API. Default: none.
    fn destination_types(&self) -> Vec<DestinationType> {
        Vec::new()
    }

    /// Returns an operation.
    async fn operation(&self, id: OperationId) -> Result<OperationRecord>;

    /// Returns the operations that match a filter, newest first. Fewer than the filter's limit are returned only at the end
    /// of the listing.
    async fn list(&self, filter: &OperationFilter) -> Result<Vec<OperationRecord>>;

    /// Requests that an operation be canceled. It stops within seconds.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if it has ended.
    async fn cancel(&self, id: OperationId) -> Result<()>;

    /// Requests that an operation be paused. It stops within seconds; instances in transfer are transferred again when it is
    /// resumed. It stays paused, also after a restart, until it is [resumed](Self::resume) or canceled; its secret stays in
    /// the secret store. Pausing a paused operation changes nothing.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if it has ended; [`Unsupported`](crate::ErrorKind::Unsupported), the default,
    /// if the service cannot pause operations.
    async fn pause(&self, id: OperationId) -> Result<()> {
        let _ = id;
        Err(Error::new(ErrorKind::Unsupported, "this service does not pause operations"))
    }

    /// Changes how many bytes of instances an operation transfers per second, at once in this process and within seconds
    /// in another one. Zero removes the limit. It is stored with the operation.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if it has ended; [`Unsupported`](crate::ErrorKind::Unsupported), the default,
    /// if the service cannot limit operations.
    async fn set_bytes_per_second(&self, id: OperationId, bytes: u64) -> Result<()> {
        let _ = (id, bytes);
        Err(no_limits())
    }

    /// Resumes an operation that failed, that is paused or that no runner holds, with other credentials for the same
    /// container if there is a target.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if there is nothing to resume;
    /// [`Invalid`](crate::ErrorKind::Invalid) for another container, or one that cannot be used;
    /// [`LimitReached`](crate::ErrorKind::LimitReached) while too many operations run.
    async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation>;
}

/// The error of a service that does not limit operations.
pub(crate) fn no_limits() -> Error {
    Error::new(ErrorKind::Unsupported, "this service does not limit the bytes per second of an operation")
}

macro_rules! delegate {
    ($pointer:ident) => {
        #[async_trait]
        #[deny(clippy::missing_trait_methods)]
        impl<S: ExportService + ?Sized> ExportService for $pointer<S> {
            async fn start(&self, new: NewOperation) -> Result<Operation> {
                (**self).start(new).await
            }

            fn location(&self, destination: &ExportDestination) -> Result<String> {
                (**self).location(destination)
            }

            fn destination_types(&self) -> Vec<DestinationType> {
                (**self).destination_types()
            }

            async fn operation(&self, id: OperationId) -> Result<OperationRecord> {
                (**self).operation(id).await
            }

            async fn list(&self, filter: &OperationFilter) -> Result<Vec<OperationRecord>> {
                (**self).list(filter).await
            }

            async fn cancel(&self, id: OperationId) -> Result<()> {
                (**self).cancel(id).await
            }

            async fn pause(&self, id: OperationId) -> Result<()> {
                (**self).pause(id).await
            }

            async fn set_bytes_per_second(&self, id: OperationId, bytes: u64) -> Result<()> {
                (**self).set_bytes_per_second(id, bytes).await
            }

            async fn resume(&self, id: OperationId, target: Option<Target>) -> Result<Operation> {
                (**self).resume(id, target).await
            }
        }
    };
}

delegate!(Arc);
delegate!(Box);
