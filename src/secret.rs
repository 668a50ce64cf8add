//! [`Secret`]: a credential.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

/// A credential. `Debug` does not show it, and its memory is cleared when it is dropped.
///
/// ```
/// use dicom_export::Secret;
///
/// let secret = Secret::new("sv=2025-01-05&sig=abc");
/// assert_eq!(format!("{secret:?}"), "Secret(***)");
/// assert_eq!(secret.expose(), "sv=2025-01-05&sig=abc");
/// ```
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Creates a secret from text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(SecretString::from(text.into()))
    }

    /// Creates a secret from a provider's value, encoded as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the value cannot be encoded.
    pub fn encode(value: &impl Serialize) -> Result<Self> {
        match serde_json::to_string(value) {
            Ok(text) => Ok(Self::new(text)),
            Err(_) => Err(Error::new(ErrorKind::Internal, "a credential cannot be encoded as JSON")),
        }
    }

    /// Decodes the value that [`encode`](Self::encode) encoded.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the secret is not such a value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        // The cause is dropped: serde_json's message could quote the secret.
        serde_json::from_str(self.expose())
            .map_err(|_| Error::new(ErrorKind::Internal, "a stored credential cannot be decoded"))
    }

    /// The secret as text.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}
