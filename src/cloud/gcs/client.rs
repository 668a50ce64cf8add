//! [`GcsClient`]: an opened bucket.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::client::HttpRequest;
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::{Error as StoreError, Result as StoreResult, RetryConfig};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::ExposeSecret;
use url::Url;

use super::bucket::{GcsBucket, GcsCredential};
use super::checksum::Crc32c;
use super::connections::GcsConnections;
use crate::cloud::{SignRequest, StoreConnector, UploadLister};
use crate::error::{Error, ErrorKind, Result};

/// A bucket as a store of the crate `object_store`, without retries of its own.
#[derive(Clone)]
pub(crate) struct GcsClient {
    pub(crate) store: Arc<GoogleCloudStorage>,
    pub(crate) uploads: Arc<UploadLister>,
    /// The bucket's URL.
    pub(crate) url: String,
}

impl GcsClient {
    /// Opens a bucket that the policy has admitted. Sends no request.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the policy or the credential cannot be used.
    pub(crate) fn open(bucket: &GcsBucket, connections: &GcsConnections) -> Result<Self> {
        let endpoint = connections.policy().endpoint();
        let connector = StoreConnector::new(connections.client()?, Crc32c);
        let http = connector.client();
        let builder = GoogleCloudStorageBuilder::new()
            .with_bucket_name(&bucket.name)
            .with_base_url(endpoint)
            .with_http_connector(connector)
            // The engine retries.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        let builder = match &bucket.credential {
            GcsCredential::ServiceAccountKey(key) => builder.with_service_account_key(key.expose_secret()),
            GcsCredential::InstanceIdentity => builder.with_credentials(connections.identity()?),
        };
        // The cause is left out: it may quote the key.
        let unusable = |_| Error::new(ErrorKind::Invalid, "the credentials of the bucket cannot be used");
        let store = Arc::new(builder.build().map_err(unusable)?);
        let url = format!("{endpoint}/{}", bucket.name);
        let bucket_url = Url::parse(&url).map_err(|cause| {
            Error::new(ErrorKind::Internal, "a bucket's URL is invalid").with_source(cause)
        })?;
        let signer = Arc::new(BearerSigner(Arc::clone(store.credentials())));
        let uploads = Arc::new(UploadLister::new("GCS", http, bucket_url, signer));
        Ok(Self { store, uploads, url })
    }
}

/// Authorizes the requests that `object_store` does not send.
struct BearerSigner(GcpCredentialProvider);

#[async_trait]
impl SignRequest for BearerSigner {
    async fn sign(&self, request: &mut HttpRequest) -> StoreResult<()> {
        let credential = self.0.get_credential().await?;
        let unusable = |_| StoreError::Generic { store: "GCS", source: "the token is invalid".into() };
        let token = HeaderValue::try_from(format!("Bearer {}", credential.bearer)).map_err(unusable)?;
        request.headers_mut().insert(AUTHORIZATION, token);
        Ok(())
    }
}

impl fmt::Debug for GcsClient {
    /// Omits the store, which prints its configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsClient").field("url", &self.url).finish_non_exhaustive()
    }
}
