//! `--restate` without the feature it needs.

use std::sync::Arc;

use dicom_export::{Error, ErrorKind, ExportEngine, ExportService, Result};

pub(crate) fn client(_: ExportEngine, _: &str, _: &str) -> Result<Arc<dyn ExportService>> {
    let message = "--restate needs this example to be built with --features restate";
    Err(Error::new(ErrorKind::Unsupported, message))
}
