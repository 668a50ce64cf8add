//! [`ExportRequest`]: the body of `POST /export`, read leniently where published clients differ and refused
//! strictly where a guess would export the wrong data.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::ser::SerializeStruct;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result};
use crate::model::json::{Json, Object, is_shown};
use crate::model::{DicomIdentifier, Uid};

/// What is to be exported, and where to.
///
/// Read from JSON with [`ExportRequest::from_json`], whose errors carry the JSON pointer of what is wrong, or
/// through serde, whose errors name it in their text. Property names and type names are read in any case,
/// `sources` is read as `source`, and any other unknown property is an error: a misspelt `source` that is ignored
/// would export everything.
///
/// Writing it gives the wire form back, **credentials in the destination included**: that is what a client sends.
/// `Debug` hides them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExportRequest {
    #[serde(skip_serializing_if = "ExportSource::is_everything")]
    source: ExportSource,
    destination: ExportDestination,
}

impl ExportRequest {
    /// From its two halves.
    pub fn new(source: ExportSource, destination: ExportDestination) -> Self {
        Self { source, destination }
    }

    /// Reads the wire form.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], with the JSON pointer of the property that is wrong or missing, or the line and
    /// column where the text stops being JSON.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        Self::read(Json::parse(text)?)
    }

    /// What is to be exported.
    pub fn source(&self) -> &ExportSource {
        &self.source
    }

    /// Where to.
    pub fn destination(&self) -> &ExportDestination {
        &self.destination
    }

    /// Takes it apart.
    pub fn into_parts(self) -> (ExportSource, ExportDestination) {
        (self.source, self.destination)
    }

    fn read(json: Json) -> Result<Self> {
        let mut body = json.into_object("")?;
        let name = match (body.has("source"), body.has("sources")) {
            (true, true) => {
                return Err(Error::invalid("/sources", "'/source' and '/sources' are both given"));
            }
            // A published example spells it so.
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
    /// What these identifiers cover.
    Identifiers(Identifiers),
}

impl ExportSource {
    /// The identifiers to export, in the order given, without repeats and without those another one covers.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when there are none.
    pub fn identifiers(values: impl IntoIterator<Item = DicomIdentifier>) -> Result<Self> {
        Identifiers::new(values.into_iter().collect()).map(Self::Identifiers)
    }

    /// Whether it is the whole archive.
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

/// One or more identifiers, none of which covers another: each instance under them is exported and counted once.
///
/// Cloning shares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identifiers(Arc<[DicomIdentifier]>);

impl Identifiers {
    fn new(mut values: Vec<DicomIdentifier>) -> Result<Self> {
        if values.is_empty() {
            return Err(Error::new(ErrorKind::Invalid, "there are no identifiers"));
        }
        // A million identifiers take a million look-ups.
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

/// Where to: a destination type and its settings, which that type's [`SinkProvider`](crate::SinkProvider) checks.
///
/// `Debug` shows the settings' names only: their values hold credentials.
#[derive(Clone, PartialEq)]
pub struct ExportDestination {
    kind: String,
    settings: Value,
}

impl ExportDestination {
    /// The published destination type: an Azure Blob container.
    pub const AZURE_BLOB: &str = "azureblob";

    /// A destination of any type; the type is read without regard to case. Settings are a JSON object.
    pub fn new(kind: &str, settings: Value) -> Self {
        Self { kind: kind.to_ascii_lowercase(), settings }
    }

    /// An Azure Blob container by its URI, with a SAS as its query if that is the credential.
    pub fn azure_blob(container_uri: &str) -> Self {
        Self::new(Self::AZURE_BLOB, json!({ "blobContainerUri": container_uri }))
    }

    /// An Azure Blob container by its URI, written to with the server's managed identity.
    pub fn azure_blob_with_managed_identity(container_uri: &str) -> Self {
        Self::new(Self::AZURE_BLOB, json!({ "blobContainerUri": container_uri, "useManagedIdentity": true }))
    }

    /// An Azure Blob container by an account's connection string.
    pub fn azure_blob_from_connection_string(connection_string: &str, container_name: &str) -> Self {
        let settings = json!({ "connectionString": connection_string, "blobContainerName": container_name });
        Self::new(Self::AZURE_BLOB, settings)
    }

    /// The destination type, in lower case.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The settings as they were given, **credentials included**.
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
        // A name, too, may be a credential that was put into the wrong place.
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

/// The shape that sources and destinations share: `{ "type": …, "settings": { … } }`.
fn typed(json: Json, pointer: &str) -> Result<(String, Option<Json>)> {
    let mut object: Object = json.into_object(pointer)?;
    let kind = object.take_string("type")?.ok_or_else(|| object.missing("type"))?;
    let settings = object.take("settings");
    object.finish()?;
    Ok((kind, settings))
}
