//! [`AzureContainer`]: a container, its URI, and the credential it is written with.

use std::fmt;

use secrecy::SecretString;
use url::Url;

/// The emulator's account ("Use the Azurite emulator for local Azure Storage development").
pub(super) const EMULATOR_ACCOUNT: &str = "devstoreaccount1";

/// The emulator's account key. It is published and the same everywhere, so it is not a secret.
pub(super) const EMULATOR_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A container, as validated settings describe it.
#[derive(Debug, Clone)]
pub(super) struct AzureContainer {
    /// The storage account's name.
    pub(super) account: String,
    /// The blob endpoint without a trailing slash: `https://<account>.blob.core.windows.net`, or path-style
    /// `http://127.0.0.1:10000/devstoreaccount1`.
    pub(super) endpoint: Url,
    /// The container's name.
    pub(super) name: String,
    /// What requests are signed with.
    pub(super) credential: AzureCredential,
}

/// What requests to a container are signed with.
#[derive(Clone)]
pub(super) enum AzureCredential {
    /// A shared access signature: a query string without `?`.
    Sas(SecretString),
    /// The emulator's published account and key.
    Emulator,
    /// The server's own identity: managed or workload, as the policy says.
    ManagedIdentity,
    /// No credential: something in front of the endpoint signs requests.
    Anonymous,
}

impl AzureContainer {
    /// The container's URL, without a credential.
    pub(super) fn url(&self) -> String {
        format!("{}/{}", self.endpoint.as_str().trim_end_matches('/'), self.name)
    }
}

impl fmt::Debug for AzureCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sas(_) => "Sas(***)",
            Self::Emulator => "Emulator",
            Self::ManagedIdentity => "ManagedIdentity",
            Self::Anonymous => "Anonymous",
        })
    }
}

/// Whether this can be the name of a container, except the special ones that begin with `$`: 3 to 63 lower-case letters,
/// digits and single hyphens, beginning and ending with a letter or digit ("Naming and referencing containers, blobs, and
/// metadata", Azure Blob Storage REST API).
pub(super) fn is_container_name(name: &str) -> bool {
    matches!(name.len(), 3..=63)
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// Whether this can be the account in a path. The clouds allow 3 to 24 letters and digits; emulators allow more.
pub(super) fn is_account_name(name: &str) -> bool {
    matches!(name.len(), 1..=63)
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
