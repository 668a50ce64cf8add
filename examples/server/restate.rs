//! `--restate`: operations on a Restate server.

use std::sync::Arc;

use dicom_export::{ExportEngine, ExportService, Result, restate};

pub(crate) fn client(engine: ExportEngine, ingress: &str, admin: &str) -> Result<Arc<dyn ExportService>> {
    Ok(Arc::new(restate::Client::new(engine, ingress, admin)?))
}
