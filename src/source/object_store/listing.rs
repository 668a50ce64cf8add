//! [`Listing`]: a listing of a folder between two pages.

use ::object_store::path::Path;
use ::object_store::{Error as StoreError, ObjectMeta};
use futures::stream::{BoxStream, TryStreamExt};

use super::error::list_error;
use crate::error::{Error, ErrorKind, Result};

/// A listing of a folder between two pages.
pub(super) struct Listing {
    pub(super) folder: Path,
    /// The key after which the listing was requested to start.
    pub(super) after: Option<Path>,
    /// The last key received.
    pub(super) last: Option<Path>,
    pub(super) objects: BoxStream<'static, Result<ObjectMeta, StoreError>>,
}

impl Listing {
    /// Returns the next object.
    pub(super) async fn next(&mut self) -> Result<Option<ObjectMeta>> {
        loop {
            let Some(meta) = self.objects.try_next().await.map_err(list_error)? else { return Ok(None) };
            if self.last.as_ref().is_some_and(|last| meta.location <= *last) {
                let message = "the source's store does not list in the order of keys";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            self.last = Some(meta.location.clone());
            // Some stores ignore the offset: Azure's emulator does.
            if self.after.as_ref().is_none_or(|after| meta.location > *after) {
                return Ok(Some(meta));
            }
        }
    }
}
