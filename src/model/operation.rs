//! The status document of an operation, [`Operation`], and its parts.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::error::{Error, ErrorKind, Result};
use crate::model::Timestamp;
use crate::model::error_log::shorten;

/// The id of an operation: 32 lower-case hexadecimal digits. It is parsed with or without dashes, in either case.
///
/// ```
/// use dicom_export::OperationId;
///
/// let id: OperationId = "DF1FF476-B83A-4A3E-AF11-B1EAC2E5AC56".parse()?;
/// assert_eq!(id.to_string(), "df1ff476b83a4a3eaf11b1eac2e5ac56");
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(Uuid);

impl OperationId {
    /// Creates a random id (RFC 9562, version 4).
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id as a number, for stores that use it as a key.
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }

    /// The id with this number.
    pub fn from_u128(number: u128) -> Self {
        Self(Uuid::from_u128(number))
    }
}

impl FromStr for OperationId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // `Uuid` also reads braces and URNs.
        let has_known_length = matches!(text.len(), 32 | 36);
        match Uuid::try_parse(text) {
            Ok(id) if has_known_length => Ok(Self(id)),
            _ => Err(Error::new(ErrorKind::Invalid, "an operation id must be 32 hexadecimal digits")),
        }
    }
}

impl TryFrom<&str> for OperationId {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
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

/// The state of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum OperationStatus {
    /// Accepted, not running yet.
    NotStarted,
    /// Running, or waiting to be resumed after a restart.
    Running,
    /// Stopped on request until it is resumed. In a status document of the HTTP API the status is `running`, beside `paused`.
    Paused,
    /// Ended: every listed instance is in the container or named in `errors.log`. Under `/v2` the status is `succeeded`.
    #[serde(alias = "succeeded")]
    Completed,
    /// Ended early; `error` is the reason. The operation can be resumed.
    Failed,
    /// Ended early on request.
    Canceled,
    /// The stored status is not known to this version.
    #[serde(other)]
    Unknown,
}

impl OperationStatus {
    /// The name in a status document outside of `/v2`, in camelCase.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "notStarted",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::Unknown => "unknown",
        }
    }

    /// Whether the operation has been accepted and a runner runs it or will run it.
    pub(crate) fn is_running(self) -> bool {
        matches!(self, Self::NotStarted | Self::Running)
    }

    /// Whether the operation has ended. A failed operation runs again only if it is resumed.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }
}

impl fmt::Display for OperationStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What an export has done so far.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ExportResults {
    /// The URL of `errors.log`, without a credential.
    #[cfg_attr(feature = "http", schema(format = "uri"))]
    pub error_href: String,
    /// Instances that are in the container. For an operation that was canceled or has failed it is a lower bound: instances
    /// of the batches that were in flight may be in the container too. They are counted if a failed
    /// operation is resumed.
    pub exported: u64,
    /// Instances that were not exported, entries that could not be listed and identifiers that matched nothing, each
    /// named in `errors.log`.
    pub skipped: u64,
}

/// Why an operation failed, or a warning: a code for programs and a message for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[non_exhaustive]
pub struct OperationIssue {
    /// A stable code in camelCase.
    pub code: String,
    /// A public message.
    pub message: String,
}

impl OperationIssue {
    /// Combines a code and a message.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: shorten(message.into()) }
    }
}

impl From<&Error> for OperationIssue {
    fn from(error: &Error) -> Self {
        Self::new(error.kind().as_str(), error.message())
    }
}

/// The status document: the response of `GET /operations/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Operation {
    /// The operation's id.
    pub operation_id: OperationId,
    /// Always `export`.
    pub r#type: OperationType,
    /// When the operation was accepted.
    pub created_time: Timestamp,
    /// When the stored state of the operation last changed. It advances while a runner holds the operation, also without
    /// progress.
    pub last_updated_time: Timestamp,
    /// When the operation last made progress: when a transfer, a request or a listing page was last finished, to within
    /// seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Timestamp>,
    /// The size of the exported instances in bytes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub bytes: u64,
    /// The name of the runner that runs the operation, or ran it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// The state of the operation.
    pub status: OperationStatus,
    /// What the operation has done so far; present from the start.
    pub results: ExportResults,
    /// The limit on the bytes of instances that the operation transfers per second, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_per_second: Option<NonZeroU64>,
    /// How much of the export is done, from 0 to 100, if the source can estimate it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub percent_complete: Option<u8>,
    /// Why the operation failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<OperationIssue>,
    /// What the owner of the operation should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<OperationIssue>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The `type` of a status document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "http", derive(utoipa::ToSchema))]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum OperationType {
    /// An export.
    Export,
}
