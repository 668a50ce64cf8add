//! Opens an [`ObjectStoreSource`] for a bucket of Google Cloud Storage.

use std::sync::Arc;

use serde_json::Value;

use super::ObjectStoreSource;
use crate::cloud::gcs::{GcsClient, GcsConnections, GcsPolicy, read_settings};
use crate::error::Result;

impl ObjectStoreSource {
    /// Opens a bucket of Google Cloud Storage. The settings are those of [`GcsProvider`](crate::sink::gcs::GcsProvider). Sends no
    /// request.
    ///
    /// With [`with_signed_urls`](Self::with_signed_urls), destinations copy instances from signed URLs, which requires the key
    /// of a service account.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid), with a JSON pointer if a setting is at fault.
    pub fn open_gcs(settings: &Value, policy: &GcsPolicy) -> Result<Self> {
        let connections = GcsConnections::new(policy.clone());
        let bucket = read_settings(settings, connections.policy())?;
        let GcsClient { store, .. } = GcsClient::open(&bucket, &connections)?;
        let mut source = Self::new(Arc::clone(&store) as _);
        source.own_signer = Some(store);
        match &bucket.prefix {
            Some(prefix) => source.with_prefix(prefix),
            None => Ok(source),
        }
    }
}
