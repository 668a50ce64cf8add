//! [`Checked`]: what is looked at while an instance passes.

use crate::content::Content;
use crate::engine::digest::Digest;
use crate::engine::transfer::{Transfers, check_length};
use crate::error::Result;
use crate::model::BlobPath;
use crate::model::ManifestEntry;
use crate::model::{Instance, ListWarning};
use crate::sink::PutResult;

/// The checks of an instance that is on its way. Boxed, as they are off by default.
pub(crate) struct Checked {
    /// The UIDs that differ from those it is listed with.
    differs: Option<String>,
    digest: Option<Digest>,
}

/// What the checks say of an exported instance.
#[derive(Default)]
pub(crate) struct Remarks {
    pub(crate) warning: Option<ListWarning>,
    /// The line of the manifest.
    pub(crate) manifest: Option<String>,
}

impl Transfers {
    /// Has a content looked at while it passes, as far as that is asked for.
    ///
    /// # Errors
    /// Those that skip the instance.
    pub(crate) async fn check(
        &self,
        instance: &Instance,
        mut content: Content,
    ) -> Result<(Content, Option<Box<Checked>>)> {
        let mut checked = Checked { differs: None, digest: None };
        if let Some(check) = &self.checks.head {
            (content, checked.differs) = Box::pin(check.look(instance.identifier(), content)).await?;
        }
        if self.operation.manifest {
            let (passing, digest) = Digest::of(content);
            (content, checked.digest) = (passing, Some(digest));
        }
        let any = checked.differs.is_some() || checked.digest.is_some();
        Ok((content, any.then(|| Box::new(checked))))
    }
}

impl Checked {
    /// # Errors
    /// Those that fail the operation: the destination did not store all that the source gave.
    pub(crate) fn remarks(
        &self,
        instance: &Instance,
        path: &BlobPath,
        stored: &PutResult,
    ) -> Result<Box<Remarks>> {
        let mut remarks = Remarks::default();
        if let Some(differs) = &self.differs {
            tracing::warn!(%differs, "an instance is not the one that it is listed as");
            let message = "instances that are not the ones that they are listed as";
            remarks.warning = Some(ListWarning::new("identityMismatch", message, 1));
        }
        if let Some(digest) = &self.digest {
            let (length, sha256) = digest.read();
            check_length(stored, Some(length))?;
            let entry = ManifestEntry::new(instance.identifier().clone(), path.as_str(), length, sha256);
            remarks.manifest = Some(entry.with_etag(stored.etag.clone()).to_line());
        }
        Ok(Box::new(remarks))
    }
}
