//! Contents made of data sets.

use std::sync::Arc;

use dicom_object::DefaultDicomObject;

use crate::content::Content;
use crate::error::{Error, ErrorKind};

impl Content {
    /// A data set in memory as Part 10 bytes, encoded in the transfer syntax of its file meta group while they are
    /// read.
    ///
    /// One that cannot be encoded is [`ErrorKind::Unreadable`] when it is read, not before.
    pub fn from_dicom_object(object: Arc<DefaultDicomObject>) -> Self {
        Self::from_writer(move |out| {
            object.write_all(out).map_err(|cause| {
                Error::new(ErrorKind::Unreadable, "the data set cannot be encoded").with_source(cause)
            })
        })
    }
}
