//! [`AzureBlobProvider`]: from a request's settings to an [`AzureBlobSink`], by way of the settings that are stored.

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::connections::Connections;
use super::container::{AzureContainer, AzureCredential};
use super::policy::AzureBlobPolicy;
use super::sas::SasFields;
use super::schema::settings_schema;
use super::settings::read_settings;
use super::sink::AzureBlobSink;
use crate::error::{Error, ErrorKind, Result};
use crate::model::OperationSpec;
use crate::secret::Secret;
use crate::sink::{BlobSink, SinkProvider, ValidatedSettings};

/// The destination type `azureblob`.
///
/// The settings are either `blobContainerUri` (`https://<host>/<container>`, with a SAS as its query or together with
/// `useManagedIdentity`), or `connectionString` and `blobContainerName`. Names are read in any case, `null` and `""` count
/// as absent, and any other property is an error. The [policy](AzureBlobPolicy) decides which containers and credentials
/// are accepted, both when settings are validated and when the sink is opened.
///
/// The only secret is a SAS. A destination at the emulator, or one that is written with the server's own identity, is
/// stored completely and can be resumed without credentials.
///
/// The sinks of a provider and its clones share connections and the tokens of the server's identity.
///
/// ```
/// use dicom_export::sink::SinkProvider;
/// use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider};
/// use serde_json::json;
///
/// let provider = AzureBlobProvider::new(AzureBlobPolicy::new());
/// let validated = provider.validate(&json!({
///     "blobContainerUri": "https://account.blob.core.windows.net/exports?sv=2022-11-02&sr=c&sp=w&sig=c2lnbmF0dXJl",
/// }))?;
/// assert_eq!(validated.location, "https://account.blob.core.windows.net/exports");
/// assert!(validated.secret.is_some());
///
/// let error = provider.validate(&json!({ "blobContainerUri": "https://storage.example/exports" })).unwrap_err();
/// assert_eq!(error.pointer(), Some("/blobContainerUri"));
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct AzureBlobProvider {
    connections: Arc<Connections>,
}

impl AzureBlobProvider {
    /// Creates a provider for the destinations that this policy allows.
    pub fn new(policy: AzureBlobPolicy) -> Self {
        Self { connections: Arc::new(Connections::new(policy)) }
    }
}

#[async_trait]
impl SinkProvider for AzureBlobProvider {
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
        to_stored(read_settings(settings, self.connections.policy())?)
    }

    async fn open(&self, operation: &OperationSpec, secret: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        let container = from_stored(&operation.destination.settings, secret)?;
        // The policy may have changed since the operation was accepted.
        self.connections.policy().check(&container, "/blobContainerUri")?;
        Ok(Arc::new(AzureBlobSink::new(container, &self.connections)?))
    }

    fn settings_schema(&self) -> Option<Value> {
        Some(settings_schema())
    }
}

/// A container in an operation's spec: everything except a SAS.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StoredSettings {
    blob_container_uri: String,
    account: String,
    credential: StoredCredential,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum StoredCredential {
    Sas,
    Emulator,
    ManagedIdentity,
    None,
}

/// Separates a container's SAS from what may be stored.
///
/// # Errors
/// [`ErrorKind::Internal`] if the settings cannot be written as JSON.
fn to_stored(container: AzureContainer) -> Result<ValidatedSettings> {
    let location = container.url();
    let (credential, secret, expires) = match &container.credential {
        AzureCredential::Sas(sas) => {
            let fields = SasFields::parse(sas.expose_secret());
            let expires = fields.and_then(|fields| fields.expiry()).ok().flatten();
            (StoredCredential::Sas, Some(Secret::new(sas.expose_secret())), expires)
        }
        AzureCredential::Emulator => (StoredCredential::Emulator, None, None),
        AzureCredential::ManagedIdentity => (StoredCredential::ManagedIdentity, None, None),
        AzureCredential::Anonymous => (StoredCredential::None, None, None),
    };
    let stored =
        StoredSettings { blob_container_uri: location.clone(), account: container.account, credential };
    let mut validated = ValidatedSettings::encode(location, stored)?;
    (validated.secret, validated.expires) = (secret, expires);
    Ok(validated)
}

/// Reassembles a container.
///
/// # Errors
/// [`ErrorKind::CredentialsNeeded`] if its SAS is missing, [`ErrorKind::Internal`] if the stored settings are not those
/// that [`to_stored`] wrote.
fn from_stored(public: &Value, secret: Option<&Secret>) -> Result<AzureContainer> {
    let unreadable = || Error::new(ErrorKind::Internal, "a stored destination cannot be read");
    // The cause is left out: serde's message quotes the settings.
    let stored = StoredSettings::deserialize(public).map_err(|_| unreadable())?;
    let credential = match (stored.credential, secret) {
        (StoredCredential::Sas, Some(sas)) => AzureCredential::Sas(SecretString::from(sas.expose())),
        (StoredCredential::Sas, None) => return Err(Error::credentials_needed()),
        (StoredCredential::Emulator, _) => AzureCredential::Emulator,
        (StoredCredential::ManagedIdentity, _) => AzureCredential::ManagedIdentity,
        (StoredCredential::None, _) => AzureCredential::Anonymous,
    };
    let (endpoint, name) = stored.blob_container_uri.rsplit_once('/').ok_or_else(unreadable)?;
    let endpoint = Url::parse(endpoint).map_err(|cause| unreadable().with_source(cause))?;
    Ok(AzureContainer { account: stored.account, endpoint, name: name.to_owned(), credential })
}
