//! Opens an [`ObjectStoreSink`] for a bucket of S3.

use std::sync::Arc;

use futures::FutureExt;
use serde_json::Value;

use crate::cloud::s3::{S3Bucket, S3Client, S3Connections, S3Policy, read_settings};
use crate::error::Result;
use crate::sink::ObjectStoreSink;

impl ObjectStoreSink {
    /// Opens a sink for the bucket that the settings name, for hosts that do not use
    /// [`S3Provider`](crate::sink::s3::S3Provider), which documents the settings. Sends no request.
    ///
    /// ```
    /// use dicom_export::sink::s3::S3Policy;
    /// use dicom_export::{BlobSink, ObjectStoreSink};
    /// use serde_json::json;
    ///
    /// let settings = json!({ "bucket": "trial7", "region": "eu-central-1", "useInstanceIdentity": true });
    /// let sink = ObjectStoreSink::open_s3(&settings, &S3Policy::new())?;
    /// assert_eq!(sink.location(), "https://trial7.s3.eu-central-1.amazonaws.com");
    /// # Ok::<_, dicom_export::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), with a JSON pointer if a setting is at fault.
    pub fn open_s3(settings: &Value, policy: &S3Policy) -> Result<Self> {
        let connections = S3Connections::new(policy.clone());
        Self::of_bucket(&read_settings(settings, connections.policy())?, &connections)
    }

    /// Opens a sink for a bucket that the policy has admitted.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) if the policy or the credential cannot be used.
    pub(super) fn of_bucket(bucket: &S3Bucket, connections: &S3Connections) -> Result<Self> {
        let S3Client { store, uploads, url } = S3Client::open(bucket, connections)?;
        let list_uploads = Arc::new(move |folder| {
            let uploads = Arc::clone(&uploads);
            async move { uploads.list(&folder).await }.boxed()
        });
        let sink = Self::new(Arc::clone(&store) as _, &url)
            .with_multipart_store(store)
            .with_upload_list(list_uploads)
            .with_storage_class(bucket.storage_class.clone());
        match &bucket.prefix {
            Some(prefix) => sink.with_prefix(prefix),
            None => Ok(sink),
        }
    }
}
