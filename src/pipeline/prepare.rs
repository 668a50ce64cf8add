//! The step `prepare`: checks a request and opens its source and its destination.

use std::sync::Arc;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::{
    BlobPath, Checkpoint, ExportDestination, OperationSpec, OperationStatus, RecordFormat, StoredDestination,
    Timestamp,
};
use crate::pipeline::config::ExportConfig;
use crate::pipeline::expiry::update_expiry_warning;
use crate::pipeline::log::log_paths;
use crate::pipeline::open::{OPEN_SINK_TYPE, OpenedOperation};
use crate::secret::Secret;
use crate::service::{NewOperation, Target};
use crate::sink::{BlobSink, SinkProvider, ValidatedSettings};

/// An operation that has been checked and opened, and is not stored yet.
pub(crate) struct PreparedOperation {
    pub(crate) operation: OpenedOperation,
    pub(crate) checkpoint: Checkpoint,
    pub(crate) secret: Option<Secret>,
}

/// A destination that is open and can be written.
pub(crate) struct OpenedDestination {
    pub(crate) destination: StoredDestination,
    pub(crate) secret: Option<Secret>,
    pub(crate) sink: Arc<dyn BlobSink>,
}

/// Checks a new operation, opens its source and its destination, and creates its empty logs.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with a JSON pointer for a destination that is wrong or cannot be written; otherwise the
/// source provider's.
pub(crate) async fn prepare(config: &ExportConfig, new: NewOperation) -> Result<PreparedOperation> {
    let NewOperation { id, source: exported, target, context, bytes_per_second } = new;
    let now = Timestamp::now();
    let mut spec = OperationSpec {
        format: RecordFormat,
        id,
        created_time: now,
        source: exported,
        destination: StoredDestination::new("", "", Value::Null, false),
        error_href: String::new(),
        context,
        manifest: config.options.manifest,
    };
    let source = config.open_source(&spec).await?;
    let OpenedDestination { destination, secret, sink } =
        open_destination(config, &spec, target, None).await?;
    spec.destination = destination;
    spec.error_href = sink.url(&BlobPath::error_log(id));
    let mut checkpoint = Checkpoint {
        error_href: spec.error_href.clone(),
        context: spec.context.clone(),
        bytes_per_second,
        ..Checkpoint::first(now)
    };
    update_expiry_warning(&mut checkpoint, spec.destination.expires, None);
    let operation = OpenedOperation { spec: Arc::new(spec), source, sink };
    Ok(PreparedOperation { operation, checkpoint, secret })
}

/// Checks and opens a target, and creates empty logs there. Nothing is sent to a location other than
/// `required_location`, if there is one.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with a JSON pointer.
pub(crate) async fn open_destination(
    config: &ExportConfig,
    spec: &OperationSpec,
    target: Target,
    required_location: Option<&str>,
) -> Result<OpenedDestination> {
    let check_location = |location: &str| match required_location {
        Some(required) if required != location => Err(Error::invalid(
            "/destination",
            "an operation can only be resumed in the container in which it was started",
        )),
        _ => Ok(()),
    };
    let opened = match target {
        Target::Sink(sink) => {
            let location = sink.location();
            check_location(&location)?;
            let destination = StoredDestination::new(OPEN_SINK_TYPE, location, Value::Null, false);
            OpenedDestination { destination, secret: None, sink }
        }
        Target::Destination(requested) => {
            let (provider, validated) = validate_destination(config, &requested)?;
            check_location(&validated.location)?;
            let mut destination = StoredDestination::new(
                requested.kind(),
                validated.location,
                validated.public,
                validated.secret.is_some(),
            );
            destination.expires = validated.expires;
            let spec = OperationSpec { destination: destination.clone(), ..spec.clone() };
            let sink = provider.open(&spec, validated.secret.as_ref()).await.map_err(unusable_destination)?;
            OpenedDestination { destination, secret: validated.secret, sink }
        }
    };
    let retrier = config.short_retrier();
    for log in log_paths(spec) {
        retrier.run(|| opened.sink.prepare(&log)).await.map_err(unusable_destination)?;
    }
    Ok(opened)
}

/// Validates the settings of a destination with the provider of its type.
///
/// # Errors
/// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with a JSON pointer.
pub(crate) fn validate_destination<'a>(
    config: &'a ExportConfig,
    destination: &ExportDestination,
) -> Result<(&'a dyn SinkProvider, ValidatedSettings)> {
    let provider = config.destination(destination.kind()).ok_or_else(|| {
        Error::invalid("/destination/type", "'/destination/type' is not a supported destination type")
    })?;
    let validated = provider.validate(destination.expose_settings());
    Ok((provider, validated.map_err(|error| error.under("/destination/settings"))?))
}

/// Makes the checkpoint of an operation that failed or is paused run again, with another destination if there is one.
pub(crate) fn reopen(checkpoint: &mut Checkpoint, destination: Option<&StoredDestination>) {
    checkpoint.status = OperationStatus::Running;
    checkpoint.error = None;
    checkpoint.end_pending = false;
    checkpoint.pause_requested = false;
    if let Some(destination) = destination {
        update_expiry_warning(checkpoint, destination.expires, None);
        checkpoint.destination = Some(destination.clone());
    }
}

/// A destination that cannot be used is an error in the request.
fn unusable_destination(error: Error) -> Error {
    let message = format!("the destination cannot be used: {}", error.message());
    Error::invalid("/destination", message).with_source(error)
}
