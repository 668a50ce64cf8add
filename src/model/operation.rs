//! An operation as callers see it: [`OperationId`], [`OperationStatus`] and the status document, [`Operation`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::Timestamp;

/// An operation's id: 32 lower-case hexadecimal digits. Read with or without dashes, in either case.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(Uuid);

impl OperationId {
    /// A new random id (RFC 9562 version 4).
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id as a number, for stores that key by it.
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// The id of this number.
    pub fn from_u128(number: u128) -> Self {
        Self(Uuid::from_u128(number))
    }
}

impl FromStr for OperationId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let plain = matches!(text.len(), 32 | 36);
        match Uuid::try_parse(text) {
            Ok(id) if plain => Ok(Self(id)),
            _ => Err(Error::new(ErrorKind::Invalid, "an operation id is 32 hexadecimal digits")),
        }
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.simple(), f)
    }
}

impl fmt::Debug for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OperationId({self})")
    }
}

impl Serialize for OperationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for OperationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum OperationStatus {
    /// Accepted; nobody runs it yet.
    NotStarted,
    /// Being run, or to be resumed after a restart.
    Running,
    /// Ended: every listed instance is in the container or named in `errors.log`. Under `/v2` it is `succeeded`.
    #[serde(alias = "succeeded")]
    Completed,
    /// Ended early; `error` says why. It can be resumed.
    Failed,
    /// Ended early, because somebody asked for it.
    Canceled,
    /// The store holds a status that this version does not know.
    #[serde(other)]
    Unknown,
}

impl OperationStatus {
    /// Whether it changes no more by itself.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }
}

/// What an export has done so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExportResults {
    /// The URL of `errors.log`, without a credential.
    pub error_href: String,
    /// Instances that are in the container.
    pub exported: u64,
    /// Instances, failures of the listing, and identifiers that matched nothing, each named in `errors.log`.
    pub skipped: u64,
}

/// A code for programs and a message for people: why an operation failed, or what it warns of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationIssue {
    /// camelCase, stable.
    pub code: String,
    /// A public message.
    pub message: String,
}

impl OperationIssue {
    /// From its two parts.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl From<&Error> for OperationIssue {
    fn from(error: &Error) -> Self {
        Self::new(error.kind().as_str(), error.message())
    }
}

/// The status document: what `GET /operations/{id}` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Operation {
    /// The id.
    pub operation_id: OperationId,
    /// Always `export`.
    pub r#type: OperationType,
    /// When it was accepted.
    pub created_time: Timestamp,
    /// When its stored state last changed.
    pub last_updated_time: Timestamp,
    /// Where it stands.
    pub status: OperationStatus,
    /// What it has done so far; there from the start.
    pub results: ExportResults,
    /// 0 to 100, when the source can estimate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent_complete: Option<u8>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<OperationIssue>,
    /// What its owner should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<OperationIssue>,
}

/// The `type` of a status document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum OperationType {
    /// An export.
    Export,
}
