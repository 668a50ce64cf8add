//! Without the feature `dicom` no head is looked at.

use crate::content::Content;
use crate::error::Result;
use crate::model::InstanceIdentifier;

/// There is none.
#[derive(Debug, Clone)]
pub(crate) enum HeadCheck {}

impl HeadCheck {
    pub(crate) async fn look(&self, _: &InstanceIdentifier, _: Content) -> Result<(Content, Option<String>)> {
        match *self {}
    }
}
