//! An operation as it is stored when it is accepted: [`OperationSpec`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::operation::OperationId;
use super::request::ExportSource;
use super::timestamp::Timestamp;

/// What a host says of an operation when it starts it; stored with it, never on the wire. No secrets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OperationContext {
    /// The partition (tenant) whose data it exports.
    pub partition: Option<String>,
    /// Who asked for it.
    pub caller: Option<String>,
    /// Whatever else the host wants to find again.
    pub attributes: BTreeMap<String, String>,
}

impl OperationContext {
    /// For this partition (tenant).
    pub fn with_partition(mut self, partition: impl Into<String>) -> Self {
        self.partition = Some(partition.into());
        self
    }

    /// Asked for by this caller.
    pub fn with_caller(mut self, caller: impl Into<String>) -> Self {
        self.caller = Some(caller.into());
        self
    }

    /// With one more attribute.
    pub fn with_attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(name.into(), value.into());
        self
    }
}

/// Everything about an operation that does not change while it runs: written to the store once.
///
/// It may hold a million identifiers, and it holds no secret.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct OperationSpec {
    /// The id.
    pub id: OperationId,
    /// When it was accepted.
    pub created_time: Timestamp,
    /// What is exported.
    pub source: ExportSource,
    /// Where to, without credentials.
    pub destination: StoredDestination,
    /// The URL of `errors.log`, without a credential.
    pub error_href: String,
    /// What the host said of it.
    pub context: OperationContext,
    /// Whether `manifest.jsonl` is written.
    #[serde(default, alias = "receipt")]
    pub manifest: bool,
}

/// A destination as it is stored: its type, its place, and its settings without credentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct StoredDestination {
    /// The destination type, in lower case.
    pub r#type: String,
    /// Which container it is, for comparing: a resumed operation goes on in the same one.
    pub location: String,
    /// The public settings.
    pub settings: Value,
    /// Whether it needs a secret besides; that one is in the host's secret store.
    pub has_secret: bool,
    /// When its credential expires, if the credential says.
    pub expires: Option<Timestamp>,
}

impl StoredDestination {
    /// From its parts.
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

/// The sort key of an operation in a listing: by creation time, then by id.
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
