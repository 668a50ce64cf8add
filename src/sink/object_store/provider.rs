//! [`ObjectStoreProvider`]: a destination type for the stores of a host.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::ObjectStoreSink;
use crate::error::{Error, ErrorKind, Result};
use crate::model::OperationSpec;
use crate::secret::Secret;
use crate::sink::{BlobSink, SinkProvider, ValidatedSettings};

type Open = dyn Fn(&Value) -> Result<ObjectStoreSink> + Send + Sync;

/// A destination type whose sinks a function of the host creates from the settings of a request.
///
/// The function receives the settings as an object, validates them and creates the sink. It makes no I/O, because it is
/// called to validate a request as well as to open the sink of a stored operation. Its errors should have the JSON pointer of
/// the wrong setting (see [`Error::invalid`]) and must not repeat a secret.
///
/// All settings are treated as secret, unless [`public_settings`](Self::public_settings) names those that may be stored with an
/// operation.
///
/// ```
/// use std::sync::Arc;
/// use dicom_export::object_store::memory::InMemory;
/// use dicom_export::{Error, ExportEngine, ExportRequest, MemorySource, ObjectStoreSink};
/// use dicom_export::sink::ObjectStoreProvider;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> dicom_export::Result<()> {
/// let bucket = Arc::new(InMemory::new());
/// let provider = ObjectStoreProvider::new(move |settings| {
///     let folder = settings["folder"].as_str().ok_or_else(|| Error::invalid("/folder", "'/folder' is missing"))?;
///     ObjectStoreSink::new(bucket.clone(), "memory:///").with_prefix(folder)
/// });
/// let engine = ExportEngine::builder(MemorySource::new())
///     .destination("archive", provider.public_settings(["folder"]))
///     .build()?;
/// let request = ExportRequest::from_json(br#"{
///     "source": { "type": "identifiers", "settings": { "values": ["1.2.3"] } },
///     "destination": { "type": "archive", "settings": { "folder": "trial7" } }
/// }"#)?;
/// let operation = engine.start(request.into()).await?;
/// assert_eq!(engine.wait(operation.operation_id).await?.results.skipped, 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct ObjectStoreProvider {
    open: Arc<Open>,
    public: Vec<String>,
    schema: Option<Value>,
}

impl ObjectStoreProvider {
    /// Creates a provider that opens sinks with `open`.
    pub fn new(open: impl Fn(&Value) -> Result<ObjectStoreSink> + Send + Sync + 'static) -> Self {
        Self { open: Arc::new(open), public: Vec::new(), schema: None }
    }

    /// Names the settings that are not secret: they are stored with an operation, and the API may return them. Default: none.
    ///
    /// If a request has no other settings, its operation can be resumed without credentials.
    pub fn public_settings<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.public.extend(names.into_iter().map(Into::into));
        self
    }

    /// Sets the JSON Schema of the settings, for the description of the API: see [`SinkProvider::settings_schema`]. Default:
    /// none, any object.
    pub fn with_settings_schema(mut self, schema: Value) -> Self {
        self.schema = Some(schema);
        self
    }

    fn is_public(&self, name: &str) -> bool {
        self.public.iter().any(|public| public.eq_ignore_ascii_case(name))
    }
}

#[async_trait]
impl SinkProvider for ObjectStoreProvider {
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
        let Value::Object(members) = settings else {
            return Err(Error::invalid("", "the settings must be an object"));
        };
        let location = (self.open)(settings)?.location();
        let (public, secret): (Map<_, _>, Map<_, _>) =
            members.clone().into_iter().partition(|(name, _)| self.is_public(name));
        let validated = ValidatedSettings::new(location, Value::Object(public));
        match secret.is_empty() {
            true => Ok(validated),
            false => Ok(validated.with_secret(Secret::encode(&secret)?)),
        }
    }

    async fn open(&self, operation: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        let destination = &operation.destination;
        let Value::Object(mut settings) = destination.settings.clone() else {
            return Err(Error::new(ErrorKind::Internal, "a stored destination cannot be read"));
        };
        match secret {
            Some(secret) => settings.extend(secret.decode::<Map<_, _>>()?),
            None if destination.has_secret => return Err(Error::credentials_needed()),
            None => {}
        }
        Ok(Arc::new((self.open)(&Value::Object(settings))?))
    }

    fn settings_schema(&self) -> Option<Value> {
        self.schema.clone()
    }
}

impl fmt::Debug for ObjectStoreProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStoreProvider").field("public", &self.public).finish_non_exhaustive()
    }
}
