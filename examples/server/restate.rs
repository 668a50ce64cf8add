//! `--restate`: exports that run on a Restate server.

use std::sync::Arc;

use dicom_export::{ExportEngine, ExportService, Result};

#[cfg(feature = "restate")]
pub(crate) fn client(engine: ExportEngine, ingress: &str, admin: &str) -> Result<Arc<dyn ExportService>> {
    Ok(Arc::new(dicom_export::restate::Client::new(engine, ingress, admin)?))
}

#[cfg(not(feature = "restate"))]
pub(crate) fn client(_: ExportEngine, _: &str, _: &str) -> Result<Arc<dyn ExportService>> {
    use dicom_export::{Error, ErrorKind};
    Err(Error::new(ErrorKind::Unsupported, "--restate requires a build with --features restate"))
}
