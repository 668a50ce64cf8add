//! The storage that instances are exported from: [`InstanceSource`] and its implementations.

#[cfg(feature = "dicomweb")]
mod dicomweb;
#[cfg(feature = "fs")]
mod directory;
mod memory;
#[cfg(feature = "object_store")]
mod object_store;
#[cfg(any(feature = "fs", feature = "object_store"))]
mod temporary_database;
#[cfg(any(feature = "fs", feature = "object_store"))]
mod writer_thread;

use std::sync::Arc;

use async_trait::async_trait;

#[cfg(feature = "dicomweb")]
pub use self::dicomweb::{DicomWebCredentials, DicomWebSource, DicomWebSourceBuilder};
#[cfg(feature = "fs")]
pub use self::directory::{DirectoryReport, DirectorySource, SkippedPath};
pub use self::memory::MemorySource;
#[cfg(feature = "object_store")]
pub use self::object_store::{ObjectLayout, ObjectStoreSource};
pub use crate::content::{Content, CopySource};
use crate::error::Result;
pub use crate::model::{Cursor, Instance, ListFailure, ListRequest, ListWarning, Locator, Page, Scope};
pub use crate::model::{ExportSource, OperationSpec};

/// The storage that instances are exported from. Implement it for your server's storage.
///
/// ```
/// use async_trait::async_trait;
/// use dicom_export::source::{Cursor, Instance, ListRequest, Page, Scope};
/// use dicom_export::{Content, Error, ErrorKind, InstanceIdentifier, InstanceSource, Result};
///
/// /// The rows of a table, ordered by identifier.
/// struct Table(Vec<(InstanceIdentifier, Vec<u8>)>);
///
/// #[async_trait]
/// impl InstanceSource for Table {
///     async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
///         // SELECT ... WHERE identifier > :after ORDER BY identifier LIMIT :limit + 1
///         let after: Option<InstanceIdentifier> = request.after.map(Cursor::decode).transpose()?;
///         let mut rows = self.0.iter().filter(|(identifier, _)| {
///             let in_scope = match request.scope {
///                 Scope::Everything => true,
///                 Scope::Identifier(scope) => scope.covers(identifier),
///             };
///             in_scope && after.as_ref().is_none_or(|after| identifier > after)
///         });
///         let instances: Vec<_> = rows
///             .by_ref()
///             .take(request.limit)
///             .map(|(identifier, bytes)| Instance::new(identifier.clone()).with_size(bytes.len() as u64))
///             .collect();
///         match instances.last() {
///             Some(last) if rows.next().is_some() => {
///                 let next = Cursor::encode(last.identifier())?;
///                 Ok(Page::more(instances, next))
///             }
///             _ => Ok(Page::last(instances)),
///         }
///     }
///
///     async fn open(&self, instance: &Instance) -> Result<Content> {
///         match self.0.iter().find(|(identifier, _)| identifier == instance.identifier()) {
///             Some((_, bytes)) => Ok(Content::from_bytes(bytes.clone())),
///             None => Err(Error::new(ErrorKind::NotFound, "the instance does not exist any more")),
///         }
///     }
/// }
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let table = Table(vec![
///     ("1.2.3/1.2.3.1/1.2.3.1.1".parse()?, b"bytes of a file".to_vec()),
///     ("1.2.3/1.2.3.1/1.2.3.1.2".parse()?, b"bytes of another".to_vec()),
/// ]);
/// let page = table.list(ListRequest::new(Scope::Everything, None, 1)).await?;
/// let next = table.list(ListRequest::new(Scope::Everything, page.next.as_ref(), 1)).await?;
/// assert_eq!(next.instances[0].identifier().to_string(), "1.2.3/1.2.3.1/1.2.3.1.2");
/// assert_eq!(next.next, None);
/// # Ok::<_, Error>(()) }).unwrap();
/// ```
///
/// # Contract
/// - [`list`](Self::list) returns a scope page by page, in a **stable order** of the source's choice. A cursor means
///   "after the last entry returned", as in a keyset query, not an offset: instances that are added or deleted during an
///   export do not move the others. Each (study, series, SOP instance) is listed once in a scope. The last page has no
///   cursor; it may be empty. A scope without instances is an empty last page, not an error.
/// - A cursor stays valid after a restart of the process, and in another process that uses the same storage.
/// - [`open`](Self::open) returns an instance as a DICOM Part 10 file (PS3.10 7). The engine does not parse it unless a
///   check is turned on.
/// - [`copy_url`](Self::copy_url) returns a URL of the same bytes that `open` returns. The engine calls it first if the
///   destination can [copy from a URL](crate::BlobSink::copy_from), and opens the instance if it returns `None` or
///   the copy is refused. The URL is passed to the destination only.
///
/// # Errors
/// - [`Throttled`](crate::ErrorKind::Throttled) and [`Unavailable`](crate::ErrorKind::Unavailable) are retried within
///   the retry budget; then the operation fails and can be resumed.
/// - From `open`, [`NotFound`](crate::ErrorKind::NotFound), [`Unreadable`](crate::ErrorKind::Unreadable),
///   [`Unsupported`](crate::ErrorKind::Unsupported), [`Invalid`](crate::ErrorKind::Invalid),
///   [`Conflict`](crate::ErrorKind::Conflict) and [`Internal`](crate::ErrorKind::Internal) skip the instance, with the
///   public message in `errors.log`. [`Unauthorized`](crate::ErrorKind::Unauthorized) fails the operation.
/// - The operation fails, and can be resumed, if the source refuses twelve instances in a row with the same error and has
///   returned none, or does not return an instance again that it has returned before.
/// - The operation fails, and can be resumed, if the source refuses twelve instances in a row with the same error and has
///   returned none, or does not return an instance again that it has returned before.
/// - From `list`, an error that is not retried fails the operation. Report a single row or file that cannot be listed as
///   a [`ListFailure`] in the page.
/// - From `copy_url`, an error that is not retried is treated as `None`: the instance is opened.
///
/// # Cancellation
/// Dropping a future cancels the call. Work on other threads ends soon after.
///
/// # Retry and idempotence
/// Every call may be repeated at any time with the same arguments, also after a restart.
///
/// # Concurrency
/// Calls for several scopes and instances run concurrently.
#[async_trait]
pub trait InstanceSource: Send + Sync + 'static {
    /// Returns the next page of a scope.
    async fn list(&self, request: ListRequest<'_>) -> Result<Page>;

    /// Returns the bytes of an instance that this source listed, possibly in another process.
    async fn open(&self, instance: &Instance) -> Result<Content>;

    /// Returns a URL from which a destination can copy an instance that this source listed. Default: `None`.
    ///
    /// Return `None` without such a URL or without a known length. Avoid a request per instance: a URL can usually be
    /// signed locally.
    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        let _ = instance;
        Ok(None)
    }

    /// Returns the number of instances that an export covers, for the status document's `percentComplete`. Default:
    /// `None`.
    ///
    /// It runs concurrently with the export, which does not wait for it.
    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        let _ = source;
        Ok(None)
    }
}

/// Selects the source of each operation, for servers with several tenants.
///
/// ```
/// use std::collections::HashMap;
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use dicom_export::source::OperationSpec;
/// use dicom_export::{Error, ErrorKind, ExportEngine, InstanceSource, MemorySource, Result, SourceProvider};
///
/// struct Tenants(HashMap<String, Arc<MemorySource>>);
///
/// #[async_trait]
/// impl SourceProvider for Tenants {
///     async fn open(&self, operation: &OperationSpec) -> Result<Arc<dyn InstanceSource>> {
///         let tenant = operation.context.partition.as_ref().and_then(|name| self.0.get(name));
///         match tenant {
///             Some(source) => Ok(Arc::clone(source) as Arc<dyn InstanceSource>),
///             None => Err(Error::new(ErrorKind::NotFound, "the tenant does not exist")),
///         }
///     }
/// }
/// ```
#[async_trait]
pub trait SourceProvider: Send + Sync + 'static {
    /// Returns the source of an operation, selected by its [`context`](OperationSpec::context).
    ///
    /// # Errors
    /// An error fails the start or the resumption of the operation.
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

/// Provides the same source for every operation.
pub(crate) struct SingleSource(pub(crate) Arc<dyn InstanceSource>);

#[async_trait]
impl SourceProvider for SingleSource {
    async fn open(&self, _: &OperationSpec) -> Result<Arc<dyn InstanceSource>> {
        Ok(Arc::clone(&self.0))
    }
}
