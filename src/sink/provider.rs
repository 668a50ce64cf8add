//! [`SinkProvider`]: from a request's destination settings to a sink.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use crate::error::Result;
use crate::model::OperationSpec;
use crate::model::Timestamp;
use crate::secret::Secret;
use crate::sink::BlobSink;

/// A destination type: checks a request's settings, and opens the sink they describe.
#[async_trait]
pub trait SinkProvider: Send + Sync + 'static {
    /// Checks settings without any I/O, and parts what may be stored from what is secret.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with the JSON pointer, inside the settings, of what is wrong
    /// (`/blobContainerUri`); no message repeats a secret.
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings>;

    /// Opens the sink of an operation, by its stored destination and the secret that `check` parted from it.
    ///
    /// # Errors
    /// They fail the start, or the resumption, of the operation.
    async fn open(&self, operation: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>>;
}

/// What [`SinkProvider::validate`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct ValidatedSettings {
    /// Which container it is, without a credential; resuming with another is refused.
    pub location: String,
    /// What may be stored.
    pub public: Value,
    /// What may not.
    pub secret: Option<Secret>,
    /// When the credential expires, if it says; an export that may outlast it is warned about.
    pub expires: Option<Timestamp>,
}

impl ValidatedSettings {
    /// Settings without a secret.
    pub fn new(location: impl Into<String>, public: Value) -> Self {
        Self { location: location.into(), public, secret: None, expires: None }
    }

    /// With a secret.
    pub fn with_secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// With the time its credential expires at.
    pub fn with_expiry(mut self, expires: Timestamp) -> Self {
        self.expires = Some(expires);
        self
    }
}

macro_rules! delegate {
    ($pointer:ident) => {
        #[async_trait]
        impl<P: SinkProvider + ?Sized> SinkProvider for $pointer<P> {
            fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
                (**self).validate(settings)
            }

            async fn open(
                &self,
                operation: &OperationSpec,
                secret: Option<&Secret>,
            ) -> Result<Arc<dyn BlobSink>> {
                (**self).open(operation, secret).await
            }
        }
    };
}

delegate!(Arc);
delegate!(Box);
