//! Contents from data sets in memory.

use std::sync::Arc;

use dicom_object::DefaultDicomObject;

use crate::content::Content;
use crate::error::{Error, ErrorKind};

impl Content {
    /// Creates a content from a data set in memory. It is encoded as a Part 10 file, in the transfer syntax of its File
    /// Meta Information, while the content is read.
    ///
    /// If the data set cannot be encoded, reading the content fails with [`ErrorKind::Unreadable`].
    pub fn from_dicom_object(object: Arc<DefaultDicomObject>) -> Self {
        Self::from_writer(move |out| {
            object.write_all(out).map_err(|cause| {
                Error::new(ErrorKind::Unreadable, "the data set cannot be encoded").with_source(cause)
            })
        })
    }
}
