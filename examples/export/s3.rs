//! `s3://BUCKET/PREFIX`, with the region, the endpoint and the credentials in the environment.

#![allow(dead_code, reason = "not every example uses all of it")]

use std::sync::Arc;

use dicom_export::{ExportDestination, ExportEngineBuilder, InstanceSource, Result};

/// Opens `s3://BUCKET/PREFIX` as a source. `development` permits stores on this machine.
#[cfg(feature = "s3")]
pub(crate) fn source(url: &str, development: bool, layout: Option<&str>) -> Result<Arc<dyn InstanceSource>> {
    use dicom_export::ObjectStoreSource;

    let bucket = ObjectStoreSource::open_s3(&settings(url), &policy(development)?)?;
    super::source::with_layout(bucket, layout)
}

/// The destination `s3://BUCKET/PREFIX`.
#[cfg(feature = "s3")]
pub(crate) fn destination(url: &str) -> Result<ExportDestination> {
    Ok(ExportDestination::new("s3", settings(url)))
}

/// Registers the destination type `s3`. `development` permits stores on this machine.
#[cfg(feature = "s3")]
pub(crate) fn register(
    engine: ExportEngineBuilder,
    development: bool,
    root_certificate: Option<&[u8]>,
) -> Result<ExportEngineBuilder> {
    use dicom_export::sink::s3::S3Provider;

    let policy = policy(development)?;
    let policy = match root_certificate {
        Some(pem) => policy.with_root_certificate(pem),
        None => policy,
    };
    Ok(engine.destination("s3", S3Provider::new(policy)))
}

/// An access key in the environment is passed on. Otherwise the library uses the identity of this machine.
#[cfg(feature = "s3")]
fn settings(url: &str) -> serde_json::Value {
    let path = url.split_once("://").map_or(url, |(_, path)| path);
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    let region = variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION"));
    let key = variable("AWS_ACCESS_KEY_ID");
    serde_json::json!({
        "bucket": bucket,
        "prefix": prefix,
        "region": region,
        "endpoint": endpoint(),
        "useInstanceIdentity": key.is_none(),
        "accessKeyId": key,
        "secretAccessKey": variable("AWS_SECRET_ACCESS_KEY"),
        "sessionToken": variable("AWS_SESSION_TOKEN"),
    })
}

/// Allows the endpoint in the environment too.
#[cfg(feature = "s3")]
fn policy(development: bool) -> Result<dicom_export::sink::s3::S3Policy> {
    use dicom_export::sink::s3::{BucketAddressing, S3Policy};

    let policy = if development { S3Policy::development() } else { S3Policy::new() };
    match endpoint() {
        Some(url) if !url.contains(".amazonaws.com") => {
            let host = url.strip_prefix("https://").unwrap_or(&url).trim_end_matches('/');
            policy.allow_endpoint(host, BucketAddressing::Path)
        }
        _ => Ok(policy),
    }
}

#[cfg(feature = "s3")]
fn endpoint() -> Option<String> {
    variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"))
}

#[cfg(feature = "s3")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(not(feature = "s3"))]
pub(crate) fn source(_: &str, _: bool, _: Option<&str>) -> Result<Arc<dyn InstanceSource>> {
    Err(unsupported())
}

#[cfg(not(feature = "s3"))]
pub(crate) fn destination(_: &str) -> Result<ExportDestination> {
    Err(unsupported())
}

#[cfg(not(feature = "s3"))]
pub(crate) fn register(
    engine: ExportEngineBuilder,
    _: bool,
    _: Option<&[u8]>,
) -> Result<ExportEngineBuilder> {
    Ok(engine)
}

#[cfg(not(feature = "s3"))]
fn unsupported() -> dicom_export::Error {
    use dicom_export::{Error, ErrorKind};
    Error::new(ErrorKind::Unsupported, "s3:// requires a build with --features s3")
}
