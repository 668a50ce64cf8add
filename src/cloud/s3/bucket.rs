//! [`S3Bucket`]: a bucket, where it is, and the credential it is used with.

use std::fmt;

use secrecy::SecretString;
use url::Url;

use super::endpoint::BucketAddressing;
use crate::error::{Error, ErrorKind, Result};

/// A bucket, as validated settings describe it.
#[derive(Debug, Clone)]
pub(crate) struct S3Bucket {
    /// The endpoint: scheme, host and port, with `/` as the path.
    pub(crate) endpoint: Url,
    pub(crate) addressing: BucketAddressing,
    /// The region that requests are signed for.
    pub(crate) region: String,
    /// The bucket's name.
    pub(crate) name: String,
    /// The beginning of all keys, without a slash at its end.
    pub(crate) prefix: Option<String>,
    pub(crate) encryption: Option<Encryption>,
    /// The storage class of instances.
    pub(crate) storage_class: Option<String>,
    /// What requests are signed with.
    pub(crate) credential: S3Credential,
}

/// How the store encrypts objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Encryption {
    /// `AES256`, `aws:kms` or `aws:kms:dsse`.
    pub(crate) algorithm: String,
    pub(crate) kms_key_id: Option<String>,
}

/// What requests to a bucket are signed with.
#[derive(Clone)]
pub(crate) enum S3Credential {
    Keys(AccessKeys),
    /// The server's own identity.
    InstanceIdentity,
    /// No credential: something in front of the endpoint signs requests.
    Anonymous,
}

/// An access key, possibly temporary.
#[derive(Clone)]
pub(crate) struct AccessKeys {
    pub(crate) id: SecretString,
    pub(crate) secret: SecretString,
    pub(crate) session_token: Option<SecretString>,
}

impl S3Bucket {
    /// The bucket's URL, without a slash at its end.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the endpoint's host cannot have the bucket as a label.
    pub(crate) fn url(&self) -> Result<Url> {
        let mut url = self.endpoint.clone();
        match self.addressing {
            BucketAddressing::Path => url.set_path(&self.name),
            BucketAddressing::VirtualHosted => {
                let host = format!("{}.{}", self.name, url.host_str().unwrap_or_default());
                let unusable = |cause| {
                    Error::new(ErrorKind::Internal, "a bucket's host cannot be formed").with_source(cause)
                };
                url.set_host(Some(&host)).map_err(unusable)?;
            }
        }
        Ok(url)
    }

    /// The bucket and the prefix, without a credential.
    ///
    /// # Errors
    /// Those of [`url`](Self::url).
    pub(crate) fn location(&self) -> Result<String> {
        let url = self.url()?;
        let url = url.as_str().trim_end_matches('/');
        Ok(match &self.prefix {
            Some(prefix) => format!("{url}/{prefix}"),
            None => url.to_owned(),
        })
    }
}

impl fmt::Debug for S3Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keys(_) => "Keys(***)",
            Self::InstanceIdentity => "InstanceIdentity",
            Self::Anonymous => "Anonymous",
        })
    }
}
