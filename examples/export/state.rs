//! `--state`: operations in a file.

use std::path::Path;
use std::sync::Arc;

use dicom_export::Result;
use dicom_export::store::{OperationStore, RedbOperationStore};

pub(crate) fn open(path: &Path) -> Result<Arc<dyn OperationStore>> {
    Ok(Arc::new(RedbOperationStore::open(path)?))
}
