//! [`Secret`]: a credential.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, ErrorKind, Result};

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
