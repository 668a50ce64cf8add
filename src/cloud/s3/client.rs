//! [`S3Client`]: an opened bucket.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::aws::{
    AmazonS3, AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer, AwsCredential, AwsCredentialProvider,
    Checksum,
};
use object_store::client::HttpRequest;
use object_store::{Result as StoreResult, RetryConfig, StaticCredentialProvider};
use secrecy::ExposeSecret;

use super::bucket::{AccessKeys, S3Bucket, S3Credential};
use super::checksum::Crc64Nvme;
use super::connections::S3Connections;
use crate::cloud::{SignRequest, StoreConnector, UploadLister};
use crate::error::{Error, ErrorKind, Result};

/// A bucket as a store of the crate `object_store`, without retries of its own.
///
/// Each body is sent with two checksums: its SHA-256, which is part of the signature, and its CRC64-NVME, which S3 verifies and
/// stores. The latter is compared with that in the response.
#[derive(Clone)]
pub(crate) struct S3Client {
    pub(crate) store: Arc<AmazonS3>,
    pub(crate) uploads: Arc<UploadLister>,
    /// The bucket's URL.
    pub(crate) url: String,
}

impl S3Client {
    /// Opens a bucket that the policy has admitted. Sends no request.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the policy or the credential cannot be used.
    pub(crate) fn open(bucket: &S3Bucket, connections: &S3Connections) -> Result<Self> {
        let url = bucket.url()?;
        let connector = StoreConnector::new(connections.client(url.scheme())?, Crc64Nvme);
        let http = connector.client();
        let credentials = match &bucket.credential {
            S3Credential::Keys(keys) => Some(keys.provider()),
            S3Credential::InstanceIdentity => Some(connections.identity()?),
            S3Credential::Anonymous => None,
        };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&bucket.name)
            .with_region(&bucket.region)
            // With this style, object_store takes the endpoint as the bucket's URL.
            .with_virtual_hosted_style_request(true)
            .with_endpoint(url.as_str().trim_end_matches('/'))
            .with_checksum_algorithm(Checksum::CRC64NVME)
            .with_http_connector(connector)
            // The engine retries.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        builder = match &credentials {
            Some(credentials) => builder.with_credentials(Arc::clone(credentials)),
            None => builder.with_skip_signature(true),
        };
        if let Some(encryption) = &bucket.encryption {
            builder = with_setting(builder, "aws_server_side_encryption", &encryption.algorithm)?;
            if let Some(key) = &encryption.kms_key_id {
                builder = with_setting(builder, "aws_sse_kms_key_id", key)?;
            }
        }
        // The cause is left out: it may quote a setting.
        let unusable = |_| Error::new(ErrorKind::Invalid, "the settings of the bucket cannot be used");
        let store = Arc::new(builder.build().map_err(unusable)?);
        let signer = Arc::new(S3Signer { credentials, region: bucket.region.clone() });
        let uploads = Arc::new(UploadLister::new("S3", http, url.clone(), signer));
        Ok(Self { store, uploads, url: url.as_str().trim_end_matches('/').to_owned() })
    }
}

fn with_setting(builder: AmazonS3Builder, name: &str, value: &str) -> Result<AmazonS3Builder> {
    let key: AmazonS3ConfigKey =
        name.parse().map_err(|_| Error::new(ErrorKind::Internal, "a setting of the store is unknown"))?;
    Ok(builder.with_config(key, value))
}

impl AccessKeys {
    fn provider(&self) -> AwsCredentialProvider {
        Arc::new(StaticCredentialProvider::new(AwsCredential {
            key_id: self.id.expose_secret().to_owned(),
            secret_key: self.secret.expose_secret().to_owned(),
            token: self.session_token.as_ref().map(|token| token.expose_secret().to_owned()),
        }))
    }
}

/// Signs the requests that `object_store` does not send.
struct S3Signer {
    credentials: Option<AwsCredentialProvider>,
    region: String,
}

#[async_trait]
impl SignRequest for S3Signer {
    async fn sign(&self, request: &mut HttpRequest) -> StoreResult<()> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let credential = credentials.get_credential().await?;
        AwsAuthorizer::new(&credential, "s3", &self.region).try_authorize(request, None)
    }
}

impl fmt::Debug for S3Client {
    /// Omits the store, which prints its configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Client").field("url", &self.url).finish_non_exhaustive()
    }
}
