//! [`GcsBucket`]: a bucket and the credential it is used with, as the settings of a request name them.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::policy::GcsPolicy;
use crate::error::{Error, Result};
use crate::model::json::{Object, mismatch};
use crate::object_store_prefix::parse_prefix;

const KEY: &str = "/serviceAccountKey";
const IDENTITY: &str = "/useInstanceIdentity";

/// A bucket, as validated settings describe it.
#[derive(Debug, Clone)]
pub(crate) struct GcsBucket {
    pub(crate) name: String,
    /// The beginning of all keys, without a slash at its end.
    pub(crate) prefix: Option<String>,
    pub(crate) credential: GcsCredential,
}

/// What requests to a bucket are authorized with.
#[derive(Clone)]
pub(crate) enum GcsCredential {
    /// The parts of a service account's key that are used, as JSON.
    ServiceAccountKey(SecretString),
    /// The server's own identity.
    InstanceIdentity,
}

/// A service account's key. Other members, which could change where requests are sent, are left out.
#[derive(Serialize, Deserialize)]
struct ServiceAccountKey {
    client_email: String,
    private_key: String,
    private_key_id: String,
}

impl GcsBucket {
    /// The bucket and the prefix, without a credential.
    pub(crate) fn location(&self, endpoint: &str) -> String {
        let url = format!("{endpoint}/{}", self.name);
        match &self.prefix {
            Some(prefix) => format!("{url}/{prefix}"),
            None => url,
        }
    }
}

/// Reads a request's settings and checks them against the policy.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the pointer of the property at fault; no message repeats a value.
pub(crate) fn read_settings(settings: &Value, policy: &GcsPolicy) -> Result<GcsBucket> {
    let mut settings = Object::new("", settings.clone())?;
    let name = settings.take_string("bucket")?;
    let prefix = settings.take_string("prefix")?;
    let key = settings.take("serviceAccountKey").filter(|key| key != "");
    let identity = settings.take_flag("useInstanceIdentity")?.unwrap_or(false);
    let missing_bucket = settings.missing("bucket");
    // Before the other checks: a misspelt name is the best explanation of a property that seems to be missing.
    settings.finish()?;

    let name = name.ok_or(missing_bucket)?;
    check_bucket_name(&name)?;
    let credential = match (key, identity) {
        (Some(_), true) => return Err(invalid(IDENTITY, "cannot be combined with '/serviceAccountKey'")),
        (Some(key), false) => GcsCredential::ServiceAccountKey(read_key(key)?),
        (None, true) => GcsCredential::InstanceIdentity,
        (None, false) => return Err(invalid(KEY, "is missing, and so is '/useInstanceIdentity'")),
    };
    let bucket = GcsBucket { name, prefix: prefix.map(read_prefix).transpose()?, credential };
    policy.check(&bucket)?;
    Ok(bucket)
}

fn invalid(at: &str, fault: &str) -> Error {
    Error::invalid(at, format!("'{at}' {fault}"))
}

/// ("Bucket naming guidelines", Google Cloud Storage documentation.)
fn check_bucket_name(name: &str) -> Result<()> {
    let is_end = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_name = matches!(name.len(), 3..=222)
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b))
        && is_end(name.bytes().next())
        && is_end(name.bytes().last())
        && !name.contains("..");
    match is_name {
        true => Ok(()),
        false => Err(invalid(
            "/bucket",
            "must be 3 to 222 lower-case letters, digits, hyphens, underscores and single dots",
        )),
    }
}

fn read_prefix(text: String) -> Result<String> {
    let prefix = text.strip_suffix('/').unwrap_or(&text);
    match parse_prefix(prefix).filter(|path| !path.is_root()) {
        Some(path) => Ok(path.to_string()),
        None => Err(invalid("/prefix", "contains a character or a segment that is not allowed")),
    }
}

/// Reads a key: the JSON document that Google provides, as an object or as text.
fn read_key(key: Value) -> Result<SecretString> {
    let not_a_key = || invalid(KEY, "is not the key of a service account");
    let key = match key {
        Value::String(text) => serde_json::from_str(&text).map_err(|_| not_a_key())?,
        key @ Value::Object(_) => key,
        other => return Err(mismatch(KEY, "an object or a string", &other)),
    };
    // The cause is left out: serde's message could quote the key.
    let key: ServiceAccountKey = serde_json::from_value(key).map_err(|_| not_a_key())?;
    if !key.private_key.contains("PRIVATE KEY") {
        return Err(not_a_key());
    }
    let text = serde_json::to_string(&key).map_err(|_| not_a_key())?;
    Ok(SecretString::from(text))
}

impl GcsCredential {
    /// The credential as it is kept in a secret store, if it is secret.
    pub(crate) fn secret(&self) -> Option<&str> {
        match self {
            Self::ServiceAccountKey(key) => Some(key.expose_secret()),
            Self::InstanceIdentity => None,
        }
    }
}

impl fmt::Debug for GcsCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServiceAccountKey(_) => "ServiceAccountKey(***)",
            Self::InstanceIdentity => "InstanceIdentity",
        })
    }
}
