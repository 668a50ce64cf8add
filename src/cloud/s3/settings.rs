//! Reads the settings of `s3` from a request.

use secrecy::SecretString;
use serde_json::Value;
use url::Url;

use super::bucket::{AccessKeys, Encryption, S3Bucket, S3Credential};
use super::endpoint::{BucketAddressing, aws_endpoint, is_region};
use super::policy::{S3Policy, unlisted};
use crate::cloud::PlainUri;
use crate::error::{Error, Result};
use crate::model::json::Object;
use crate::object_store_prefix::parse_prefix;

const BUCKET: &str = "/bucket";
const REGION: &str = "/region";
const ENDPOINT: &str = "/endpoint";
const KEY_ID: &str = "/accessKeyId";
const SECRET_KEY: &str = "/secretAccessKey";
const TOKEN: &str = "/sessionToken";
const IDENTITY: &str = "/useInstanceIdentity";
const ENCRYPTION: &str = "/serverSideEncryption";
const KMS_KEY: &str = "/sseKmsKeyId";
const STORAGE_CLASS: &str = "/storageClass";

/// The region of an endpoint that is not Amazon's and whose settings name none.
const DEFAULT_REGION: &str = "us-east-1";

/// The longest credential that is read, in bytes. Session tokens have up to 4 KiB.
const MAX_CREDENTIAL_LENGTH: usize = 16 << 10;

/// Reads a request's settings and checks them against the policy.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with the pointer of the property at fault; no message repeats a value.
pub(crate) fn read_settings(settings: &Value, policy: &S3Policy) -> Result<S3Bucket> {
    let mut settings = Object::new("", settings.clone())?;
    let name = settings.take_string("bucket")?;
    let prefix = settings.take_string("prefix")?;
    let region = settings.take_string("region")?;
    let endpoint = settings.take_string("endpoint")?;
    let id = settings.take_string("accessKeyId")?.map(SecretString::from);
    let secret = settings.take_string("secretAccessKey")?.map(SecretString::from);
    let session_token = settings.take_string("sessionToken")?.map(SecretString::from);
    let identity = settings.take_flag("useInstanceIdentity")?.unwrap_or(false);
    let encryption = settings.take_string("serverSideEncryption")?;
    let kms_key_id = settings.take_string("sseKmsKeyId")?;
    let storage_class = settings.take_string("storageClass")?;
    let missing_bucket = settings.missing("bucket");
    // Before the other checks: a misspelt name is the best explanation of a property that seems to be missing.
    settings.finish()?;

    let name = name.ok_or(missing_bucket)?;
    check_bucket_name(&name)?;
    let (endpoint, addressing, region) = place(&name, region, endpoint, policy)?;
    let bucket = S3Bucket {
        endpoint,
        addressing,
        region,
        name,
        prefix: prefix.map(read_prefix).transpose()?,
        encryption: read_encryption(encryption, kms_key_id)?,
        storage_class: storage_class.map(check_storage_class).transpose()?,
        credential: read_credential(id, secret, session_token, identity)?,
    };
    policy.check(&bucket)?;
    Ok(bucket)
}

fn invalid(at: &str, fault: &str) -> Error {
    Error::invalid(at, format!("'{at}' {fault}"))
}

/// Where a bucket is: its endpoint, how it is addressed there, and its region.
fn place(
    bucket: &str,
    region: Option<String>,
    endpoint: Option<String>,
    policy: &S3Policy,
) -> Result<(Url, BucketAddressing, String)> {
    if region.as_deref().is_some_and(|region| !is_region(region)) {
        return Err(invalid(REGION, "must be a region, for example 'eu-central-1'"));
    }
    let text = match (endpoint, &region) {
        (Some(endpoint), _) => endpoint,
        (None, Some(region)) => aws_endpoint(region),
        (None, None) => return Err(invalid(REGION, "is missing, and so is '/endpoint'")),
    };
    let PlainUri { origin, segments } = PlainUri::parse(&text, ENDPOINT)?;
    if !segments.is_empty() {
        return Err(invalid(ENDPOINT, "must be 'https://<host>', without a bucket"));
    }
    let known = policy.known_endpoint(&origin).ok_or_else(unlisted)?;
    let region = match (region, known.region) {
        (Some(stated), Some(in_host)) if stated != in_host => {
            return Err(invalid(REGION, "is not the region in '/endpoint'"));
        }
        (Some(region), _) | (None, Some(region)) => region,
        (None, None) => DEFAULT_REGION.to_owned(),
    };
    // The certificates of Amazon S3 are valid for one label before the host.
    let addressing = match known.is_aws && bucket.contains('.') {
        true => BucketAddressing::Path,
        false => known.addressing,
    };
    Ok((origin, addressing, region))
}

/// ("General purpose bucket naming rules", Amazon S3 user guide.)
fn check_bucket_name(name: &str) -> Result<()> {
    let is_end = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_name = matches!(name.len(), 3..=63)
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b))
        && is_end(name.bytes().next())
        && is_end(name.bytes().last())
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err();
    if !is_name {
        return Err(invalid(BUCKET, "must be 3 to 63 lower-case letters, digits, hyphens and single dots"));
    }
    if name.ends_with("--x-s3") {
        return Err(invalid(BUCKET, "names a directory bucket, which is not supported"));
    }
    Ok(())
}

fn read_encryption(algorithm: Option<String>, kms_key_id: Option<String>) -> Result<Option<Encryption>> {
    let Some(algorithm) = algorithm else {
        return match kms_key_id {
            Some(_) => Err(invalid(ENCRYPTION, "is missing: '/sseKmsKeyId' requires it")),
            None => Ok(None),
        };
    };
    let uses_kms = match algorithm.as_str() {
        "AES256" => false,
        "aws:kms" | "aws:kms:dsse" => true,
        _ => return Err(invalid(ENCRYPTION, "must be 'AES256', 'aws:kms' or 'aws:kms:dsse'")),
    };
    if let Some(key) = &kms_key_id {
        if !uses_kms {
            return Err(invalid(KMS_KEY, "cannot be combined with 'AES256'"));
        }
        if key.len() > 2048 || !key.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(invalid(KMS_KEY, "is not the id or the ARN of a key"));
        }
    }
    Ok(Some(Encryption { algorithm, kms_key_id }))
}

fn read_prefix(text: String) -> Result<String> {
    let prefix = text.strip_suffix('/').unwrap_or(&text);
    match parse_prefix(prefix).filter(|path| !path.is_root()) {
        Some(path) => Ok(path.to_string()),
        None => Err(invalid("/prefix", "contains a character or a segment that is not allowed")),
    }
}

fn check_storage_class(class: String) -> Result<String> {
    let is_class = class.len() <= 64 && class.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    match is_class {
        true => Ok(class),
        false => Err(invalid(STORAGE_CLASS, "must be a storage class, for example 'STANDARD_IA'")),
    }
}

fn read_credential(
    id: Option<SecretString>,
    secret: Option<SecretString>,
    session_token: Option<SecretString>,
    identity: bool,
) -> Result<S3Credential> {
    for (at, value) in [(KEY_ID, &id), (SECRET_KEY, &secret), (TOKEN, &session_token)] {
        if let Some(value) = value {
            check_credential(value, at)?;
        }
    }
    match (id, secret, session_token) {
        (Some(_), ..) | (_, Some(_), _) | (.., Some(_)) if identity => {
            Err(invalid(IDENTITY, "cannot be combined with an access key"))
        }
        (Some(id), Some(secret), session_token) => {
            Ok(S3Credential::Keys(AccessKeys { id, secret, session_token }))
        }
        (Some(_), None, _) => Err(invalid(SECRET_KEY, "is missing: '/accessKeyId' requires it")),
        (None, Some(_), _) => Err(invalid(KEY_ID, "is missing: '/secretAccessKey' requires it")),
        (None, None, Some(_)) => Err(invalid(KEY_ID, "is missing: '/sessionToken' requires it")),
        (None, None, None) if identity => Ok(S3Credential::InstanceIdentity),
        (None, None, None) => Ok(S3Credential::Anonymous),
    }
}

/// Checks that a credential can be part of a header.
fn check_credential(value: &SecretString, at: &str) -> Result<()> {
    use secrecy::ExposeSecret;

    let value = value.expose_secret();
    let is_id = at != KEY_ID || !value.contains(['/', ',']);
    match is_id && value.len() <= MAX_CREDENTIAL_LENGTH && value.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(invalid(at, "has a character that is not allowed in it, or is too long")),
    }
}
