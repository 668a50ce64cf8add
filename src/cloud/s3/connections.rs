//! [`S3Connections`]: HTTP clients and credentials that all buckets of one policy share.

use std::env;
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential, AwsCredentialProvider};
use object_store::{CredentialProvider, Error as StoreError, Result as StoreResult, RetryConfig};

use super::policy::S3Policy;
use crate::cloud::{CredentialConnector, HttpClients};
use crate::error::{Error, ErrorKind, Result};
use crate::sync::lock;

/// The variables that provide credentials. Others, such as `AWS_ENDPOINT_URL`, must not change where requests are sent.
const CREDENTIAL_VARIABLES: [(&str, AmazonS3ConfigKey); 11] = [
    ("AWS_ACCESS_KEY_ID", AmazonS3ConfigKey::AccessKeyId),
    ("AWS_SECRET_ACCESS_KEY", AmazonS3ConfigKey::SecretAccessKey),
    ("AWS_SESSION_TOKEN", AmazonS3ConfigKey::Token),
    ("AWS_DEFAULT_REGION", AmazonS3ConfigKey::DefaultRegion),
    ("AWS_REGION", AmazonS3ConfigKey::Region),
    ("AWS_WEB_IDENTITY_TOKEN_FILE", AmazonS3ConfigKey::WebIdentityTokenFile),
    ("AWS_ROLE_ARN", AmazonS3ConfigKey::RoleArn),
    ("AWS_ROLE_SESSION_NAME", AmazonS3ConfigKey::RoleSessionName),
    ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", AmazonS3ConfigKey::ContainerCredentialsRelativeUri),
    ("AWS_CONTAINER_CREDENTIALS_FULL_URI", AmazonS3ConfigKey::ContainerCredentialsFullUri),
    ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", AmazonS3ConfigKey::ContainerAuthorizationTokenFile),
];

/// The HTTP clients of a policy and the credentials of the server's identity, created on first use.
#[derive(Default)]
pub(crate) struct S3Connections {
    policy: S3Policy,
    clients: HttpClients,
    identity: Mutex<Option<AwsCredentialProvider>>,
}

impl S3Connections {
    pub(crate) fn new(policy: S3Policy) -> Self {
        let clients = HttpClients::new(policy.root_certificates(), policy.allows_http());
        Self { policy, clients, identity: Mutex::default() }
    }

    pub(crate) fn policy(&self) -> &S3Policy {
        &self.policy
    }

    /// The client for URLs of this scheme.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if a root certificate cannot be used.
    pub(super) fn client(&self, scheme: &str) -> Result<reqwest::Client> {
        self.clients.client(scheme)
    }

    /// The provider of the credentials of the server's identity, which caches them and renews them before they expire.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the environment's credentials or a root certificate cannot be used.
    pub(super) fn identity(&self) -> Result<AwsCredentialProvider> {
        if let Some(credentials) = self.policy.identity() {
            return Ok(Arc::clone(credentials));
        }
        let mut identity = lock(&self.identity);
        match &*identity {
            Some(credentials) => Ok(Arc::clone(credentials)),
            None => Ok(Arc::clone(identity.insert(self.credentials_of_environment()?))),
        }
    }

    fn credentials_of_environment(&self) -> Result<AwsCredentialProvider> {
        let connector = CredentialConnector::new(self.clients.metadata()?, self.client("https")?);
        let builder = AmazonS3Builder::new()
            // The builder requires a bucket, although it sends no requests to it.
            .with_bucket_name("bucket")
            .with_http_connector(connector)
            // The engine retries.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() });
        let builder = CREDENTIAL_VARIABLES.into_iter().fold(builder, |builder, (variable, key)| {
            match env::var(variable).ok().filter(|value| !value.is_empty()) {
                Some(value) => builder.with_config(key, value),
                None => builder,
            }
        });
        let builder = match self.policy.metadata_endpoint() {
            Some(url) => builder.with_metadata_endpoint(url.trim_end_matches('/')),
            None => builder,
        };
        // The cause is left out: it may quote the environment.
        let unusable =
            |_| Error::new(ErrorKind::Invalid, "the credentials of the environment cannot be used");
        let credentials = Arc::clone(builder.build().map_err(unusable)?.credentials());
        Ok(Arc::new(CheckedCredentials(credentials)))
    }
}

/// Refuses credentials that cannot be part of a header, with which `object_store` would panic.
#[derive(Debug)]
struct CheckedCredentials(AwsCredentialProvider);

#[async_trait]
impl CredentialProvider for CheckedCredentials {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> StoreResult<Arc<AwsCredential>> {
        let credential = self.0.get_credential().await?;
        let token = credential.token.as_deref().unwrap_or_default();
        match credential.key_id.bytes().chain(token.bytes()).all(|b| b.is_ascii_graphic()) {
            true => Ok(credential),
            false => {
                let error =
                    Error::new(ErrorKind::Unavailable, "the identity service returned invalid credentials");
                Err(StoreError::Generic { store: "S3", source: Box::new(error) })
            }
        }
    }
}

impl fmt::Debug for S3Connections {
    /// Omits the clients, since theirs shows proxies, which may contain passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Connections").field("policy", &self.policy).finish_non_exhaustive()
    }
}
