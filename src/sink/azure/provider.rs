//! [`AzureBlobProvider`]: from a request's settings to an [`AzureBlobSink`](super::AzureBlobSink).

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;

use super::connections::Connections;
use super::policy::AzureBlobPolicy;
use super::settings::{from_stored, read_settings, to_stored};
use super::sink::AzureBlobSink;
use crate::error::Result;
use crate::model::OperationSpec;
use crate::secret::Secret;
use crate::sink::{BlobSink, SinkProvider, ValidatedSettings};

/// The destination type `azureblob`.
///
/// Settings are `blobContainerUri` (`https://<host>/<container>`, with a SAS as its query or with
/// `useManagedIdentity`), or `connectionString` with `blobContainerName`; names in any case, `null` and `""` as if
/// absent, anything else refused. What they may name is the [policy](AzureBlobPolicy)'s to say, when they are checked
/// and again when the sink is opened.
///
/// The one secret is a SAS. A destination at the emulator, or written to with the server's own identity, is stored
/// whole and resumes by itself.
///
/// The sinks that a provider and its clones open share connections, and the tokens of the server's identity.
#[derive(Debug, Clone, Default)]
pub struct AzureBlobProvider {
    connections: Arc<Connections>,
}

impl AzureBlobProvider {
    /// Exports where this policy allows.
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
        self.connections.policy().admit(&container, "/blobContainerUri")?;
        Ok(Arc::new(AzureBlobSink::new(container, &self.connections)?))
    }
}
