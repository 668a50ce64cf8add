//! Each suite finds implementations with a defect.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::{LogKey, PutResult, SinkProvider, ValidatedSettings};
use dicom_export::source::{Instance, ListRequest, Page, Scope, SourceProvider};
use dicom_export::store::{
    Checkpoint, MemoryOperationStore, MemorySecretStore, OperationFilter, OperationKey, OperationStore,
    SecretStore,
};
use dicom_export::testing::{
    SinkProviderTestOptions, SinkTestOptions, secret_store_conformance, sink_conformance,
    sink_provider_conformance, source_conformance, source_provider_conformance, store_conformance,
};
use dicom_export::{
    BlobPath, BlobSink, Content, InstanceIdentifier, InstanceSource, MemorySink, MemorySource,
    OperationContext, OperationId, OperationSpec, Result, Secret, UploadContext,
};
use futures::FutureExt;
use serde_json::{Value, json};

use crate::archive;

/// Asserts that the suite panics with a message that contains this text.
async fn assert_found(defect: impl std::fmt::Debug, suite: impl Future<Output = ()>, message: &str) {
    let Err(panic) = AssertUnwindSafe(suite).catch_unwind().await else {
        panic!("the suite does not find {defect:?}");
    };
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap();
    assert!(text.contains(message), "{defect:?} is reported as: {text}");
}

/// Changes a checkpoint that is saved.
type Damage = fn(&mut Checkpoint);

/// An operation store that changes the checkpoints that it saves, with these further defects.
struct BrokenStore {
    inner: MemoryOperationStore,
    damage: Damage,
    defect: Option<StoreDefect>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StoreDefect {
    SavesAnyVersion,
    ReplacesOnCreate,
    ListsOldestFirst,
    ListsAfterWrongKey,
    KeepsDeleted,
    IgnoresFilter,
    CountsAll,
    LosesManifest,
}

impl BrokenStore {
    fn has(&self, defect: StoreDefect) -> bool {
        self.defect == Some(defect)
    }

    fn damaged(&self, checkpoint: &Checkpoint) -> Checkpoint {
        let mut checkpoint = checkpoint.clone();
        (self.damage)(&mut checkpoint);
        checkpoint
    }
}

#[async_trait]
impl OperationStore for BrokenStore {
    async fn create(&self, spec: &OperationSpec, checkpoint: &Checkpoint) -> Result<()> {
        if self.has(StoreDefect::ReplacesOnCreate) {
            self.inner.delete(spec.id).await?;
        }
        let mut spec = spec.clone();
        spec.manifest &= !self.has(StoreDefect::LosesManifest);
        self.inner.create(&spec, &self.damaged(checkpoint)).await
    }

    async fn spec(&self, id: OperationId) -> Result<Arc<OperationSpec>> {
        self.inner.spec(id).await
    }

    async fn load(&self, id: OperationId) -> Result<Checkpoint> {
        self.inner.load(id).await
    }

    async fn save(&self, id: OperationId, checkpoint: &Checkpoint) -> Result<u64> {
        let mut checkpoint = self.damaged(checkpoint);
        if self.has(StoreDefect::SavesAnyVersion) {
            checkpoint.version = self.inner.load(id).await?.version;
        }
        self.inner.save(id, &checkpoint).await
    }

    async fn list(&self, after: Option<OperationKey>, limit: usize) -> Result<Vec<OperationKey>> {
        match self.defect {
            Some(StoreDefect::ListsOldestFirst) => {
                let mut keys = self.inner.list(None, usize::MAX).await?;
                keys.reverse();
                keys.retain(|key| after.is_none_or(|after| *key > after));
                keys.truncate(limit);
                Ok(keys)
            }
            // Operations of the same time are left out.
            Some(StoreDefect::ListsAfterWrongKey) => {
                let mut keys = self.inner.list(None, usize::MAX).await?;
                keys.retain(|key| after.is_none_or(|after| key.created_time < after.created_time));
                keys.truncate(limit);
                Ok(keys)
            }
            _ => self.inner.list(after, limit).await,
        }
    }

    async fn query(&self, filter: &OperationFilter) -> Result<Vec<(OperationKey, Checkpoint)>> {
        let mut all = OperationFilter::new(filter.limit);
        all.after = filter.after;
        self.inner.query(if self.has(StoreDefect::IgnoresFilter) { &all } else { filter }).await
    }

    async fn count(&self, filter: &OperationFilter) -> Result<usize> {
        let all = OperationFilter::new(filter.limit);
        self.inner.count(if self.has(StoreDefect::CountsAll) { &all } else { filter }).await
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        match self.has(StoreDefect::KeepsDeleted) {
            true => Ok(()),
            false => self.inner.delete(id).await,
        }
    }
}

#[tokio::test]
async fn store_conformance_finds_a_store_that_loses_a_field() {
    let damages: [(&str, Damage); 16] = [
        ("created_time", |checkpoint| checkpoint.created_time = "2022-09-08T16:40:36Z".parse().unwrap()),
        ("error_href", |checkpoint| checkpoint.error_href.clear()),
        ("partition", |checkpoint| checkpoint.context.partition = None),
        ("caller", |checkpoint| checkpoint.context.caller = None),
        ("attributes", |checkpoint| checkpoint.context.attributes.clear()),
        ("last_progress_time", |checkpoint| checkpoint.last_progress_time = None),
        ("runner", |checkpoint| checkpoint.runner = None),
        ("position", |checkpoint| checkpoint.position.after = None),
        ("totals", |checkpoint| checkpoint.totals.bytes = 0),
        ("totals' warnings", |checkpoint| checkpoint.totals.warnings.clear()),
        ("estimate", |checkpoint| checkpoint.estimate = None),
        ("error", |checkpoint| checkpoint.error = None),
        ("warnings", |checkpoint| checkpoint.warnings.clear()),
        ("lease", |checkpoint| checkpoint.lease = None),
        ("cancel_requested", |checkpoint| checkpoint.cancel_requested = false),
        ("destination", |checkpoint| checkpoint.destination = None),
    ];
    for (field, damage) in damages {
        let store = BrokenStore { inner: MemoryOperationStore::new(), damage, defect: None };
        assert_found(field, store_conformance(&store), "the loaded checkpoint differs").await;
    }
}

#[tokio::test]
async fn store_conformance_finds_broken_stores() {
    for (defect, message) in [
        (StoreDefect::SavesAnyVersion, "was saved over version"),
        (StoreDefect::ReplacesOnCreate, "an operation was created twice"),
        (StoreDefect::ListsOldestFirst, "is not newest first"),
        (StoreDefect::ListsAfterWrongKey, "is not newest first"),
        (StoreDefect::KeepsDeleted, "spec of a deleted operation"),
        (StoreDefect::IgnoresFilter, "the operations of OperationFilter"),
        (StoreDefect::CountsAll, "the count of OperationFilter"),
        (StoreDefect::LosesManifest, "the loaded spec differs"),
    ] {
        let store = BrokenStore { inner: MemoryOperationStore::new(), damage: |_| {}, defect: Some(defect) };
        assert_found(defect, store_conformance(&store), message).await;
    }
}

#[derive(Debug, Clone, Copy)]
enum SecretDefect {
    SharesOneSecret,
    KeepsDeleted,
    TrimsText,
    KeepsTheFirst,
}

struct BrokenSecretStore(MemorySecretStore, SecretDefect);

#[async_trait]
impl SecretStore for BrokenSecretStore {
    async fn put(&self, id: OperationId, secret: &Secret) -> Result<()> {
        match self.1 {
            SecretDefect::SharesOneSecret => self.0.put(OperationId::from_u128(1), secret).await,
            SecretDefect::TrimsText => self.0.put(id, &Secret::new(secret.expose().replace('\0', ""))).await,
            SecretDefect::KeepsTheFirst if self.0.get(id).await?.is_some() => Ok(()),
            _ => self.0.put(id, secret).await,
        }
    }

    async fn get(&self, id: OperationId) -> Result<Option<Secret>> {
        match self.1 {
            SecretDefect::SharesOneSecret => self.0.get(OperationId::from_u128(1)).await,
            _ => self.0.get(id).await,
        }
    }

    async fn delete(&self, id: OperationId) -> Result<()> {
        match self.1 {
            SecretDefect::KeepsDeleted => Ok(()),
            SecretDefect::SharesOneSecret => self.0.delete(OperationId::from_u128(1)).await,
            _ => self.0.delete(id).await,
        }
    }
}

#[tokio::test]
async fn secret_store_conformance_finds_broken_stores() {
    for (defect, message) in [
        (SecretDefect::SharesOneSecret, "put changed the secret of another operation"),
        (SecretDefect::KeepsDeleted, "a deleted secret is still returned"),
        (SecretDefect::TrimsText, "get returned another secret than was put"),
        (SecretDefect::KeepsTheFirst, "get returned another secret than was put"),
    ] {
        let store = BrokenSecretStore(MemorySecretStore::new(), defect);
        assert_found(defect, secret_store_conformance(&store), message).await;
    }
}

#[derive(Debug, Clone, Copy)]
enum SinkDefect {
    ReplacesLog,
    TruncatesBlobs,
    KeepsFailedContent,
    CredentialInUrl,
}

#[derive(Clone)]
struct BrokenSink(MemorySink, SinkDefect);

#[async_trait]
impl BlobSink for BrokenSink {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.0.prepare(log).await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        let content = match (self.1, content.as_bytes()) {
            (SinkDefect::TruncatesBlobs, Some(bytes)) if bytes.len() > 1000 => {
                let length = bytes.len() as u64;
                self.0.put(path, Content::from_bytes(bytes.slice(1..)), upload).await?;
                return Ok(PutResult::new(length));
            }
            (SinkDefect::KeepsFailedContent, None) => {
                self.0.put(path, Content::from_bytes("the beginning"), upload).await?;
                content
            }
            _ => content,
        };
        self.0.put(path, content, upload).await
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        if let SinkDefect::ReplacesLog = self.1 {
            let upload = UploadContext::new(1 << 20, dicom_export::RetryPolicy::none(), 8);
            self.0.put(log, Content::from_bytes(lines), &upload).await?;
            return Ok(());
        }
        self.0.append(log, key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        self.0.finish(log).await
    }

    fn url(&self, path: &BlobPath) -> String {
        match self.1 {
            SinkDefect::CredentialInUrl => format!("memory:///?sig=secret#{path}"),
            _ => self.0.url(path),
        }
    }

    fn location(&self) -> String {
        self.0.location()
    }
}

#[tokio::test]
async fn sink_conformance_finds_broken_sinks() {
    for (defect, message) in [
        (SinkDefect::ReplacesLog, "lines are missing from the log"),
        (SinkDefect::TruncatesBlobs, "a blob has another length"),
        (SinkDefect::KeepsFailedContent, "a content that failed"),
        (SinkDefect::CredentialInUrl, "a URL may contain a credential"),
    ] {
        let sink = BrokenSink(MemorySink::new(), defect);
        let read = async |name: &str| sink.0.get(name);
        assert_found(defect, sink_conformance(&sink, read, &SinkTestOptions::default()), message).await;
    }
}

#[derive(Debug, Clone, Copy)]
enum ProviderDefect {
    SecretIsPublic,
    SecretInLocation,
    AcceptsEverything,
    EachSinkElsewhere,
}

struct BrokenSinkProvider(ProviderDefect);

#[async_trait]
impl SinkProvider for BrokenSinkProvider {
    fn validate(&self, settings: &Value) -> Result<ValidatedSettings> {
        let password = settings["password"].as_str();
        let Some(password) = password.or(matches!(self.0, ProviderDefect::AcceptsEverything).then_some(""))
        else {
            return Err(dicom_export::Error::invalid("/password", "'/password' is missing"));
        };
        Ok(match self.0 {
            ProviderDefect::SecretIsPublic => ValidatedSettings::new("here", settings.clone()),
            ProviderDefect::SecretInLocation => {
                ValidatedSettings::new(format!("here?{password}"), Value::Null)
            }
            _ => ValidatedSettings::new("here", Value::Null),
        })
    }

    async fn open(&self, _: &OperationSpec, _: Option<&Secret>) -> Result<Arc<dyn BlobSink>> {
        Ok(Arc::new(MemorySink::new()))
    }
}

#[tokio::test]
async fn sink_provider_conformance_finds_broken_providers() {
    for (defect, message) in [
        (ProviderDefect::SecretIsPublic, "the public part of the settings contains a secret"),
        (ProviderDefect::SecretInLocation, "the location contains a secret"),
        (ProviderDefect::AcceptsEverything, "invalid settings are accepted"),
        (ProviderDefect::EachSinkElsewhere, "different locations"),
    ] {
        let options = SinkProviderTestOptions::default().secret("hunter2").invalid([json!({})]);
        let (provider, settings) = (BrokenSinkProvider(defect), json!({ "password": "hunter2" }));
        assert_found(defect, sink_provider_conformance(&provider, &settings, &options), message).await;
    }
}

#[derive(Debug, Clone, Copy)]
enum SourceDefect {
    None,
    IgnoresScope,
    SkipsAfterAPage,
    TruncatesContents,
    RepeatsInstances,
}

/// A source that refuses to open what it has not listed, with a defect.
struct BrokenSource {
    inner: MemorySource,
    defect: SourceDefect,
    listed: Arc<Mutex<BTreeSet<InstanceIdentifier>>>,
}

#[async_trait]
impl InstanceSource for BrokenSource {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let mut page = match self.defect {
            SourceDefect::IgnoresScope => {
                self.inner.list(ListRequest::new(Scope::Everything, request.after, request.limit)).await?
            }
            _ => self.inner.list(request).await?,
        };
        match self.defect {
            SourceDefect::SkipsAfterAPage if request.after.is_some() && page.instances.len() > 1 => {
                page.instances.remove(0);
            }
            SourceDefect::RepeatsInstances if request.after.is_none() => {
                page.instances.extend(page.instances.first().cloned());
            }
            _ => {}
        }
        let mut listed = self.listed.lock().unwrap();
        listed.extend(page.instances.iter().map(|instance| instance.identifier().clone()));
        Ok(page)
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        let is_listed = self.listed.lock().unwrap().contains(instance.identifier());
        assert!(is_listed, "{} was never listed", instance.identifier());
        let content = self.inner.open(instance).await?;
        Ok(match (self.defect, content.as_bytes()) {
            (SourceDefect::TruncatesContents, Some(bytes)) => Content::from_bytes(bytes.slice(1..)),
            _ => content,
        })
    }
}

fn run_source_suite(
    archive: &BTreeMap<InstanceIdentifier, Bytes>,
    defect: SourceDefect,
) -> impl Future<Output = ()> {
    let listed = Arc::default();
    let open = move || BrokenSource {
        inner: archive.clone().into_iter().collect(),
        defect,
        listed: Arc::clone(&listed),
    };
    source_conformance(open, archive)
}

#[tokio::test]
async fn source_conformance_finds_broken_sources() {
    let archive = archive();
    for (defect, message) in [
        (SourceDefect::IgnoresScope, "are not the expected ones"),
        (SourceDefect::SkipsAfterAPage, "the listing with pages of"),
        (SourceDefect::TruncatesContents, "the content"),
        (SourceDefect::RepeatsInstances, "an instance is listed twice"),
    ] {
        assert_found(defect, run_source_suite(&archive, defect), message).await;
    }
}

#[tokio::test]
async fn source_conformance_opens_only_what_was_listed() {
    run_source_suite(&archive(), SourceDefect::None).await;
}

/// Opens the same source for each tenant.
struct OneForAll(Arc<MemorySource>);

#[async_trait]
impl SourceProvider for OneForAll {
    async fn open(&self, _: &OperationSpec) -> Result<Arc<dyn InstanceSource>> {
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn source_provider_conformance_finds_a_provider_that_mixes_tenants() {
    let archive = archive();
    let provider = OneForAll(Arc::new(archive.clone().into_iter().collect()));
    let context = OperationContext::default;
    source_provider_conformance(&provider, context().with_partition("north"), &archive).await;
    let nothing = BTreeMap::new();
    let south = source_provider_conformance(&provider, context().with_partition("south"), &nothing);
    assert_found("a source of another tenant", south, "another number of instances than expected").await;
}
