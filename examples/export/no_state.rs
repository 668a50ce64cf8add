//! `--state` without the feature it needs.

use std::path::Path;
use std::sync::Arc;

use dicom_export::store::OperationStore;
use dicom_export::{Error, ErrorKind, Result};

pub(crate) fn open(_: &Path) -> Result<Arc<dyn OperationStore>> {
    Err(Error::new(ErrorKind::Unsupported, "--state needs this example to be built with --features redb"))
}
