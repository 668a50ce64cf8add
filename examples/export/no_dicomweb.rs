//! A DICOMweb server without the feature it needs.

use std::sync::Arc;

use dicom_export::{Error, ErrorKind, InstanceSource, Result};

pub(crate) fn open(_: &str) -> Result<Arc<dyn InstanceSource>> {
    let message = "a server as --source needs this example to be built with --features dicomweb";
    Err(Error::new(ErrorKind::Unsupported, message))
}
