//! [`ManifestEntry`]: one line of `manifest.jsonl`.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::InstanceIdentifier;

/// The manifest of one exported instance.
///
/// Written as one JSON object with camelCase names. An entry may stand in a manifest more than once: a crash repeats
/// the batches under way, and an instance that changed at its source meanwhile then has entries that differ.
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
    /// `path` is the blob's name in the container, `size` its length in bytes, `sha256` 64 lower-case hexadecimal
    /// digits.
    pub fn new(
        identifier: InstanceIdentifier,
        path: impl Into<String>,
        size: u64,
        sha256: impl Into<String>,
    ) -> Self {
        Self { identifier, path: path.into(), size, sha256: sha256.into(), etag: None }
    }

    /// With the destination's tag.
    pub fn with_etag(mut self, etag: Option<String>) -> Self {
        self.etag = etag;
        self
    }

    /// Which instance it is.
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

    /// The SHA-256 of its bytes as the source gave them, in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// The destination's tag of the blob when it was written, if it has such a thing.
    pub fn etag(&self) -> Option<&str> {
        self.etag.as_deref()
    }

    /// The entry as its line, ended by `\n`.
    pub fn to_line(&self) -> String {
        let Self { identifier, path, size, sha256, etag } = self;
        let (path, sha256) = (json!(path), json!(sha256));
        let etag = etag.as_ref().map(|etag| format!(",\"etag\":{}", json!(etag))).unwrap_or_default();
        format!(
            "{{\"identifier\":\"{identifier}\",\"path\":{path},\"size\":{size},\"sha256\":{sha256}{etag}}}\n"
        )
    }
}
