//! Where instances come from: [`InstanceSource`].

#[cfg(feature = "dicomweb")]
mod dicomweb;
#[cfg(feature = "fs")]
mod directory;
mod memory;
#[cfg(feature = "object_store")]
mod object_store;

use std::sync::Arc;

use async_trait::async_trait;

#[cfg(feature = "dicomweb")]
pub use self::dicomweb::{DicomWebCredentials, DicomWebSource, DicomWebSourceBuilder};
#[cfg(feature = "fs")]
pub use self::directory::{DirectoryReport, DirectorySource};
pub use self::memory::MemorySource;
#[cfg(feature = "object_store")]
pub use self::object_store::ObjectStoreSource;
pub use crate::content::{Content, CopySource};
use crate::error::Result;
pub use crate::model::{Cursor, Instance, ListFailure, ListRequest, ListWarning, Locator, Page, Scope};
pub use crate::model::{ExportSource, OperationSpec};

/// A server's instances, to be listed and opened.
///
/// # Contract
/// - [`list`](Self::list) walks a scope in a **stable order** of the source's choice, by pages. A page's cursor means
///   "after the last one returned": a keyset query, not an offset, so that instances added or deleted while an
///   export runs shift nothing. Each (study, series, SOP instance) is listed once in a scope. The end is a page
///   without a cursor; it may hold instances or none. A scope that holds nothing is such a page too, not an error:
///   that an identifier matched nothing is the engine's finding.
/// - A cursor stays good after a restart of the process, and in another process over the same data.
/// - [`open`](Self::open) gives an instance as DICOM Part 10 bytes (PS3.10 7). The engine passes them on unread.
/// - [`copy_url`](Self::copy_url) gives a URL with the very bytes that `open` would give. The engine asks for it first,
///   where the destination can [fetch an instance itself](crate::BlobSink::copy_from), and opens the instance when
///   there is none or the copy is refused. The URL goes to the destination and nowhere else.
///
/// # Errors
/// [`Throttled`](crate::ErrorKind::Throttled) and [`Unavailable`](crate::ErrorKind::Unavailable) are repeated within
/// the retry budget; past it the operation fails and can be resumed. From `open`,
/// [`NotFound`](crate::ErrorKind::NotFound) (it is gone), [`Unreadable`](crate::ErrorKind::Unreadable),
/// [`Unsupported`](crate::ErrorKind::Unsupported), [`Invalid`](crate::ErrorKind::Invalid),
/// [`Conflict`](crate::ErrorKind::Conflict) and [`Internal`](crate::ErrorKind::Internal) skip that instance, with the
/// public message in `errors.log`; `Unauthorized` fails the operation. From `list`, everything that is not repeated
/// fails the operation: an archive that cannot be listed is not an empty one. A *row* or file that cannot be listed
/// is a [`ListFailure`] in its page. From `copy_url`, everything that is not repeated is as good as `None`: the
/// instance is opened, and that says what is wrong with it.
///
/// # Cancellation
/// Dropping a future cancels the call. Work handed to other threads ends by itself soon after.
///
/// # Retry and idempotence
/// Every call may be repeated at any time, with the same arguments, and after a restart.
///
/// # Concurrency
/// Many calls run at once, over many scopes and instances.
#[async_trait]
pub trait InstanceSource: Send + Sync + 'static {
    /// The next page of a scope.
    async fn list(&self, request: ListRequest<'_>) -> Result<Page>;

    /// The bytes of an instance that this source listed, perhaps in another process.
    async fn open(&self, instance: &Instance) -> Result<Content>;

    /// Where a destination can fetch an instance that this source listed; `None`, as by default: nowhere, or its length
    /// is not known. It should make no request for each instance: a URL can be signed without one.
    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        let _ = instance;
        Ok(None)
    }

    /// How many instances an export covers, if that is cheap to say; it gives `percentComplete`. It runs beside the
    /// export and never delays its start.
    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        let _ = source;
        Ok(None)
    }
}

/// Gives an operation its source: for hosts with tenants.
#[async_trait]
pub trait SourceProvider: Send + Sync + 'static {
    /// The source that this operation exports from, by its [`context`](OperationSpec::context).
    ///
    /// # Errors
    /// They fail the start, or the resumption, of the operation.
    async fn open(&self, operation: &OperationSpec) -> Result<Arc<dyn InstanceSource>>;
}

macro_rules! delegate {
    ($pointer:ident) => {
        #[async_trait]
        impl<S: InstanceSource + ?Sized> InstanceSource for $pointer<S> {
            async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
                (**self).list(request).await
            }

            async fn open(&self, instance: &Instance) -> Result<Content> {
                (**self).open(instance).await
            }

            async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
                (**self).copy_url(instance).await
            }

            async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
                (**self).estimate(source).await
            }
        }

        #[async_trait]
        impl<P: SourceProvider + ?Sized> SourceProvider for $pointer<P> {
            async fn open(&self, operation: &OperationSpec) -> Result<Arc<dyn InstanceSource>> {
                (**self).open(operation).await
            }
        }
    };
}

delegate!(Arc);
delegate!(Box);

/// The provider of a server with one source for all.
pub(crate) struct OneSource(pub(crate) Arc<dyn InstanceSource>);

#[async_trait]
impl SourceProvider for OneSource {
    async fn open(&self, _: &OperationSpec) -> Result<Arc<dyn InstanceSource>> {
        Ok(Arc::clone(&self.0))
    }
}
