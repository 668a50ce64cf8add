//! [`AzureContainer`]: an Azure Blob container and the credential it is written with.

use std::fmt;

use secrecy::SecretString;
use url::Url;

/// A container, as the checked settings describe it.
#[derive(Debug, Clone)]
pub(crate) struct AzureContainer {
    /// The storage account's name.
    pub(crate) account: String,
    /// The blob endpoint without a trailing slash: `https://<account>.blob.core.windows.net`, or path-style
    /// `http://127.0.0.1:10000/devstoreaccount1`.
    pub(crate) endpoint: Url,
    /// The container's name.
    pub(crate) name: String,
    /// What requests are signed with.
    pub(crate) credential: AzureCredential,
}

/// What requests towards a container are signed with.
#[derive(Clone)]
pub(crate) enum AzureCredential {
    /// A shared access signature: a query string without `?`.
    Sas(SecretString),
    /// The emulator's published account and key, which are no secret.
    Emulator,
    /// The server's own identity: managed or workload, as the policy says.
    ManagedIdentity,
    /// None: the container allows public access, or something before it signs.
    Anonymous,
}

impl AzureContainer {
    /// The container's URL, without a credential.
    pub(crate) fn url(&self) -> String {
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
