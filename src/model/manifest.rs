//! [`ManifestEntry`]: one line of `manifest.jsonl`.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::InstanceIdentifier;

/// An entry of the manifest: one exported instance.
///
/// It is written as one JSON object with camelCase names. An instance may have more than one entry: batches in flight
/// are repeated after a crash, and the entries differ if the instance has changed at its source in the meantime.
///
/// ```
/// use dicom_export::ManifestEntry;
///
/// let line = r#"{"identifier":"1.2/3.4/5.6","path":"<id>/results/1.2/3.4/5.6.dcm","size":132,"sha256":"e3b0…"}"#;
/// let entry: ManifestEntry = serde_json::from_str(line)?;
/// assert_eq!((entry.identifier().to_string().as_str(), entry.size()), ("1.2/3.4/5.6", 132));
/// # Ok::<_, serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ManifestEntry {
    identifier: InstanceIdentifier,
    path: String,
    size: u64,
    sha256: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
}

impl ManifestEntry {
    /// Creates an entry. `path` is the blob's name in the container, `size` its length in bytes, `sha256` its digest as
    /// 64 lower-case hexadecimal digits.
    pub fn new(
        identifier: InstanceIdentifier,
        path: impl Into<String>,
        size: u64,
        sha256: impl Into<String>,
    ) -> Self {
        Self { identifier, path: path.into(), size, sha256: sha256.into(), etag: None }
    }

    /// Sets the destination's ETag.
    #[must_use]
    pub fn with_etag(mut self, etag: Option<String>) -> Self {
        self.etag = etag;
        self
    }

    /// The instance.
    pub fn identifier(&self) -> &InstanceIdentifier {
        &self.identifier
    }

    /// The blob's name in the container: `<operation id>/results/<study>/<series>/<sop instance>.dcm`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The blob's length in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The SHA-256 of the bytes that the source returned, in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The ETag that the destination returned when the blob was written, if any.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// The entry as a line of the manifest, terminated by `\n`.
    pub fn to_line(&self) -> String {
        let Self { identifier, path, size, sha256, etag } = self;
        let (path, sha256) = (json!(path), json!(sha256));
        let etag = etag.as_ref().map(|etag| format!(",\"etag\":{}", json!(etag))).unwrap_or_default();
        format!(
            "{{\"identifier\":\"{identifier}\",\"path\":{path},\"size\":{size},\"sha256\":{sha256}{etag}}}\n"
        )
    }
}
