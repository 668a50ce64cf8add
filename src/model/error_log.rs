//! [`ErrorLogEntry`]: one line of `errors.log`.

use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::json;

use crate::error::Result;
use crate::model::Timestamp;
use crate::model::json::Json;

/// What could not be exported, and why.
///
/// Written as one JSON object with camelCase names; names are read in any case, since published documents
/// capitalise them. An entry may stand in a log more than once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ErrorLogEntry {
    timestamp: Timestamp,
    identifier: String,
    error: String,
}

impl ErrorLogEntry {
    /// `identifier` is `<study>[/<series>[/<sop instance>]]`: what was asked for when nothing lies under it, the
    /// instance when that instance failed. `error` is a public message.
    pub fn new(timestamp: Timestamp, identifier: impl Into<String>, error: impl Into<String>) -> Self {
        Self { timestamp, identifier: identifier.into(), error: error.into() }
    }

    /// When it happened.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// What was not exported.
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Why.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// The entry as its line, ended by `\n`. JSON escapes line ends, so it is one line whatever the message holds.
    pub fn to_line(&self) -> String {
        // Member by member, in the documented order: a `Value` would sort them by name.
        let Self { timestamp, identifier, error } = self;
        let (identifier, error) = (json!(identifier), json!(error));
        format!("{{\"timestamp\":\"{timestamp}\",\"identifier\":{identifier},\"error\":{error}}}\n")
    }
}

impl<'de> Deserialize<'de> for ErrorLogEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |json: Json| -> Result<Self> {
            let mut line = json.into_object("")?;
            let timestamp =
                line.take_string("timestamp")?.ok_or_else(|| line.missing("timestamp"))?.parse()?;
            let identifier = line.take_string("identifier")?.unwrap_or_default();
            let error = line.take_string("error")?.unwrap_or_default();
            line.finish()?;
            Ok(Self { timestamp, identifier, error })
        };
        read(Json::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}
