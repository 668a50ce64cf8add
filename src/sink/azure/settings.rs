//! The settings of `azureblob`: as requests bring them, and as operations store them.

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

use super::connection_string::ConnectionString;
use super::container::{AzureContainer, AzureCredential};
use super::policy::{Addressing, AzureBlobPolicy, KnownHost, unlisted};
use super::sas::{read_sas, sas_expiry};
use super::uri::{PlainUri, is_account_name, is_container_name};
use crate::error::{Error, ErrorKind, Result};
use crate::model::json::{Json, Object};
use crate::secret::Secret;
use crate::sink::ValidatedSettings;

const URI: &str = "/blobContainerUri";
const STRING: &str = "/connectionString";
const NAME: &str = "/blobContainerName";
const IDENTITY: &str = "/useManagedIdentity";

const NAME_RULE: &str = "must be 3 to 63 lower-case letters, digits and single hyphens";

/// Reads a request's settings, and checks them against the policy.
///
/// # Errors
/// [`ErrorKind::Invalid`] with the pointer of the property that is wrong; no message repeats a value.
pub(crate) fn read_settings(settings: &Value, policy: &AzureBlobPolicy) -> Result<AzureContainer> {
    let mut given = Json::from(settings.clone()).into_object("")?;
    let uri = given.take_string("blobContainerUri")?.map(SecretString::from);
    let string = given.take_string("connectionString")?.map(SecretString::from);
    let name = given.take_string("blobContainerName")?;
    let identity = take_flag(&mut given, "useManagedIdentity")?.unwrap_or(false);
    // First of all: a misspelt name explains best why another property seems to be missing.
    given.finish()?;
    let wrong = |at: &str, fault: &str| Err(Error::invalid(at, format!("'{at}' {fault}")));
    let (container, at) = match (uri, string, name) {
        (Some(uri), None, None) => (from_uri(&uri, identity, policy)?, URI),
        (None, Some(string), Some(name)) => {
            if identity {
                return wrong(IDENTITY, "does not go together with '/connectionString'");
            }
            (from_connection_string(&string, name, policy)?, STRING)
        }
        (Some(_), Some(_), _) => return wrong(STRING, "does not go together with '/blobContainerUri'"),
        (Some(_), None, Some(_)) => return wrong(NAME, "does not go together with '/blobContainerUri'"),
        (None, Some(_), None) => return wrong(NAME, "is missing: '/connectionString' needs it"),
        (None, None, Some(_)) => return wrong(STRING, "is missing: '/blobContainerName' needs it"),
        (None, None, None) => {
            return wrong(URI, "is missing, and so are '/connectionString' and '/blobContainerName'");
        }
    };
    policy.admit(&container, at)?;
    Ok(container)
}

fn from_uri(uri: &SecretString, identity: bool, policy: &AzureBlobPolicy) -> Result<AzureContainer> {
    let text = uri.expose_secret().trim();
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let credential = match (query, identity) {
        ("", true) => AzureCredential::ManagedIdentity,
        ("", false) => AzureCredential::Anonymous,
        (sas, identity) => match (read_sas(sas, URI)?, identity) {
            (sas, false) => AzureCredential::Sas(sas),
            (_, true) => {
                let message = format!("'{IDENTITY}' does not go together with a SAS in '{URI}'");
                return Err(Error::invalid(IDENTITY, message));
            }
        },
    };
    let PlainUri { origin, segments } = PlainUri::read(text, URI)?;
    let host = policy.known(&origin).ok_or_else(|| unlisted(URI))?;
    let (path, name) = match (host.addressing, &segments[..]) {
        (Addressing::Subdomain | Addressing::Domain, [name]) => (None, *name),
        (Addressing::Path, [account, name]) => (Some(*account), *name),
        (Addressing::Subdomain | Addressing::Domain, _) => {
            return Err(Error::invalid(URI, format!("'{URI}' must be 'https://<host>/<container>'")));
        }
        (Addressing::Path, _) => {
            return Err(Error::invalid(URI, format!("'{URI}' must be '<host>/<account>/<container>'")));
        }
    };
    if !is_container_name(name) {
        return Err(Error::invalid(URI, format!("the container in '{URI}' {NAME_RULE}")));
    }
    container(host, origin, path, None, name.to_owned(), credential, URI)
}

fn from_connection_string(
    text: &SecretString,
    name: String,
    policy: &AzureBlobPolicy,
) -> Result<AzureContainer> {
    let ConnectionString { account, endpoint, credential } = ConnectionString::read(text, STRING)?;
    let PlainUri { origin, segments } = PlainUri::read(&endpoint, STRING)?;
    let host = policy.known(&origin).ok_or_else(|| unlisted(STRING))?;
    let path = match (host.addressing, &segments[..]) {
        (Addressing::Subdomain | Addressing::Domain, []) => None,
        (Addressing::Path, [account]) => Some(*account),
        (Addressing::Subdomain | Addressing::Domain, _) => {
            return Err(Error::invalid(STRING, format!("'{STRING}' has a BlobEndpoint with a path")));
        }
        (Addressing::Path, _) => {
            return Err(Error::invalid(
                STRING,
                format!("'{STRING}' must have '<host>/<account>' as BlobEndpoint"),
            ));
        }
    };
    if !is_container_name(&name) {
        return Err(Error::invalid(NAME, format!("'{NAME}' {NAME_RULE}")));
    }
    container(host, origin, path, account.as_deref(), name, credential, STRING)
}

/// Puts a container together. `path` is the account that the URI's path names, `said` the one that stands beside the URI.
fn container(
    host: KnownHost,
    mut endpoint: Url,
    path: Option<&str>,
    said: Option<&str>,
    name: String,
    credential: AzureCredential,
    at: &str,
) -> Result<AzureContainer> {
    if path.is_some_and(|account| !is_account_name(account)) {
        return Err(Error::invalid(at, format!("'{at}' has a path that does not begin with an account")));
    }
    let named = host.account.as_deref().or(path);
    let account = match (named, said) {
        (Some(named), Some(said)) if named != said => {
            return Err(Error::invalid(at, format!("'{at}' names two accounts")));
        }
        (Some(account), _) | (None, Some(account)) => account.to_owned(),
        // A custom domain does not tell its account; nothing that is signed with a SAS or a token needs it.
        (None, None) => endpoint.host_str().unwrap_or_default().to_owned(),
    };
    if let Some(account) = path {
        endpoint.set_path(account);
    }
    Ok(AzureContainer { account, endpoint, name, credential })
}

/// A container as an operation's spec holds it: whole, but for a SAS.
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

/// Parts what may be stored of a container from its SAS.
///
/// # Errors
/// [`ErrorKind::Internal`] when the settings cannot be written as JSON.
pub(crate) fn to_stored(container: AzureContainer) -> Result<ValidatedSettings> {
    let location = container.url();
    let expires = match &container.credential {
        AzureCredential::Sas(sas) => sas_expiry(sas),
        _ => None,
    };
    let (credential, secret) = match &container.credential {
        AzureCredential::Sas(sas) => (StoredCredential::Sas, Some(Secret::new(sas.expose_secret()))),
        AzureCredential::Emulator => (StoredCredential::Emulator, None),
        AzureCredential::ManagedIdentity => (StoredCredential::ManagedIdentity, None),
        AzureCredential::Anonymous => (StoredCredential::None, None),
    };
    let stored =
        StoredSettings { blob_container_uri: location.clone(), account: container.account, credential };
    let public = serde_json::to_value(stored).map_err(|cause| {
        Error::new(ErrorKind::Internal, "a destination cannot be written").with_source(cause)
    })?;
    let mut checked = ValidatedSettings::new(location, public);
    (checked.secret, checked.expires) = (secret, expires);
    Ok(checked)
}

/// Takes a boolean out; `null` and `""` count as absent.
fn take_flag(settings: &mut Object, name: &str) -> Result<Option<bool>> {
    match settings.take(name) {
        None => Ok(None),
        Some(Json::Bool(flag)) => Ok(Some(flag)),
        Some(Json::String(text)) if text.is_empty() => Ok(None),
        Some(other) => Err(other.mismatch(&settings.pointer_to(name), "a boolean")),
    }
}

/// Puts a container together again.
///
/// # Errors
/// [`ErrorKind::CredentialsNeeded`] when its SAS is gone, [`ErrorKind::Internal`] when the stored settings are not what
/// [`to_stored`] wrote.
pub(crate) fn from_stored(public: &Value, secret: Option<&Secret>) -> Result<AzureContainer> {
    let unreadable = || Error::new(ErrorKind::Internal, "a stored destination cannot be read");
    // serde's message would quote the settings, which may not be those that were written.
    let stored = StoredSettings::deserialize(public).map_err(|_| unreadable())?;
    let credential = match (stored.credential, secret) {
        (StoredCredential::Sas, Some(sas)) => AzureCredential::Sas(SecretString::from(sas.expose())),
        (StoredCredential::Sas, None) => {
            let message = "the destination's credentials are needed again";
            return Err(Error::new(ErrorKind::CredentialsNeeded, message));
        }
        (StoredCredential::Emulator, _) => AzureCredential::Emulator,
        (StoredCredential::ManagedIdentity, _) => AzureCredential::ManagedIdentity,
        (StoredCredential::None, _) => AzureCredential::Anonymous,
    };
    let (endpoint, name) = stored.blob_container_uri.rsplit_once('/').ok_or_else(unreadable)?;
    let endpoint = Url::parse(endpoint).map_err(|cause| unreadable().with_source(cause))?;
    Ok(AzureContainer { account: stored.account, endpoint, name: name.to_owned(), credential })
}
