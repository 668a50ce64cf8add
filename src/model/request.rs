//! [`ExportRequest`]: the body of `POST /export`.

use std::fmt;
#[cfg(feature = "http")]
use std::num::NonZeroU64;

use serde::de::DeserializeSeed;
use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

use crate::error::Result;
use crate::model::identifiers::IdentifiersBuilder;
use crate::model::json::{self, At, Seed, is_shown};
use crate::model::request_reader::{DestinationParts, DestinationReader, RequestReader, SourceReader};
#[cfg(feature = "http")]
use crate::model::request_reader::{ResumptionReader, UpdateReader};
use crate::model::{DicomIdentifier, Identifiers};

/// What to export, and the destination.
///
/// [`ExportRequest::from_json`] reads the wire form and reports errors with the JSON pointer of the property that is
/// wrong; serde reads it too. Property and type names are case-insensitive, and `sources` is read as `source`. Any other
/// unknown property is an error, because a misspelled `source` that is ignored would export everything.
///
/// The settings of a destination have at most 64 KiB of JSON. Reading takes about as much memory as the text, at most three times as much.
///
/// Serializing a request produces the wire form, **including the credentials of the destination**. `Debug` hides them.
///
/// ```
/// use dicom_export::ExportRequest;
///
/// let request = ExportRequest::from_json(br#"{
///     "source": { "type": "identifiers", "settings": { "values": ["1.2.3", "1.2.4/5.6"] } },
///     "destination": { "type": "azureblob", "settings": { "blobContainerUri": "https://a.blob.core.windows.net/c" } }
/// }"#)?;
/// assert_eq!(request.destination().kind(), "azureblob");
///
/// let error = ExportRequest::from_json(br#"{ "sorce": null }"#).unwrap_err();
/// assert_eq!(error.pointer(), Some("/sorce"));
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExportRequest {
    #[serde(skip_serializing_if = "ExportSource::is_everything")]
    source: ExportSource,
    destination: ExportDestination,
}

impl ExportRequest {
    /// Combines a source and a destination.
    pub fn new(source: ExportSource, destination: ExportDestination) -> Self {
        Self { source, destination }
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), with the JSON pointer of the property that is wrong or missing, or with the line and
    /// column of a syntax error.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        json::parse(text, |at, deserializer| Self::read(at, deserializer, text.len()))
    }

    /// What to export.
    pub fn source(&self) -> &ExportSource {
        &self.source
    }

    /// The destination.
    pub fn destination(&self) -> &ExportDestination {
        &self.destination
    }

    /// Returns the source and the destination.
    pub fn into_parts(self) -> (ExportSource, ExportDestination) {
        (self.source, self.destination)
    }
}

impl ExportRequest {
    fn read<'de, D: Deserializer<'de>>(
        at: At<'_>,
        deserializer: D,
        text_len: usize,
    ) -> Result<Self, D::Error> {
        let (identifiers, destination) = Seed(RequestReader { at, text_len }).deserialize(deserializer)?;
        Ok(Self { source: identifiers.into(), destination: ExportDestination::from_parts(destination) })
    }
}

impl<'de> Deserialize<'de> for ExportRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::deserialize(deserializer, |at, deserializer| Self::read(at, deserializer, 0))
    }
}

/// Which instances an export covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportSource {
    /// Everything the server holds: `source` is absent or `null`.
    Everything,
    /// The instances under these identifiers.
    Identifiers(Identifiers),
}

impl ExportSource {
    /// Creates a source from identifiers. Their order is kept; identifiers that are repeated or covered by another one
    /// are dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if there are no identifiers.
    pub fn identifiers(values: impl IntoIterator<Item = DicomIdentifier>) -> Result<Self> {
        let mut identifiers = IdentifiersBuilder::new(0);
        values.into_iter().try_for_each(|value| identifiers.push(&value.to_string()))?;
        identifiers.build().map(Self::Identifiers)
    }

    /// Whether the source is the whole archive.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Everything)
    }
}

/// `None` is everything.
impl From<Option<Identifiers>> for ExportSource {
    fn from(identifiers: Option<Identifiers>) -> Self {
        identifiers.map_or(Self::Everything, Self::Identifiers)
    }
}

impl Serialize for ExportSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Everything => serializer.serialize_none(),
            Self::Identifiers(identifiers) => {
                #[derive(Serialize)]
                struct Settings<'a> {
                    values: &'a Identifiers,
                }
                let mut out = serializer.serialize_struct("source", 2)?;
                out.serialize_field("type", "identifiers")?;
                out.serialize_field("settings", &Settings { values: identifiers })?;
                out.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for ExportSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::deserialize(deserializer, |at, deserializer| {
            Seed(SourceReader { at, text_len: 0 }).deserialize(deserializer).map(Self::from)
        })
    }
}

/// A destination: a type and its settings, which the [`SinkProvider`](crate::SinkProvider) of that type validates.
///
/// `Debug` shows only the names of the settings, because their values may contain credentials.
///
/// ```
/// use dicom_export::ExportDestination;
///
/// let destination = ExportDestination::azure_blob("https://account.blob.core.windows.net/container?sv=…&sig=secret");
/// assert!(!format!("{destination:?}").contains("secret"));
/// ```
#[derive(Clone, PartialEq)]
pub struct ExportDestination {
    kind: String,
    settings: Value,
}

impl ExportDestination {
    /// The published destination type: an Azure Blob container.
    pub const AZURE_BLOB: &str = "azureblob";

    /// Creates a destination of any type. The type is case-insensitive; `settings` is a JSON object.
    pub fn new(kind: &str, settings: Value) -> Self {
        Self { kind: kind.to_ascii_lowercase(), settings }
    }

    /// An Azure Blob container with this URI. A SAS in its query is the credential.
    pub fn azure_blob(container_uri: &str) -> Self {
        Self::new(Self::AZURE_BLOB, json!({ "blobContainerUri": container_uri }))
    }

    /// An Azure Blob container with this URI, written to with the server's managed identity.
    pub fn azure_blob_with_managed_identity(container_uri: &str) -> Self {
        Self::new(Self::AZURE_BLOB, json!({ "blobContainerUri": container_uri, "useManagedIdentity": true }))
    }

    /// An Azure Blob container of the account with this connection string.
    pub fn azure_blob_from_connection_string(connection_string: &str, container_name: &str) -> Self {
        let settings = json!({ "connectionString": connection_string, "blobContainerName": container_name });
        Self::new(Self::AZURE_BLOB, settings)
    }

    /// The destination type, in lower case.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The settings, **including credentials**.
    pub fn expose_settings(&self) -> &Value {
        &self.settings
    }

    /// Reads the body of a resumption: `{ "destination": … }`, with the rules of [`ExportRequest`].
    #[cfg(feature = "http")]
    pub(crate) fn from_resumption(text: &[u8]) -> Result<Option<Self>> {
        let parts =
            json::parse(text, |at, deserializer| Seed(ResumptionReader(at)).deserialize(deserializer))?;
        Ok(parts.map(Self::from_parts))
    }

    fn from_parts((kind, settings): DestinationParts) -> Self {
        Self::new(&kind, settings)
    }
}

impl fmt::Debug for ExportDestination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.settings.as_object().into_iter().flat_map(|map| map.keys());
        // A name may be a misplaced credential too.
        let names: Vec<_> = names.map(|name| if is_shown(name) { name } else { "***" }).collect();
        f.debug_struct("ExportDestination").field("type", &self.kind).field("settings", &names).finish()
    }
}

impl Serialize for ExportDestination {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("destination", 2)?;
        out.serialize_field("type", &self.kind)?;
        out.serialize_field("settings", &self.settings)?;
        out.end()
    }
}

impl<'de> Deserialize<'de> for ExportDestination {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        json::deserialize(deserializer, |at, deserializer| {
            let parts = Seed(DestinationReader(at)).deserialize(deserializer)?;
            parts.map(Self::from_parts).ok_or_else(|| at.fail_with("must be an object, not null"))
        })
    }
}

/// A change to an operation.
#[cfg(feature = "http")]
#[derive(Debug)]
pub(crate) struct OperationUpdate {
    /// The new limit on bytes per second, if it changes; `Some(None)`: no limit.
    pub(crate) bytes_per_second: Option<Option<NonZeroU64>>,
}

#[cfg(feature = "http")]
impl OperationUpdate {
    /// Reads the body of a change: `{ "bytesPerSecond": … }`.
    pub(crate) fn from_json(text: &[u8]) -> Result<Self> {
        let bytes_per_second =
            json::parse(text, |at, deserializer| Seed(UpdateReader(at)).deserialize(deserializer))?;
        Ok(Self { bytes_per_second })
    }
}
