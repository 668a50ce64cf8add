//! [`OpenedOperation`]: an operation with its source and its sink open.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{OperationId, OperationSpec, StoredDestination};
use crate::pipeline::config::ExportConfig;
use crate::pipeline::limited_source::LimitedSource;
use crate::secret::Secret;
use crate::sink::BlobSink;

/// The destination type of an operation that was started with an open sink.
pub(crate) const OPEN_SINK_TYPE: &str = "sink";

/// An operation with its source and its sink open.
#[derive(Clone)]
pub(crate) struct OpenedOperation {
    pub(crate) spec: Arc<OperationSpec>,
    pub(crate) source: LimitedSource,
    pub(crate) sink: Arc<dyn BlobSink>,
}

impl OpenedOperation {
    /// Whether the sink was passed in open, so that it cannot be opened again from what is stored.
    pub(crate) fn has_open_sink(&self) -> bool {
        self.spec.destination.r#type == OPEN_SINK_TYPE
    }
}

/// Opens the source and the sink of a stored operation.
///
/// # Errors
/// [`ErrorKind::CredentialsNeeded`] if its secret is gone; otherwise the providers'.
#[cfg(feature = "restate")]
pub(crate) async fn open_stored(config: &ExportConfig, spec: Arc<OperationSpec>) -> Result<OpenedOperation> {
    let source = config.open_source(&spec).await?;
    let sink = open_sink(config, &spec).await?;
    Ok(OpenedOperation { spec, source, sink })
}

/// Opens the sink of a stored operation.
///
/// # Errors
/// [`ErrorKind::CredentialsNeeded`] if the operation's secret is gone; otherwise the provider's.
pub(crate) async fn open_sink(config: &ExportConfig, spec: &OperationSpec) -> Result<Arc<dyn BlobSink>> {
    let secret = stored_secret(config, spec.id, &spec.destination).await?;
    match config.destination(&spec.destination.r#type) {
        Some(provider) => provider.open(spec, secret.as_ref()).await,
        None if spec.destination.r#type == OPEN_SINK_TYPE => Err(Error::credentials_needed()),
        None => {
            Err(Error::new(ErrorKind::Unsupported, "the operation's destination type is not supported here"))
        }
    }
}

/// Returns the secret of a stored destination, if it needs one.
///
/// # Errors
/// [`ErrorKind::CredentialsNeeded`] if the secret is gone; otherwise the store's.
pub(crate) async fn stored_secret(
    config: &ExportConfig,
    id: OperationId,
    destination: &StoredDestination,
) -> Result<Option<Secret>> {
    match destination.has_secret {
        true => config.secrets.get(id).await?.ok_or_else(Error::credentials_needed).map(Some),
        false => Ok(None),
    }
}
