//! `--state`: operations in a file.

use std::path::Path;
use std::sync::Arc;

use dicom_export::Result;
use dicom_export::store::OperationStore;

#[cfg(feature = "redb")]
pub(crate) fn open(path: &Path) -> Result<Arc<dyn OperationStore>> {
    Ok(Arc::new(dicom_export::store::RedbOperationStore::open(path)?))
}

#[cfg(not(feature = "redb"))]
pub(crate) fn open(_: &Path) -> Result<Arc<dyn OperationStore>> {
    use dicom_export::{Error, ErrorKind};
    Err(Error::new(ErrorKind::Unsupported, "--state requires a build with --features redb"))
}
