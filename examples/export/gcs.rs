//! `gs://BUCKET/PREFIX`, with the application default credentials of the environment.

#![allow(dead_code, reason = "not every example uses all of it")]

use std::sync::Arc;

use dicom_export::{ExportDestination, ExportEngineBuilder, InstanceSource, Result};

/// Opens `gs://BUCKET/PREFIX` as a source.
#[cfg(feature = "gcs")]
pub(crate) fn source(url: &str, layout: Option<&str>) -> Result<Arc<dyn InstanceSource>> {
    use dicom_export::ObjectStoreSource;
    use dicom_export::sink::gcs::GcsPolicy;

    let bucket = ObjectStoreSource::open_gcs(&settings(url), &GcsPolicy::new())?;
    super::source::with_layout(bucket, layout)
}

/// The destination `gs://BUCKET/PREFIX`.
#[cfg(feature = "gcs")]
pub(crate) fn destination(url: &str) -> Result<ExportDestination> {
    Ok(ExportDestination::new("googlecloudstorage", settings(url)))
}

/// Registers the destination type `googlecloudstorage`.
#[cfg(feature = "gcs")]
pub(crate) fn register(engine: ExportEngineBuilder) -> ExportEngineBuilder {
    use dicom_export::sink::gcs::{GcsPolicy, GcsProvider};

    engine.destination("googlecloudstorage", GcsProvider::new(GcsPolicy::new()))
}

#[cfg(feature = "gcs")]
fn settings(url: &str) -> serde_json::Value {
    let path = url.split_once("://").map_or(url, |(_, path)| path);
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    serde_json::json!({ "bucket": bucket, "prefix": prefix, "useInstanceIdentity": true })
}

#[cfg(not(feature = "gcs"))]
pub(crate) fn source(_: &str, _: Option<&str>) -> Result<Arc<dyn InstanceSource>> {
    Err(unsupported())
}

#[cfg(not(feature = "gcs"))]
pub(crate) fn destination(_: &str) -> Result<ExportDestination> {
    Err(unsupported())
}

#[cfg(not(feature = "gcs"))]
pub(crate) fn register(engine: ExportEngineBuilder) -> ExportEngineBuilder {
    engine
}

#[cfg(not(feature = "gcs"))]
fn unsupported() -> dicom_export::Error {
    use dicom_export::{Error, ErrorKind};
    Error::new(ErrorKind::Unsupported, "gs:// requires a build with --features gcs")
}
