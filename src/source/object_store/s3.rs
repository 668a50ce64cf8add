//! Opens an [`ObjectStoreSource`] for a bucket of S3.

use std::sync::Arc;

use serde_json::Value;

use super::ObjectStoreSource;
use crate::cloud::s3::{S3Client, S3Connections, S3Policy, read_settings};
use crate::error::Result;

impl ObjectStoreSource {
    /// Opens a bucket of Amazon S3 or of a compatible store. The settings are those of
    /// [`S3Provider`](crate::sink::s3::S3Provider). Sends no request.
    ///
    /// Requests are not retried by `object_store`, follow no redirects, and honor `Retry-After`. With
    /// [`with_signed_urls`](Self::with_signed_urls), destinations copy instances from signed URLs.
    ///
    /// ```
    /// use dicom_export::ObjectStoreSource;
    /// use dicom_export::sink::s3::S3Policy;
    /// use serde_json::json;
    ///
    /// let settings = json!({
    ///     "bucket": "archive",
    ///     "prefix": "dicom",
    ///     "region": "eu-central-1",
    ///     "useInstanceIdentity": true,
    /// });
    /// let source = ObjectStoreSource::open_s3(&settings, &S3Policy::new())?.with_signed_urls();
    /// # Ok::<_, dicom_export::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), with a JSON pointer if a setting is at fault.
    pub fn open_s3(settings: &Value, policy: &S3Policy) -> Result<Self> {
        let connections = S3Connections::new(policy.clone());
        let bucket = read_settings(settings, connections.policy())?;
        let S3Client { store, .. } = S3Client::open(&bucket, &connections)?;
        let mut source = Self::new(Arc::clone(&store) as _);
        source.own_signer = Some(store);
        match &bucket.prefix {
            Some(prefix) => source.with_prefix(prefix),
            None => Ok(source),
        }
    }
}
