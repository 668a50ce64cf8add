//! [`S3Provider`]: from a request's settings to a sink, by way of the settings that are stored.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use crate::cloud::s3::{
    AccessKeys, BucketAddressing, Encryption, S3Bucket, S3Connections, S3Credential, S3Policy, read_settings,
    settings_schema,
};
use crate::error::{Error, ErrorKind, Result};
use crate::model::OperationSpec;
use crate::secret::Secret;
use crate::sink::{BlobSink, ObjectStoreSink, SinkProvider, ValidatedSettings};

/// The destination type `s3`: a bucket of Amazon S3 or of a compatible store.
///
/// | setting | what it is |
/// | --- | --- |
/// | `bucket` | the bucket's name; required |
/// | `prefix` | what all keys begin with, for example `exports/trial7` |
/// | `region` | the bucket's region; required unless `endpoint` is set |
/// | `endpoint` | the endpoint of a compatible store, `https://<host>[:<port>]`. Default: that of Amazon S3 in `region` |
/// | `accessKeyId`, `secretAccessKey`, `sessionToken` | an access key, with a token if it is temporary |
/// | `useInstanceIdentity` | `true`: the server's own identity is used |
/// | `serverSideEncryption`, `sseKmsKeyId` | `AES256`, `aws:kms` or `aws:kms:dsse`, and the id or ARN of a key |
/// | `storageClass` | the storage class of instances, for example `STANDARD_IA` |
///
/// Names are read in any case, `null` and `""` count as absent, and any other property is an error. The [policy](S3Policy)
/// decides which buckets and credentials are accepted, both when settings are validated and when the sink is opened.
///
/// The access key is secret. A destination that is written with the server's own identity is stored completely and can be
/// resumed without credentials.
///
/// The sinks of a provider and its clones share connections and the credentials of the server's identity.
///
/// ```
/// use dicom_export::sink::SinkProvider;
/// use dicom_export::sink::s3::{S3Policy, S3Provider};
/// use serde_json::json;
///
/// let provider = S3Provider::new(S3Policy::new());
/// let validated = provider.validate(&json!({
///     "bucket": "trial7",
///     "prefix": "exports",
///     "region": "eu-central-1",
///     "accessKeyId": "AKIAIOSFODNN7EXAMPLE",
///     "secretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
/// }))?;
/// assert_eq!(validated.location, "https://trial7.s3.eu-central-1.amazonaws.com/exports");
/// assert!(validated.secret.is_some());
///
/// let error = provider.validate(&json!({ "bucket": "trial7", "endpoint": "https://storage.example" })).unwrap_err();
/// assert_eq!(error.pointer(), Some("/endpoint"));
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct S3Provider {
    connections: Arc<S3Connections>,
}

impl S3Provider {
    /// Creates a provider for the destinations that this policy allows.
    pub fn new(policy: S3Policy) -> Self {
        Self { connections: Arc::new(S3Connections::new(policy)) }
    }
}

#[async_trait]
impl SinkProvider for S3Provider {
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
        to_stored(read_settings(settings, self.connections.policy())?)
    }

    async fn open(&self, operation: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        let bucket = from_stored(&operation.destination.settings, secret)?;
        // The policy may have changed since the operation was accepted.
        self.connections.policy().check(&bucket)?;
        Ok(Arc::new(ObjectStoreSink::of_bucket(&bucket, &self.connections)?))
    }

    fn settings_schema(&self) -> Option<Value> {
        Some(settings_schema())
    }
}

/// A bucket in an operation's spec: everything except an access key.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSettings {
    endpoint: String,
    addressing: StoredAddressing,
    region: String,
    bucket: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server_side_encryption: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sse_kms_key_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_class: Option<String>,
    credential: StoredCredential,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredAddressing {
    Path,
    VirtualHosted,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredCredential {
    AccessKey,
    InstanceIdentity,
    None,
}

/// The secret of an operation.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredKeys {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

/// Separates a bucket's access key from what may be stored.
///
/// # Errors
/// [`ErrorKind::Internal`] if the settings cannot be written as JSON.
fn to_stored(bucket: S3Bucket) -> Result<ValidatedSettings> {
    let location = bucket.location()?;
    let (credential, secret) = match &bucket.credential {
        S3Credential::Keys(keys) => {
            let keys = StoredKeys {
                access_key_id: keys.id.expose_secret().to_owned(),
                secret_access_key: keys.secret.expose_secret().to_owned(),
                session_token: keys.session_token.as_ref().map(|token| token.expose_secret().to_owned()),
            };
            (StoredCredential::AccessKey, Some(Secret::encode(&keys)?))
        }
        S3Credential::InstanceIdentity => (StoredCredential::InstanceIdentity, None),
        S3Credential::Anonymous => (StoredCredential::None, None),
    };
    let (server_side_encryption, sse_kms_key_id) = match bucket.encryption {
        Some(encryption) => (Some(encryption.algorithm), encryption.kms_key_id),
        None => (None, None),
    };
    let stored = StoredSettings {
        endpoint: bucket.endpoint.into(),
        addressing: match bucket.addressing {
            BucketAddressing::Path => StoredAddressing::Path,
            BucketAddressing::VirtualHosted => StoredAddressing::VirtualHosted,
        },
        region: bucket.region,
        bucket: bucket.name,
        prefix: bucket.prefix,
        server_side_encryption,
        sse_kms_key_id,
        storage_class: bucket.storage_class,
        credential,
    };
    let mut validated = ValidatedSettings::encode(location, stored)?;
    validated.secret = secret;
    Ok(validated)
}

/// Reassembles a bucket.
///
/// # Errors
/// [`ErrorKind::CredentialsNeeded`] if its access key is missing, [`ErrorKind::Internal`] if the stored settings are not those
/// that [`to_stored`] wrote.
fn from_stored(public: &Value, secret: Option<&Secret>) -> Result<S3Bucket> {
    let unreadable = || Error::new(ErrorKind::Internal, "a stored destination cannot be read");
    // The cause is left out: serde's message quotes the settings.
    let stored = StoredSettings::deserialize(public).map_err(|_| unreadable())?;
    let credential = match (stored.credential, secret) {
        (StoredCredential::AccessKey, Some(secret)) => {
            let keys: StoredKeys = secret.decode()?;
            S3Credential::Keys(AccessKeys {
                id: SecretString::from(keys.access_key_id),
                secret: SecretString::from(keys.secret_access_key),
                session_token: keys.session_token.map(SecretString::from),
            })
        }
        (StoredCredential::AccessKey, None) => return Err(Error::credentials_needed()),
        (StoredCredential::InstanceIdentity, _) => S3Credential::InstanceIdentity,
        (StoredCredential::None, _) => S3Credential::Anonymous,
    };
    Ok(S3Bucket {
        endpoint: Url::parse(&stored.endpoint).map_err(|cause| unreadable().with_source(cause))?,
        addressing: match stored.addressing {
            StoredAddressing::Path => BucketAddressing::Path,
            StoredAddressing::VirtualHosted => BucketAddressing::VirtualHosted,
        },
        region: stored.region,
        name: stored.bucket,
        prefix: stored.prefix,
        encryption: stored
            .server_side_encryption
            .map(|algorithm| Encryption { algorithm, kms_key_id: stored.sse_kms_key_id }),
        storage_class: stored.storage_class,
        credential,
    })
}
