//! [`OperationSpec`]: an operation as it is stored when it is accepted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::model::{ExportSource, OperationId, RecordFormat, Timestamp};

/// Information that the host gives an operation when it starts. It is stored with the operation, is never sent to
/// clients, and must not contain secrets.
///
/// ```
/// use dicom_export::OperationContext;
///
/// let context = OperationContext::default().with_partition("north").with_attribute("ticket", "4711");
/// assert_eq!(context.partition.as_deref(), Some("north"));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[must_use]
pub struct OperationContext {
    /// The partition (tenant) whose data is exported.
    pub partition: Option<String>,
    /// The caller that started the operation.
    pub caller: Option<String>,
    /// Other information of the host.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
    /// A digest of the request that started the operation, if it had an `Idempotency-Key`. The HTTP API sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<String>,
}

impl OperationContext {
    /// Sets the partition (tenant).
    pub fn with_partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// Sets the caller.
    pub fn with_caller(mut self, caller: impl Into<String>) -> Self {
        self.caller = Some(caller.into());
        self
    }

    /// Adds an attribute.
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }
}

/// The part of an operation that does not change while it runs. It is written to the store once.
///
/// It may contain a million identifiers, and it contains no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OperationSpec {
    #[serde(default)]
    pub(crate) format: RecordFormat,
    /// The operation's id.
    pub id: OperationId,
    /// When the operation was accepted.
    pub created_time: Timestamp,
    /// What to export.
    pub source: ExportSource,
    /// The destination, without credentials.
    pub destination: StoredDestination,
    /// The URL of `errors.log`, without a credential.
    pub error_href: String,
    /// The context that the host has given the operation.
    #[serde(default)]
    pub context: OperationContext,
    /// Whether `manifest.jsonl` is written.
    #[serde(default, alias = "receipt")]
    pub manifest: bool,
}

/// A destination as it is stored: its type, its location, and its settings without credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StoredDestination {
    /// The destination type, in lower case.
    pub r#type: String,
    /// The container and prefix. A resumed operation must have the same location.
    pub location: String,
    /// The settings without credentials.
    pub settings: Value,
    /// Whether the destination needs a secret from the host's secret store.
    pub has_secret: bool,
    /// When the credential expires, if it states that.
    pub expires: Option<Timestamp>,
}

impl StoredDestination {
    /// Creates a destination from its parts; `expires` is `None`.
    pub fn new(kind: &str, location: impl Into<String>, settings: Value, has_secret: bool) -> Self {
        Self {
            r#type: kind.to_ascii_lowercase(),
            location: location.into(),
            settings,
            has_secret,
            expires: None,
        }
    }
}

/// The sort key of an operation in a listing: creation time, then id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationKey {
    /// When the operation was accepted.
    pub created_time: Timestamp,
    /// The operation's id.
    pub id: OperationId,
}

impl From<&OperationSpec> for OperationKey {
    fn from(spec: &OperationSpec) -> Self {
        Self { created_time: spec.created_time, id: spec.id }
    }
}
