//! [`sink_provider_conformance`] and [`source_provider_conformance`]: conformance suites for [`SinkProvider`] and
//! [`SourceProvider`].
#![allow(clippy::expect_used, reason = "a suite panics on a violation")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use serde_json::Value;

use crate::content::Content;
use crate::error::ErrorKind;
use crate::limits::{RetryPolicy, UploadContext};
use crate::model::{
    BlobPath, Cursor, ExportSource, Instance, InstanceIdentifier, ListRequest, OperationContext, OperationId,
    OperationSpec, RecordFormat, Scope, StoredDestination, Timestamp,
};
use crate::sink::{BlobSink, SinkProvider, ValidatedSettings};
use crate::source::{InstanceSource, SourceProvider};
use crate::testing::fixtures;

/// The settings that [`sink_provider_conformance`] uses.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SinkProviderTestOptions {
    /// Settings that must be refused. Default: none.
    pub invalid: Vec<Value>,
    /// Texts that must appear only in the secret, for example the signature of a SAS. Default: none.
    pub secrets: Vec<String>,
}

impl SinkProviderTestOptions {
    /// Adds settings that must be refused.
    #[must_use]
    pub fn invalid(mut self, settings: impl IntoIterator<Item = Value>) -> Self {
        self.invalid.extend(settings);
        self
    }

    /// Adds a text that must appear only in the secret.
    #[must_use]
    pub fn secret(mut self, text: impl Into<String>) -> Self {
        self.secrets.push(text.into());
        self
    }
}

impl fmt::Debug for SinkProviderTestOptions {
    /// Omits the settings and the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SinkProviderTestOptions")
            .field("invalid", &self.invalid.len())
            .finish_non_exhaustive()
    }
}

/// Checks a provider against the contract of [`SinkProvider`].
///
/// `settings` are the valid settings of a destination that can be written to. The suite writes a log and an instance below
/// a random operation id.
///
/// # Panics
/// If the provider violates the contract.
///
/// ```
/// use dicom_export::MemorySink;
/// use dicom_export::testing::{SinkProviderTestOptions, sink_provider_conformance};
/// use serde_json::json;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let provider = MemorySink::new().provider();
/// let options = SinkProviderTestOptions::default().secret("hunter2");
/// sink_provider_conformance(&provider, &json!({ "password": "hunter2" }), &options).await;
/// # }
/// ```
pub async fn sink_provider_conformance(
    provider: &dyn SinkProvider,
    settings: &Value,
    options: &SinkProviderTestOptions,
) {
    let assert_no_secret = |what: &str, text: &str| {
        assert!(options.secrets.iter().all(|secret| !text.contains(secret)), "{what} contains a secret");
    };
    let validate = || provider.validate(settings).expect("validate accepts valid settings");
    let (first, second) = (validate(), validate());
    let parts = |settings: &ValidatedSettings| {
        let secret = settings.secret.as_ref().map(|secret| secret.expose().to_owned());
        (settings.location.clone(), settings.public.clone(), secret, settings.expires)
    };
    assert!(parts(&first) == parts(&second), "validating the same settings twice returned different results");
    assert!(!first.location.is_empty(), "the location is empty");
    assert_no_secret("the location", &first.location);
    assert_no_secret("the public part of the settings", &first.public.to_string());
    assert_no_secret("Debug of the validated settings", &format!("{first:?}"));

    for settings in &options.invalid {
        let Err(error) = provider.validate(settings) else { panic!("invalid settings are accepted") };
        assert_eq!(
            error.kind(),
            ErrorKind::Invalid,
            "invalid settings are refused with another error than Invalid"
        );
        assert!(error.pointer().is_some(), "the error for invalid settings has no JSON pointer");
        assert_no_secret("the error for invalid settings", &format!("{error} {error:?}"));
    }

    let mut destination =
        StoredDestination::new("test", first.location, first.public, first.secret.is_some());
    destination.expires = first.expires;
    let operation = operation(destination, OperationContext::default());
    let mut sinks = Vec::new();
    for _ in 0..2 {
        let sink = provider.open(&operation, first.secret.as_ref()).await;
        sinks.push(sink.expect("open accepts what validate returned"));
    }
    let [one, other] = [&sinks[0], &sinks[1]];
    assert_eq!(one.location(), other.location(), "sinks of the same settings have different locations");
    assert_eq!(
        one.throttle_key(),
        other.throttle_key(),
        "sinks of the same settings have different throttle keys"
    );
    write_an_instance(&**one, operation.id).await;
    // As a resumed operation does.
    write_an_instance(&**other, operation.id).await;
    let url = one.url(&BlobPath::error_log(operation.id));
    for text in [one.location(), one.throttle_key(), url] {
        assert_no_secret("the location, the throttle key or a URL of a sink", &text);
    }
}

async fn write_an_instance(sink: &dyn BlobSink, id: OperationId) {
    let log = BlobPath::error_log(id);
    sink.prepare(&log).await.expect("an opened sink can be prepared");
    let bytes = fixtures::ct_slice(1, 1, 1);
    let upload = UploadContext::new(sink.buffer_size(Some(bytes.len() as u64)), RetryPolicy::none(), 8);
    let path = BlobPath::instance(id, &fixtures::instance(1, 1, 1));
    let result = sink.put(&path, Content::from_bytes(bytes.clone()), &upload).await.expect("put succeeds");
    assert_eq!(result.size, bytes.len() as u64, "put returned another size than the content's");
    sink.finish(&log).await.expect("finish succeeds");
}

/// Checks a provider against the contract of [`SourceProvider`].
///
/// `context` is the context of an operation, and `expected` contains all instances that the operation's source holds.
/// Call the suite once for each tenant. Run [`source_conformance`](crate::testing::source_conformance) for the sources
/// themselves.
///
/// # Panics
/// If the provider violates the contract.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
///
/// use async_trait::async_trait;
/// use dicom_export::source::{OperationSpec, SourceProvider};
/// use dicom_export::testing::{fixtures, source_provider_conformance};
/// use dicom_export::{InstanceSource, MemorySource, OperationContext, Result};
///
/// /// Every partition has its own instances.
/// struct Tenants(BTreeMap<String, Arc<MemorySource>>);
///
/// #[async_trait]
/// impl SourceProvider for Tenants {
///     async fn open(&self, operation: &OperationSpec) -> Result<Arc<dyn InstanceSource>> {
///         let partition = operation.context.partition.as_deref().unwrap_or_default();
///         Ok(self.0.get(partition).cloned().unwrap_or_default())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let expected: BTreeMap<_, _> = [(fixtures::instance(1, 1, 1), fixtures::ct_slice(1, 1, 1))].into();
/// let north: Arc<MemorySource> = Arc::new(expected.clone().into_iter().collect());
/// let tenants = Tenants([("north".to_owned(), north)].into());
/// let context = |partition| OperationContext::default().with_partition(partition);
/// source_provider_conformance(&tenants, context("north"), &expected).await;
/// source_provider_conformance(&tenants, context("south"), &BTreeMap::new()).await;
/// # }
/// ```
pub async fn source_provider_conformance(
    provider: &dyn SourceProvider,
    context: OperationContext,
    expected: &BTreeMap<InstanceIdentifier, Bytes>,
) {
    let operation = operation(StoredDestination::new("test", "", Value::Null, false), context);
    let mut sources = Vec::new();
    for _ in 0..2 {
        // As another process reads it.
        let stored = serde_json::to_vec(&operation).expect("serialization succeeds");
        let stored: OperationSpec = serde_json::from_slice(&stored).expect("deserialization succeeds");
        sources.push(provider.open(&stored).await.expect("open succeeds"));
    }
    // A resumed operation continues the listing of its earlier source, and opens instances that it listed.
    let listed = list_alternately(&sources).await;
    let identifiers: Vec<_> = listed.iter().map(|(instance, _)| instance.identifier()).collect();
    assert_eq!(
        identifiers.len(),
        expected.len(),
        "the source lists another number of instances than expected"
    );
    for (instance, lister) in &listed {
        let name = instance.identifier();
        let Some(bytes) = expected.get(name) else {
            panic!("the source lists the unexpected instance {name}")
        };
        let content = sources[1 - lister].open(instance).await.expect("opening a listed instance succeeds");
        let chunks: Vec<Bytes> =
            content.into_stream().try_collect().await.expect("reading the content succeeds");
        assert!(chunks.concat() == *bytes, "the content of {name} differs");
    }
}

/// Lists everything, the pages alternately from two sources, and returns each instance with the index of its source.
async fn list_alternately(sources: &[Arc<dyn InstanceSource>]) -> Vec<(Instance, usize)> {
    let (mut listed, mut after) = (Vec::new(), None::<Cursor>);
    for lister in (0..sources.len()).cycle() {
        let request = ListRequest::new(Scope::Everything, after.as_ref(), 2);
        let page = sources[lister].list(request).await.expect("list succeeds");
        assert!(page.failures.is_empty(), "instances cannot be listed: {:?}", page.failures);
        listed.extend(page.instances.into_iter().map(|instance| (instance, lister)));
        match page.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    listed
}

fn operation(destination: StoredDestination, context: OperationContext) -> OperationSpec {
    OperationSpec {
        format: RecordFormat,
        id: OperationId::random(),
        created_time: Timestamp::now(),
        source: ExportSource::Everything,
        destination,
        error_href: String::new(),
        context,
        manifest: false,
    }
}
