//! Comparing the blobs with the manifest.

use std::collections::BTreeSet;
use std::fmt;

use dicom_export::object_store::path::Path;
use dicom_export::object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};
use dicom_export::{BlobPath, OperationId};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use crate::manifest::{Expected, Manifest};

/// The number of blobs that are read concurrently.
const CONCURRENCY: usize = 8;

/// The number of blobs without a difference, and of each kind of difference.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Differences {
    checked: u64,
    missing: u64,
    changed: u64,
    extra: u64,
    unreadable: u64,
}

/// The reason why the check could not be completed.
pub(crate) struct CheckError(pub(crate) String);

impl Differences {
    pub(crate) fn any(self) -> bool {
        self.missing + self.changed + self.extra + self.unreadable > 0
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checked, missing, changed, extra, unreadable } = self;
        write!(f, "{checked} unchanged, {missing} missing, {changed} changed, {extra} extra")?;
        match unreadable {
            0 => Ok(()),
            lines => write!(f, ", {lines} unreadable lines of the manifest"),
        }
    }
}

/// The result of comparing one listed blob.
enum Comparison {
    Same,
    Changed(String),
    Extra,
    /// The blob was deleted after it was listed.
    Missing,
}

/// Compares all blobs and prints each difference.
pub(crate) async fn compare(
    store: &dyn ObjectStore,
    operation: OperationId,
    manifest: Manifest,
) -> Result<Differences, CheckError> {
    let mut differences = Differences::default();
    for line in &manifest.unreadable {
        println!("unreadable {} line {line}", BlobPath::manifest(operation));
        differences.unreadable += 1;
    }
    let mut unseen: BTreeSet<&str> = manifest.blobs.keys().map(String::as_str).collect();
    let listed = store.list(Some(&Path::from(operation.to_string())));
    let compared = listed
        .map_err(|error| check_error("the destination cannot be listed", &error))
        .try_filter(|blob| std::future::ready(!is_log_or_temporary(operation, blob.location.as_ref())))
        .map_ok(|blob| {
            let expected = manifest.blobs.get(blob.location.as_ref());
            async move {
                let comparison = compare_blob(store, &blob, expected).await?;
                Ok((blob.location, comparison))
            }
        })
        .try_buffer_unordered(CONCURRENCY);
    let mut compared = std::pin::pin!(compared);
    while let Some((path, comparison)) = compared.try_next().await? {
        match comparison {
            // It remains in `unseen`.
            Comparison::Missing => continue,
            Comparison::Same => differences.checked += 1,
            Comparison::Changed(how) => {
                println!("changed {path} ({how})");
                differences.changed += 1;
            }
            Comparison::Extra => {
                println!("extra {path}");
                differences.extra += 1;
            }
        }
        unseen.remove(path.as_ref());
    }
    for path in unseen {
        println!("missing {path}");
        differences.missing += 1;
    }
    Ok(differences)
}

/// Whether a blob is a log, or a temporary file of an export to a folder that was killed: `.<32 digits>.part`.
fn is_log_or_temporary(operation: OperationId, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let hidden = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
    let part = hidden.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    part || path == BlobPath::error_log(operation).as_str() || path == BlobPath::manifest(operation).as_str()
}

async fn compare_blob(
    store: &dyn ObjectStore,
    blob: &ObjectMeta,
    expected: Option<&Expected>,
) -> Result<Comparison, CheckError> {
    let Some(expected) = expected else { return Ok(Comparison::Extra) };
    if !expected.has_size(blob.size) {
        return Ok(Comparison::Changed(format!("{} bytes, not {}", blob.size, expected.sizes())));
    }
    let unreadable = |error| check_error("a blob cannot be read", &error);
    let mut chunks = match store.get(&blob.location).await {
        Ok(found) => found.into_stream(),
        Err(Error::NotFound { .. }) => return Ok(Comparison::Missing),
        Err(error) => return Err(unreadable(error)),
    };
    let (mut sha256, mut size) = (Sha256::new(), 0);
    while let Some(chunk) = chunks.try_next().await.map_err(unreadable)? {
        sha256.update(&chunk);
        size += chunk.len() as u64;
    }
    let sha256: String = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(match expected.has(size, &sha256) {
        true => Comparison::Same,
        false => Comparison::Changed(format!("different bytes, SHA-256 {sha256}")),
    })
}

/// Omits the store's own message, which can contain URLs.
fn check_error(what: &str, error: &Error) -> CheckError {
    CheckError(match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            format!("{what}: the credential does not allow it")
        }
        _ => format!("{what}: the destination failed or does not respond"),
    })
}
