//! [`ErrorLogEntry`]: one line of `errors.log`.

use serde::de::DeserializeSeed;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::error::Result;
use crate::model::Timestamp;
use crate::model::json::{self, Object};

/// An entry of `errors.log`: what was not exported, and why.
///
/// It is written as one JSON object with camelCase names. Names are read without regard to case, because published
/// documents capitalize them. An entry may occur more than once in a log.
///
/// ```
/// use dicom_export::ErrorLogEntry;
///
/// let line = r#"{"timestamp":"2022-09-08T16:40:36.2627618Z","identifier":"1.2.3","error":"not found"}"#;
/// let entry: ErrorLogEntry = serde_json::from_str(line)?;
/// assert_eq!((entry.identifier(), entry.error()), ("1.2.3", "not found"));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ErrorLogEntry {
    timestamp: Timestamp,
    identifier: String,
    error: String,
}

/// The maximum length of a message or an identifier in a document or a line, in bytes.
const MAX_TEXT_LENGTH: usize = 4096;

/// Shortens a text of a host to [`MAX_TEXT_LENGTH`].
pub(super) fn shorten(mut text: String) -> String {
    if text.len() > MAX_TEXT_LENGTH {
        let mut end = MAX_TEXT_LENGTH - '…'.len_utf8();
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

impl ErrorLogEntry {
    /// Creates an entry. `identifier` is `<study>[/<series>[/<sop instance>]]`: the requested identifier if nothing was
    /// found under it, or the instance that failed. `error` is a public message. Each is shortened to 4 KiB, so that no
    /// line exceeds what a destination accepts in one append.
    pub fn new(timestamp: Timestamp, identifier: impl Into<String>, error: impl Into<String>) -> Self {
        Self { timestamp, identifier: shorten(identifier.into()), error: shorten(error.into()) }
    }

    /// When the failure happened.
    pub fn timestamp(&self) -> Timestamp {
        self.timestamp
    }

    /// What was not exported.
    pub fn identifier(&self) -> &str {
        &self.identifier
    }

    /// Why it was not exported.
    pub fn error(&self) -> &str {
        &self.error
    }

    /// The entry as a line of the log, terminated by `\n`. JSON escapes line breaks, so it is always a single line.
    pub fn to_line(&self) -> String {
        // In the documented order of members: a `Value` would sort them by name.
        let Self { timestamp, identifier, error } = self;
        let (identifier, error) = (json!(identifier), json!(error));
        format!("{{\"timestamp\":\"{timestamp}\",\"identifier\":{identifier},\"error\":{error}}}\n")
    }
}

impl<'de> Deserialize<'de> for ErrorLogEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |value| -> Result<Self> {
            let mut line = Object::new("", value)?;
            let timestamp =
                line.take_string("timestamp")?.ok_or_else(|| line.missing("timestamp"))?.parse()?;
            let identifier = line.take_string("identifier")?.unwrap_or_default();
            let error = line.take_string("error")?.unwrap_or_default();
            line.finish()?;
            Ok(Self { timestamp, identifier, error })
        };
        json::deserialize(deserializer, |at, deserializer| {
            let value = json::read_tree(at, usize::MAX, |seed| seed.deserialize(deserializer))?;
            read(value).map_err(|error| at.fail(error))
        })
    }
}
