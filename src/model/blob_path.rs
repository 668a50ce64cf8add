//! Where things land: [`BlobPath`].

use std::fmt;

use crate::model::InstanceIdentifier;
use crate::model::OperationId;

/// A blob's name in the container.
///
/// It can only be made of an operation's id and UIDs, so it holds nothing but hexadecimal digits, dots, slashes and
/// the fixed words of the layout, needs no escaping in a URL, and cannot leave `<operation id>/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobPath(String);

impl BlobPath {
    /// `<operation id>/results/<study>/<series>/<sop instance>.dcm`
    pub fn instance(operation: OperationId, instance: &InstanceIdentifier) -> Self {
        Self(format!("{operation}/results/{instance}.dcm"))
    }

    /// `<operation id>/errors.log`
    pub fn error_log(operation: OperationId) -> Self {
        Self(format!("{operation}/errors.log"))
    }

    /// `<operation id>/manifest.jsonl`
    pub fn manifest(operation: OperationId) -> Self {
        Self(format!("{operation}/manifest.jsonl"))
    }

    /// The name, with `/` between its parts and none at its start.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for BlobPath {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BlobPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
