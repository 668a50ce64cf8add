//! What lies there, compared with the manifest.

use std::collections::BTreeSet;
use std::fmt;

use dicom_export::object_store::path::Path;
use dicom_export::object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt};
use dicom_export::{BlobPath, OperationId};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};

use crate::manifest::{Claims, Manifest};

/// How many blobs are read at once.
const AT_ONCE: usize = 8;

/// How many there are of each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Differences {
    checked: u64,
    missing: u64,
    changed: u64,
    extra: u64,
    unreadable: u64,
}

/// Why it could not be checked to the end.
pub(crate) struct Trouble(pub(crate) String);

impl Differences {
    pub(crate) fn any(self) -> bool {
        self.missing + self.changed + self.extra + self.unreadable > 0
    }
}

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { checked, missing, changed, extra, unreadable } = self;
        write!(f, "{checked} as they were exported, {missing} missing, {changed} changed, {extra} extra")?;
        match unreadable {
            0 => Ok(()),
            lines => write!(f, ", {lines} unreadable lines of the manifest"),
        }
    }
}

/// What is the matter with a blob that is there.
enum Verdict {
    Same,
    Changed(String),
    Extra,
    /// It went away meanwhile.
    Missing,
}

/// Prints each difference as it is found.
pub(crate) async fn compare(
    store: &dyn ObjectStore,
    operation: OperationId,
    manifest: Manifest,
) -> Result<Differences, Trouble> {
    let mut differences = Differences::default();
    for line in &manifest.unreadable {
        println!("unreadable {} line {line}", BlobPath::manifest(operation));
        differences.unreadable += 1;
    }
    let mut unseen: BTreeSet<&str> = manifest.blobs.keys().map(String::as_str).collect();
    let listed = store.list(Some(&Path::from(operation.to_string())));
    let judged = listed
        .map_err(|error| trouble("the destination cannot be listed", &error))
        .try_filter(|blob| std::future::ready(!is_of_the_export(operation, blob.location.as_ref())))
        .map_ok(|blob| {
            let claims = manifest.blobs.get(blob.location.as_ref());
            async move {
                let verdict = judge(store, &blob, claims).await?;
                Ok((blob.location, verdict))
            }
        })
        .try_buffer_unordered(AT_ONCE);
    let mut judged = std::pin::pin!(judged);
    while let Some((path, verdict)) = judged.try_next().await? {
        match verdict {
            // It stays among those that were not seen.
            Verdict::Missing => continue,
            Verdict::Same => differences.checked += 1,
            Verdict::Changed(how) => {
                println!("changed {path} ({how})");
                differences.changed += 1;
            }
            Verdict::Extra => {
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

/// The logs; and a hidden file that a killed export to a folder can leave behind: `.<32 digits>.part`.
fn is_of_the_export(operation: OperationId, path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let hidden = name.strip_prefix('.').and_then(|name| name.strip_suffix(".part"));
    let part = hidden.is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    part || path == BlobPath::error_log(operation).as_str() || path == BlobPath::manifest(operation).as_str()
}

async fn judge(
    store: &dyn ObjectStore,
    blob: &ObjectMeta,
    claims: Option<&Claims>,
) -> Result<Verdict, Trouble> {
    let Some(claims) = claims else { return Ok(Verdict::Extra) };
    if !claims.has_size(blob.size) {
        return Ok(Verdict::Changed(format!("{} bytes, not {}", blob.size, claims.sizes())));
    }
    let unreadable = |error| trouble("a blob cannot be read", &error);
    let mut chunks = match store.get(&blob.location).await {
        Ok(found) => found.into_stream(),
        Err(Error::NotFound { .. }) => return Ok(Verdict::Missing),
        Err(error) => return Err(unreadable(error)),
    };
    let (mut sha256, mut size) = (Sha256::new(), 0);
    while let Some(chunk) = chunks.try_next().await.map_err(unreadable)? {
        sha256.update(&chunk);
        size += chunk.len() as u64;
    }
    let sha256: String = sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(match claims.has(size, &sha256) {
        true => Verdict::Same,
        false => Verdict::Changed(format!("other bytes, SHA-256 {sha256}")),
    })
}

/// Without the store's own text, which can hold URLs.
fn trouble(what: &str, error: &Error) -> Trouble {
    Trouble(match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => {
            format!("{what}: the credential does not allow it")
        }
        _ => format!("{what}: the destination failed or does not answer"),
    })
}
