//! [`ExportRequest`]: the body of `POST /export`.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::model::json::{Json, Object, is_shown};
use crate::model::{DicomIdentifier, Uid};

/// What to export, and the destination.
///
/// [`ExportRequest::from_json`] reads the wire form and reports errors with the JSON pointer of the property that is
/// wrong; serde reads it too. Property and type names are case-insensitive, and `sources` is read as `source`. Any other
/// unknown property is an error, because a misspelled `source` that is ignored would export everything.
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
    /// [`ErrorKind::Invalid`], with the JSON pointer of the property that is wrong or missing, or with the line and
    /// column of a syntax error.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        Self::read(Json::parse(text)?)
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

    fn read(json: Json) -> Result<Self> {
        let mut body = json.into_object("")?;
        let name = match (body.has("source"), body.has("sources")) {
            (true, true) => {
                return Err(Error::invalid("/sources", "'/source' and '/sources' are both given"));
            }
            // This spelling occurs in a published example.
            (false, true) => "sources",
            _ => "source",
        };
        let source = match body.take(name) {
            None => ExportSource::Everything,
            Some(source) => ExportSource::read(source, &body.pointer_to(name))?,
        };
        let destination = body.take("destination").ok_or_else(|| body.missing("destination"))?;
        let destination = ExportDestination::read(destination, "/destination")?;
        body.finish()?;
        Ok(Self { source, destination })
    }
}

impl<'de> Deserialize<'de> for ExportRequest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::read(Json::deserialize(deserializer)?).map_err(de::Error::custom)
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
    /// [`ErrorKind::Invalid`] if there are no identifiers.
    pub fn identifiers(values: impl IntoIterator<Item = DicomIdentifier>) -> Result<Self> {
        Identifiers::new(values.into_iter().collect()).map(Self::Identifiers)
    }

    /// Whether the source is the whole archive.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Everything)
    }

    fn read(json: Json, pointer: &str) -> Result<Self> {
        let (kind, settings) = typed(json, pointer)?;
        if !kind.eq_ignore_ascii_case("identifiers") {
            let message = format!("'{pointer}/type' must be 'identifiers'");
            return Err(Error::invalid(format!("{pointer}/type"), message));
        }
        let pointer = format!("{pointer}/settings");
        let mut settings = settings.unwrap_or(Json::Object(Vec::new())).into_object(pointer)?;
        let at = settings.pointer_to("values");
        let values = settings.take("values").ok_or_else(|| settings.missing("values"))?.into_array(&at)?;
        let values = values
            .into_iter()
            .enumerate()
            .map(|(index, value)| {
                let at = format!("{at}/{index}");
                value.into_string(&at)?.parse().map_err(|fault: Error| {
                    Error::invalid(at.as_str(), format!("'{at}' is not an identifier: {fault}"))
                })
            })
            .collect::<Result<Vec<DicomIdentifier>>>()?;
        settings.finish()?;
        Identifiers::new(values).map(Self::Identifiers).map_err(|_| {
            Error::invalid(at.as_str(), format!("'{at}' is empty: leave the source out to export everything"))
        })
    }
}

impl Serialize for ExportSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Everything => serializer.serialize_none(),
            Self::Identifiers(identifiers) => {
                #[derive(Serialize)]
                struct Settings<'a> {
                    values: &'a [DicomIdentifier],
                }
                let mut out = serializer.serialize_struct("source", 2)?;
                out.serialize_field("type", "identifiers")?;
                out.serialize_field("settings", &Settings { values: identifiers.as_slice() })?;
                out.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for ExportSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Null => Ok(Self::Everything),
            json => Self::read(json, "").map_err(de::Error::custom),
        }
    }
}

/// One or more identifiers, none of which covers another, so each instance under them is exported and counted once.
///
/// Clones share the identifiers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifiers(Arc<[DicomIdentifier]>);

impl Identifiers {
    fn new(mut values: Vec<DicomIdentifier>) -> Result<Self> {
        if values.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "there are no identifiers"));
        }
        let mut studies: HashSet<Uid> = HashSet::new();
        let mut series: HashSet<(Uid, Uid)> = HashSet::new();
        for value in &values {
            match (value.series_instance_uid(), value.sop_instance_uid()) {
                (None, _) => _ = studies.insert(value.study_instance_uid().clone()),
                (Some(uid), None) => _ = series.insert((value.study_instance_uid().clone(), uid.clone())),
                (Some(_), Some(_)) => {}
            }
        }
        let mut seen = HashSet::with_capacity(values.len());
        values.retain(|value| {
            let study = value.study_instance_uid();
            let covered = match value.series_instance_uid() {
                None => false,
                Some(_) if studies.contains(study) => true,
                Some(uid) => {
                    value.sop_instance_uid().is_some() && series.contains(&(study.clone(), uid.clone()))
                }
            };
            !covered && seen.insert(value.clone())
        });
        Ok(Self(values.into()))
    }

    /// The identifiers, in the order they were given.
    pub fn as_slice(&self) -> &[DicomIdentifier] {
        &self.0
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

    pub(crate) fn read(json: Json, pointer: &str) -> Result<Self> {
        let (kind, settings) = typed(json, pointer)?;
        let at = format!("{pointer}/settings");
        let settings = settings.unwrap_or(Json::Object(Vec::new()));
        if !matches!(settings, Json::Object(_)) {
            return Err(settings.mismatch(&at, "an object"));
        }
        Ok(Self::new(&kind, settings.into_value(&at)?))
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
        Self::read(Json::deserialize(deserializer)?, "").map_err(de::Error::custom)
    }
}

/// Reads the common form of sources and destinations: `{ "type": …, "settings": { … } }`.
fn typed(json: Json, pointer: &str) -> Result<(String, Option<Json>)> {
    let mut object: Object = json.into_object(pointer)?;
    let kind = object.take_string("type")?.ok_or_else(|| object.missing("type"))?;
    let settings = object.take("settings");
    object.finish()?;
    Ok((kind, settings))
}
