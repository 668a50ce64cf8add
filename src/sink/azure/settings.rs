//! Reads the settings of `azureblob` from a request.

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;

use super::connection_string::ConnectionString;
use super::container::{AzureContainer, AzureCredential, is_account_name, is_container_name};
use super::hosts::{Addressing, KnownHost, unlisted};
use super::policy::AzureBlobPolicy;
use super::sas::SasFields;
use crate::cloud::PlainUri;
use crate::error::{Error, Result};
use crate::model::json::Object;

const URI: &str = "/blobContainerUri";
const STRING: &str = "/connectionString";
const NAME: &str = "/blobContainerName";
const IDENTITY: &str = "/useManagedIdentity";

const NAME_RULE: &str = "must be 3 to 63 lower-case letters, digits and single hyphens";

/// Reads a request's settings and checks them against the policy.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the pointer of the property at fault; no message repeats a value.
pub(super) fn read_settings(settings: &Value, policy: &AzureBlobPolicy) -> Result<AzureContainer> {
    let mut settings = Object::new("", settings.clone())?;
    let uri = settings.take_string("blobContainerUri")?.map(SecretString::from);
    let string = settings.take_string("connectionString")?.map(SecretString::from);
    let name = settings.take_string("blobContainerName")?;
    let identity = settings.take_flag("useManagedIdentity")?.unwrap_or(false);
    // Before the other checks: a misspelt name is the best explanation of a property that seems to be missing.
    settings.finish()?;
    let invalid = |at: &str, fault: &str| Err(Error::invalid(at, format!("'{at}' {fault}")));
    let (container, at) = match (uri, string, name) {
        (Some(uri), None, None) => (from_uri(&uri, identity, policy)?, URI),
        (None, Some(string), Some(name)) => {
            if identity {
                return invalid(IDENTITY, "cannot be combined with '/connectionString'");
            }
            (from_connection_string(&string, name, policy)?, STRING)
        }
        (Some(_), Some(_), _) => return invalid(STRING, "cannot be combined with '/blobContainerUri'"),
        (Some(_), None, Some(_)) => return invalid(NAME, "cannot be combined with '/blobContainerUri'"),
        (None, Some(_), None) => return invalid(NAME, "is missing: '/connectionString' requires it"),
        (None, None, Some(_)) => return invalid(STRING, "is missing: '/blobContainerName' requires it"),
        (None, None, None) => {
            return invalid(URI, "is missing, and so are '/connectionString' and '/blobContainerName'");
        }
    };
    policy.check(&container, at)?;
    Ok(container)
}

fn from_uri(uri: &SecretString, identity: bool, policy: &AzureBlobPolicy) -> Result<AzureContainer> {
    let text = uri.expose_secret().trim();
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    let credential = match (query, identity) {
        ("", true) => AzureCredential::ManagedIdentity,
        ("", false) => AzureCredential::Anonymous,
        (sas, identity) => {
            if let Err(fault) = SasFields::parse(sas) {
                return Err(Error::invalid(URI, format!("the query of '{URI}' {fault}")));
            }
            if identity {
                let message = format!("'{IDENTITY}' cannot be combined with a SAS in '{URI}'");
                return Err(Error::invalid(IDENTITY, message));
            }
            AzureCredential::Sas(SecretString::from(sas))
        }
    };
    let PlainUri { origin, segments } = PlainUri::parse(text, URI)?;
    let host = policy.known_host(&origin).ok_or_else(|| unlisted(URI))?;
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
    let ConnectionString { account, endpoint, credential } = ConnectionString::parse(text, STRING)?;
    let PlainUri { origin, segments } = PlainUri::parse(&endpoint, STRING)?;
    let host = policy.known_host(&origin).ok_or_else(|| unlisted(STRING))?;
    let path = match (host.addressing, &segments[..]) {
        (Addressing::Subdomain | Addressing::Domain, []) => None,
        (Addressing::Path, [account]) => Some(*account),
        (Addressing::Subdomain | Addressing::Domain, _) => {
            return Err(Error::invalid(STRING, format!("'{STRING}' has a BlobEndpoint with a path")));
        }
        (Addressing::Path, _) => {
            let message = format!("'{STRING}' must have '<host>/<account>' as BlobEndpoint");
            return Err(Error::invalid(STRING, message));
        }
    };
    if !is_container_name(&name) {
        return Err(Error::invalid(NAME, format!("'{NAME}' {NAME_RULE}")));
    }
    container(host, origin, path, account.as_deref(), name, credential, STRING)
}

/// Assembles a container. `path` is the account in the URI's path, `stated` the one that is given beside the URI.
fn container(
    host: KnownHost,
    mut endpoint: Url,
    path: Option<&str>,
    stated: Option<&str>,
    name: String,
    credential: AzureCredential,
    at: &str,
) -> Result<AzureContainer> {
    if path.is_some_and(|account| !is_account_name(account)) {
        return Err(Error::invalid(at, format!("'{at}' has a path that does not begin with an account")));
    }
    let in_uri = host.account.as_deref().or(path);
    let account = match (in_uri, stated) {
        (Some(in_uri), Some(stated)) if in_uri != stated => {
            return Err(Error::invalid(at, format!("'{at}' names two accounts")));
        }
        (Some(account), _) | (None, Some(account)) => account.to_owned(),
        // A custom domain does not contain its account, and neither a SAS nor a token needs it.
        (None, None) => endpoint.host_str().unwrap_or_default().to_owned(),
    };
    if let Some(account) = path {
        endpoint.set_path(account);
    }
    Ok(AzureContainer { account, endpoint, name, credential })
}
