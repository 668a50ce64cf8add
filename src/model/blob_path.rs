//! [`BlobPath`]: the names of the blobs that an export writes.

use std::fmt;

use crate::model::{InstanceIdentifier, OperationId};

/// The name of a blob in the container.
///
/// It is built from an operation id and UIDs only, so it consists of hexadecimal digits, dots, slashes and the fixed
/// words of the layout. It needs no escaping in a URL and is always below `<operation id>/`.
///
/// ```
/// use dicom_export::{BlobPath, OperationId};
///
/// let id: OperationId = "df1ff476b83a4a3eaf11b1eac2e5ac56".parse()?;
/// let path = BlobPath::instance(id, &"1.2.3/4.5/6.7".parse()?);
/// assert_eq!(path.as_str(), "df1ff476b83a4a3eaf11b1eac2e5ac56/results/1.2.3/4.5/6.7.dcm");
/// # Ok::<_, dicom_export::Error>(())
/// ```
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

    /// The name, with `/` between its parts and no leading slash.
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
