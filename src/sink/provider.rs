//! [`SinkProvider`]: from a request's destination settings to a sink.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::operation::OperationSpec;
use crate::sink::BlobSink;
use crate::timestamp::Timestamp;

/// A destination type: checks a request's settings, and opens the sink they describe.
#[async_trait]
pub trait SinkProvider: Send + Sync + 'static {
    /// Checks settings without any I/O, and parts what may be stored from what is secret.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) with the JSON pointer, inside the settings, of what is wrong
    /// (`/blobContainerUri`); no message repeats a secret.
    fn check(&self, settings: &Value) -> Result<CheckedSettings>;

    /// Opens the sink of an operation, by its stored destination and the secret that `check` parted from it.
    ///
    /// # Errors
    /// They fail the start, or the resumption, of the operation.
    async fn open(&self, operation: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>>;
}

/// What [`SinkProvider::check`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckedSettings {
    /// Which container it is, without a credential; resuming with another is refused.
    pub location: String,
    /// What may be stored.
    pub public: Value,
    /// What may not.
    pub secret: Option<Secret>,
    /// When the credential expires, if it says; an export that may outlast it is warned about.
    pub expires: Option<Timestamp>,
}

impl CheckedSettings {
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

/// A credential: hidden by `Debug`, wiped from memory when dropped, and never written but by
/// [`Secret::expose`].
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// This text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// A value of the provider's own, as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when it cannot be written as JSON.
    pub fn encode(value: &impl Serialize) -> Result<Self> {
        match serde_json::to_string(value) {
            Ok(text) => Ok(Self::new(text)),
            Err(_) => Err(Error::new(ErrorKind::Internal, "a credential cannot be written")),
        }
    }

    /// The value that [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] when it is not one.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        // serde_json's message could quote the text.
        serde_json::from_str(self.expose())
            .map_err(|_| Error::new(ErrorKind::Internal, "a stored credential cannot be read"))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
