//! [`GcsProvider`]: from a request's settings to a sink, by way of the settings that are stored.

use std::sync::Arc;

use async_trait::async_trait;
use futures::FutureExt;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cloud::gcs::{
    GcsBucket, GcsClient, GcsConnections, GcsCredential, GcsPolicy, read_settings, settings_schema,
};
use crate::error::{Error, ErrorKind, Result};
use crate::model::OperationSpec;
use crate::secret::Secret;
use crate::sink::{BlobSink, ObjectStoreSink, SinkProvider, ValidatedSettings};

/// The destination type `googlecloudstorage`: a bucket of Google Cloud Storage.
///
/// | setting | what it is |
/// | --- | --- |
/// | `bucket` | the bucket's name; required |
/// | `prefix` | what all keys begin with, for example `exports/trial7` |
/// | `serviceAccountKey` | the key of a service account: the JSON document that Google provides, as an object or as text |
/// | `useInstanceIdentity` | `true`: the server's own identity is used |
///
/// Names are read in any case, `null` and `""` count as absent, and any other property is an error. The [policy](GcsPolicy)
/// decides which buckets and credentials are accepted, both when settings are validated and when the sink is opened.
///
/// The key is secret. A destination that is written with the server's own identity is stored completely and can be resumed
/// without credentials.
///
/// ```
/// use dicom_export::sink::SinkProvider;
/// use dicom_export::sink::gcs::{GcsPolicy, GcsProvider};
/// use serde_json::json;
///
/// let provider = GcsProvider::new(GcsPolicy::new());
/// let validated = provider.validate(&json!({ "bucket": "trial7-exports", "useInstanceIdentity": true }))?;
/// assert_eq!(validated.location, "https://storage.googleapis.com/trial7-exports");
/// assert!(validated.secret.is_none());
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct GcsProvider {
    connections: Arc<GcsConnections>,
}

impl GcsProvider {
    /// Creates a provider for the destinations that this policy allows.
    pub fn new(policy: GcsPolicy) -> Self {
        Self { connections: Arc::new(GcsConnections::new(policy)) }
    }
}

/// A bucket in an operation's spec: everything except a key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSettings {
    bucket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    use_instance_identity: bool,
}

#[async_trait]
impl SinkProvider for GcsProvider {
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
        let policy = self.connections.policy();
        let bucket = read_settings(settings, policy)?;
        let location = bucket.location(policy.endpoint());
        let secret = bucket.credential.secret().map(Secret::new);
        let stored = StoredSettings {
            bucket: bucket.name,
            prefix: bucket.prefix,
            use_instance_identity: secret.is_none(),
        };
        let mut validated = ValidatedSettings::encode(location, stored)?;
        validated.secret = secret;
        Ok(validated)
    }

    async fn open(&self, operation: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        // The cause is left out: serde's message quotes the settings.
        let stored = StoredSettings::deserialize(&operation.destination.settings)
            .map_err(|_| Error::new(ErrorKind::Internal, "a stored destination cannot be read"))?;
        let credential = match (stored.use_instance_identity, secret) {
            (true, _) => GcsCredential::InstanceIdentity,
            (false, Some(key)) => GcsCredential::ServiceAccountKey(SecretString::from(key.expose())),
            (false, None) => return Err(Error::credentials_needed()),
        };
        let bucket = GcsBucket { name: stored.bucket, prefix: stored.prefix, credential };
        // The policy may have changed since the operation was accepted.
        self.connections.policy().check(&bucket)?;
        Ok(Arc::new(ObjectStoreSink::of_gcs_bucket(&bucket, &self.connections)?))
    }

    fn settings_schema(&self) -> Option<Value> {
        Some(settings_schema())
    }
}

impl ObjectStoreSink {
    /// Opens a sink for the bucket of Google Cloud Storage that the settings name, for hosts that do not use [`GcsProvider`],
    /// which documents the settings. Sends no request.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`], with a JSON pointer if a setting is at fault.
    pub fn open_gcs(settings: &Value, policy: &GcsPolicy) -> Result<Self> {
        let connections = GcsConnections::new(policy.clone());
        Self::of_gcs_bucket(&read_settings(settings, connections.policy())?, &connections)
    }

    fn of_gcs_bucket(bucket: &GcsBucket, connections: &GcsConnections) -> Result<Self> {
        let GcsClient { store, uploads, url } = GcsClient::open(bucket, connections)?;
        let list_uploads = Arc::new(move |folder| {
            let uploads = Arc::clone(&uploads);
            async move { uploads.list(&folder).await }.boxed()
        });
        let sink = Self::new(Arc::clone(&store) as _, &url)
            .with_multipart_store(store)
            .with_upload_list(list_uploads);
        match &bucket.prefix {
            Some(prefix) => sink.with_prefix(prefix),
            None => Ok(sink),
        }
    }
}
