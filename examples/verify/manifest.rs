//! Reading the manifest.

use std::collections::HashMap;

use dicom_export::object_store::path::Path;
use dicom_export::object_store::{Error, ObjectStore, ObjectStoreExt};
use dicom_export::{BlobPath, ManifestEntry, OperationId};
use futures::TryStreamExt;

/// The sizes and SHA-256 digests that a manifest states for one blob: usually one pair, several after a crash.
#[derive(Default)]
pub(crate) struct Expected(Vec<(u64, String)>);

pub(crate) struct Manifest {
    /// Keyed by the name of the blob.
    pub(crate) blobs: HashMap<String, Expected>,
    /// The numbers, from 1, of lines that are not entries of this operation.
    pub(crate) unreadable: Vec<u64>,
}

impl Expected {
    pub(crate) fn has_size(&self, size: u64) -> bool {
        self.0.iter().any(|(expected, _)| *expected == size)
    }

    pub(crate) fn has(&self, size: u64, sha256: &str) -> bool {
        self.0.iter().any(|(expected, digest)| *expected == size && digest.eq_ignore_ascii_case(sha256))
    }

    pub(crate) fn sizes(&self) -> String {
        let sizes: Vec<_> = self.0.iter().map(|(size, _)| size.to_string()).collect();
        sizes.join(" or ")
    }

    fn add(&mut self, size: u64, sha256: &str) {
        if !self.has(size, sha256) {
            self.0.push((size, sha256.to_owned()));
        }
    }
}

impl Manifest {
    /// # Errors
    /// Fails with a message if the manifest does not exist or cannot be read.
    pub(crate) async fn read(store: &dyn ObjectStore, operation: OperationId) -> Result<Self, String> {
        let unreadable = |error: Error| match error {
            Error::NotFound { .. } => {
                "the operation has no manifest.jsonl: its id is wrong, or it wrote none"
            }
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
                "the credential does not permit reading manifest.jsonl"
            }
            _ => "manifest.jsonl cannot be read",
        };
        let path = Path::from(BlobPath::manifest(operation).as_str());
        let mut chunks = store.get(&path).await.map_err(unreadable)?.into_stream();
        let mut manifest = Self { blobs: HashMap::new(), unreadable: Vec::new() };
        let (mut number, mut rest) = (0, Vec::new());
        while let Some(chunk) = chunks.try_next().await.map_err(unreadable)? {
            for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
                rest.extend_from_slice(piece);
                if rest.ends_with(b"\n") {
                    number += 1;
                    manifest.add(operation, number, &rest);
                    rest.clear();
                }
            }
        }
        if !rest.is_empty() {
            // The last line is incomplete.
            manifest.unreadable.push(number + 1);
        }
        Ok(manifest)
    }

    fn add(&mut self, operation: OperationId, number: u64, line: &[u8]) {
        let entry = serde_json::from_slice::<ManifestEntry>(line).ok();
        let own = |entry: &ManifestEntry| {
            entry.path() == BlobPath::instance(operation, entry.identifier()).as_str()
        };
        match entry.filter(own) {
            Some(entry) => {
                self.blobs.entry(entry.path().to_owned()).or_default().add(entry.size(), entry.sha256());
            }
            None => self.unreadable.push(number),
        }
    }
}
