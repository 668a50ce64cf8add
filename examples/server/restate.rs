//! `--restate`: exports that run on a Restate server.

use std::sync::Arc;

use dicom_export::{ExportConfig, ExportService, Result};

#[cfg(feature = "restate")]
pub(crate) fn client(config: ExportConfig, ingress: &str, admin: &str) -> Result<Arc<dyn ExportService>> {
    Ok(Arc::new(dicom_export::restate::Client::new(config, ingress, admin)?))
}

#[cfg(not(feature = "restate"))]
pub(crate) fn client(_: ExportConfig, _: &str, _: &str) -> Result<Arc<dyn ExportService>> {
    use dicom_export::{Error, ErrorKind};
    Err(Error::new(ErrorKind::Unsupported, "--restate requires a build with --features restate"))
}
