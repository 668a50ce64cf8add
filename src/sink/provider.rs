//! [`SinkProvider`]: opens a sink from the settings of a request.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::model::{OperationSpec, Timestamp};
use crate::secret::Secret;
use crate::sink::BlobSink;

/// A destination type of the export API: validates the settings of a request and opens the sink that they describe.
///
/// # Contract
/// - [`validate`](Self::validate) makes no I/O, and its result depends on the settings only. The public part that it
///   returns holds no secret, because it is stored and returned by the API.
/// - [`open`](Self::open) receives the public part and the secret that `validate` returned, possibly in another process
///   and after a restart.
/// - [`ValidatedSettings::location`] and the [`location`](BlobSink::location) of the opened sink identify the destination.
///   Both depend on the container only, not on the credential, so that an operation can be resumed with another
///   credential.
///
/// # Examples
/// A provider for folders below one root.
///
/// ```
/// # #[cfg(feature = "fs")] mod example {
/// use std::path::PathBuf;
/// use std::sync::Arc;
///
/// use async_trait::async_trait;
/// use dicom_export::sink::{OperationSpec, Secret, SinkProvider, ValidatedSettings};
/// use dicom_export::{BlobSink, DirectorySink, Error, ErrorKind, Result};
/// use serde_json::{Value, json};
///
/// struct FolderProvider {
///     root: PathBuf,
/// }
///
/// #[async_trait]
/// impl SinkProvider for FolderProvider {
///     fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
///         let name = settings.get("folder").and_then(Value::as_str).unwrap_or_default();
///         if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
///             return Err(Error::invalid("/folder", "not a folder name"));
///         }
///         Ok(ValidatedSettings::new(format!("folder:{name}"), json!({ "folder": name })))
///     }
///
///     async fn open(&self, operation: &OperationSpec, _: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
///         let stored = &operation.destination.settings;
///         let unreadable = || Error::new(ErrorKind::Internal, "the stored settings cannot be read");
///         let name = stored.get("folder").and_then(Value::as_str).ok_or_else(unreadable)?;
///         Ok(Arc::new(DirectorySink::open(self.root.join(name))?))
///     }
/// }
/// # pub fn provider() -> impl SinkProvider { FolderProvider { root: "exports".into() } }
/// # }
/// # #[cfg(feature = "fs")] fn main() -> dicom_export::Result<()> {
/// # use dicom_export::SinkProvider;
/// # use serde_json::json;
/// # let provider = example::provider();
/// let settings = provider.validate(&json!({ "folder": "trial7" }))?;
/// assert_eq!(settings.location, "folder:trial7");
/// assert_eq!(provider.validate(&json!({ "folder": "../.." })).unwrap_err().pointer(), Some("/folder"));
/// # Ok(()) }
/// # #[cfg(not(feature = "fs"))] fn main() {}
/// ```
#[async_trait]
pub trait SinkProvider: Send + Sync + 'static {
    /// Validates the settings of a destination and separates what may be stored from what is secret.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with the JSON pointer of the wrong property, relative to the settings (for
    /// example `/blobContainerUri`). No message repeats a secret.
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings>;

    /// Opens the sink of an operation from its stored destination and the secret that
    /// [`validate`](Self::validate) returned.
    ///
    /// # Errors
    /// An error fails the start or the resumption of the operation.
    async fn open(&self, operation: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>>;

    /// The JSON Schema (2020-12) of the settings, for the description of the API. Default: `None`, any object.
    ///
    /// It is an object without `$ref`, since it becomes part of a larger document. It need not express which destinations a
    /// policy refuses.
    fn settings_schema(&self) -> Option<Value> {
        None
    }
}

/// The result of [`SinkProvider::validate`].
#[derive(Debug)]
#[non_exhaustive]
pub struct ValidatedSettings {
    /// The container, without a credential. Resuming an operation with another location is refused.
    pub location: String,
    /// The settings that may be stored.
    pub public: Value,
    /// The settings that must not be stored with the operation.
    pub secret: Option<Secret>,
    /// When the credential expires, if known. The engine adds a warning to an operation that may outlast it.
    pub expires: Option<Timestamp>,
}

impl ValidatedSettings {
    /// Creates settings without a secret.
    pub fn new(location: impl Into<String>, public: Value) -> Self {
        Self { location: location.into(), public, secret: None, expires: None }
    }

    /// Creates settings without a secret from a document of the provider.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](crate::ErrorKind::Internal) if it cannot be written as JSON.
    #[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
    pub(crate) fn encode(location: impl Into<String>, stored: impl serde::Serialize) -> Result<Self> {
        let public = serde_json::to_value(stored).map_err(|cause| {
            let message = "a destination cannot be written as JSON";
            crate::Error::new(crate::ErrorKind::Internal, message).with_source(cause)
        })?;
        Ok(Self::new(location, public))
    }

    /// Sets the secret.
    #[must_use]
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Sets when the credential expires.
    #[must_use]
    pub fn with_expiry(mut self, expires: Timestamp) -> Self {
        self.expires = Some(expires);
        self
    }
}

macro_rules! delegate {
    ($pointer:ident) => {
        #[async_trait]
        impl<P: SinkProvider + ?Sized> SinkProvider for $pointer<P> {
            fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
                (**self).validate(settings)
            }

            async fn open(
                &self,
                operation: &OperationSpec,
                secret: Option<&Secret>,
            ) -> Result<Arc<dyn BlobSink>> {
                (**self).open(operation, secret).await
            }

            fn settings_schema(&self) -> Option<Value> {
                (**self).settings_schema()
            }
        }
    };
}

delegate!(Arc);
delegate!(Box);
