//! `Debug` of every public type. Types that can contain a secret or a path are created with one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dicom_export::http::{BaseUrl, HttpOptions, Problem, Rejection};
use dicom_export::object_store::StaticCredentialProvider;
use dicom_export::object_store::aws::AwsCredential;
use dicom_export::object_store::azure::MicrosoftAzureBuilder;
use dicom_export::object_store::gcp::GcpCredential;
use dicom_export::object_store::local::LocalFileSystem;
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobProvider, AzureBlobSink, Identity};
use dicom_export::sink::gcs::{GcsPolicy, GcsProvider};
use dicom_export::sink::s3::{S3Policy, S3Provider};
use dicom_export::sink::{ObjectStoreProvider, Secret, ValidatedSettings};
use dicom_export::source::{
    CopySource, Cursor, DicomWebCredentials, DirectoryReport, Instance, ListRequest, Locator, Page, Scope,
};
use dicom_export::sqlx::PgPool;
use dicom_export::store::{
    Checkpoint, MemoryOperationStore, MemorySecretStore, OperationStore, Position, PostgresOperationStore,
    PostgresSecretStore, RedbOperationStore, SecretKey, SecretStore,
};
use dicom_export::{
    BlobSink, Content, DicomWebSource, DirectorySink, DirectorySource, ErrorKind, ExportDestination,
    ExportEngine, ExportRequest, ExportService, ExportSource, InstanceSource, MemorySink, MemorySource,
    NewOperation, ObjectStoreSink, ObjectStoreSource, OperationContext, OperationId, OperationRecord,
    OperationSpec, SinkProvider, StoredDestination, Target, Timestamp, restate,
};
use serde_json::{Value, json};
use walkdir::WalkDir;

use crate::archive;
use crate::canary::Canaries;

const SIGNATURE: &str = "Y2FuYXJ5LXNpZ25hdHVyZQ%3D%3D";
const KEY: &str = "Y2FuYXJ5LWFjY291bnQta2V5LWluLWEtRGVidWc=";
const TOKEN: &str = "canary-bearer-token-which-is-as-long-as-tokens-are";
const PASSWORD: &str = "canary-password";

/// Types that cannot contain secrets: numbers, times, UIDs, fixed words, and what is public by contract (messages, names of
/// blobs, a host's context). Wrappers print what they wrap.
const HARMLESS: &[&str] = &[
    "Addressing",
    "AllowAll",
    "ApiDescription",
    "ApiVersion",
    "AppendLimits",
    "BatchDone",
    "BlobPath",
    "BucketAddressing",
    "Call",
    "Checksums",
    "Concurrency",
    "ConfiguredBaseUrl",
    "DestinationType",
    "DicomIdentifier",
    "NullSink",
    "ErrorKind",
    "ErrorLogEntry",
    "ExportResults",
    "FaultPlan",
    "FaultyOperationStore",
    "FaultySecretStore",
    "FaultySink",
    "FaultySource",
    "GeneratedSource",
    "Identifiers",
    "IdentityCheck",
    "InstanceIdentifier",
    "Lease",
    "ListFailure",
    "ListWarning",
    "LogKey",
    "ManifestEntry",
    "ObjectLayout",
    "OperationContext",
    "OperationFilter",
    "OperationId",
    "OperationKey",
    "OperationIssue",
    "OperationStatus",
    "OperationType",
    "Progress",
    "Resumption",
    "RetryPolicy",
    "Side",
    "SideFailing",
    "SideRecovered",
    "SinkProviderTestOptions",
    "SinkTestOptions",
    "PutResult",
    "StreamFault",
    "Timestamp",
    "Totals",
    "Uid",
    "UploadContext",
];

fn canaries() -> Canaries {
    archive::canaries()
        .with("the signature", SIGNATURE)
        .with("the account key", KEY)
        .with("the bearer token", TOKEN)
        .with("the password", PASSWORD)
}

fn uri() -> String {
    format!("https://account.blob.core.windows.net/container?sp=w&sig={SIGNATURE}")
}

fn spec(destination: StoredDestination) -> OperationSpec {
    let destination = serde_json::to_value(destination).unwrap();
    let spec = json!({
        "id": OperationId::random(), "createdTime": Timestamp::now(), "source": null, "destination": destination,
        "errorHref": "https://account.blob.core.windows.net/container/errors.log", "context": OperationContext::default(),
    });
    serde_json::from_value(spec).unwrap()
}

/// The `Debug` output of a value, compact and pretty, with its type's name.
fn of(name: &'static str, value: &dyn std::fmt::Debug) -> (&'static str, String) {
    (name, format!("{value:?}\n{value:#?}"))
}

/// Lists a DICOM file without UIDs whose name is a secret.
async fn report_of_a_skipped_file(folder: &Path) -> DirectoryReport {
    std::fs::create_dir(folder).unwrap();
    std::fs::write(folder.join(archive::FOLDER), [&[0; 128], &b"DICM"[..]].concat()).unwrap();
    let source = DirectorySource::open(folder).unwrap();
    source.list(ListRequest::new(Scope::Everything, None, 1)).await.unwrap();
    source.report()
}

/// Every type that can contain a secret, or a path with a name, with one of each in it.
async fn all(folder: &Path) -> Vec<(&'static str, String)> {
    let path = format!("{}/{}/{}", archive::FOLDER, archive::NAME, archive::ID);
    let mut all = Vec::new();

    let cursor = Cursor::new(path.as_str());
    let instance = Instance::new(archive::instance(1)).with_locator(Locator::new(path.as_str()));
    let page = Page::more(vec![instance.clone()], cursor.clone());
    all.extend([
        of("Cursor", &cursor),
        of("Locator", instance.locator()),
        of("Instance", &instance),
        of("Page", &page),
    ]);
    all.push(of("ListRequest", &ListRequest::new(Scope::Everything, Some(&cursor), 9)));
    all.push(of("Scope", &Scope::Everything));
    all.push(of("Content", &Content::from_bytes(Bytes::from(archive::file(1)))));
    all.push(of("CopySource", &CopySource::new(uri(), 3).with_etag("tag")));

    let memory = MemorySource::new();
    memory.insert(archive::instance(1), archive::file(1));
    all.push(of("MemorySource", &memory));
    all.push(of("DirectorySource", &DirectorySource::open(folder.join(archive::FOLDER)).unwrap()));
    let report = report_of_a_skipped_file(&folder.join("skipped")).await;
    all.extend([of("DirectoryReport", &report), of("SkippedPath", &report.skipped[0])]);
    let credentials = DicomWebCredentials::basic("user", PASSWORD);
    let builder = DicomWebSource::builder("https://pacs.example/dicom-web").credentials(credentials.clone());
    let builder = builder.header("x-api-key", TOKEN);
    all.extend([of("DicomWebCredentials", &credentials), of("DicomWebSourceBuilder", &builder)]);
    all.push(of("DicomWebCredentials", &DicomWebCredentials::bearer(TOKEN)));
    all.push(of("DicomWebSource", &builder.build().unwrap()));
    let azure = MicrosoftAzureBuilder::new().with_account("account").with_container_name("container");
    let azure = Arc::new(azure.with_access_key(KEY).build().unwrap());
    assert!(format!("{azure:?}").contains("Azure"), "the object store's own Debug would disclose its key");
    let source = ObjectStoreSource::new(azure.clone()).with_prefix(&path).unwrap().with_signer(azure.clone());
    all.push(of("ObjectStoreSource", &source));
    all.push(of("ObjectStoreSink", &ObjectStoreSink::new(azure, &uri())));
    let local = Arc::new(LocalFileSystem::new_with_prefix(folder.join(archive::FOLDER)).unwrap());
    all.push(of("ObjectStoreSource", &ObjectStoreSource::new(local)));

    let destination = ExportDestination::azure_blob(&uri());
    let connection = format!("AccountName=account;AccountKey={KEY}");
    for destination in [
        destination.clone(),
        ExportDestination::azure_blob_from_connection_string(&connection, "container"),
        // Misplaced values.
        ExportDestination::new(
            "azureblob",
            json!({ (uri()): 1, (connection.clone()): { "x": [TOKEN] }, (TOKEN): 2 }),
        ),
        ExportDestination::new("azureblob", json!(uri())),
    ] {
        all.push(of("ExportDestination", &destination));
    }
    let request = ExportRequest::new(ExportSource::Everything, destination.clone());
    all.extend([of("ExportRequest", &request), of("ExportSource", request.source())]);
    all.push(of("NewOperation", &NewOperation::from(request)));
    all.push(of("Target", &Target::from(destination.clone())));
    let sink = MemorySink::new();
    all.push(of("Target", &Target::from(Arc::new(sink.clone()) as Arc<dyn BlobSink>)));
    all.extend([of("MemorySink", &sink), of("MemorySinkProvider", &sink.provider())]);
    all.push(of("DirectorySink", &DirectorySink::open(folder.join("destination")).unwrap()));

    let policy = AzureBlobPolicy::new()
        .with_root_certificate(KEY)
        .with_identity(Identity::UserAssigned { client_id: "client".into() });
    all.extend([of("AzureBlobPolicy", &policy), of("Identity", &Identity::SystemAssigned)]);
    let policy = AzureBlobPolicy::new();
    let provider = AzureBlobProvider::new(policy.clone());
    all.push(of("AzureBlobProvider", &provider));
    let checked: ValidatedSettings = provider.validate(destination.expose_settings()).unwrap();
    all.push(of("ValidatedSettings", &checked));
    all.push(of(
        "AzureBlobSink",
        &AzureBlobSink::from_settings(destination.expose_settings(), &policy).unwrap(),
    ));
    let credential =
        AwsCredential { key_id: "key".into(), secret_key: KEY.into(), token: Some(TOKEN.into()) };
    let identity = Arc::new(StaticCredentialProvider::new(credential));
    let policy = S3Policy::new().with_identity(identity);
    all.push(of("S3Policy", &policy.clone().with_root_certificate(KEY)));
    let keys = json!({
        "bucket": "bucket", "region": "eu-central-1", "accessKeyId": "key", "secretAccessKey": KEY, "sessionToken": TOKEN,
    });
    let s3 = S3Provider::new(policy.clone());
    all.push(of("ValidatedSettings", &s3.validate(&keys).unwrap()));
    all.push(of("ObjectStoreSink", &ObjectStoreSink::open_s3(&keys, &policy).unwrap()));
    all.push(of("S3Provider", &s3));
    let token = StaticCredentialProvider::new(GcpCredential { bearer: TOKEN.into() });
    let gcs = GcsPolicy::new().with_root_certificate(KEY).with_identity(Arc::new(token));
    all.extend([of("GcsPolicy", &gcs), of("GcsProvider", &GcsProvider::new(gcs.clone()))]);
    let opened = ObjectStoreSink::open_s3(&keys, &policy).unwrap();
    let provider_of_host = ObjectStoreProvider::new(move |_| Ok(opened.clone()));
    all.push(of("ObjectStoreProvider", &provider_of_host));
    let secret = checked.secret.unwrap();
    all.extend([of("Secret", &secret), of("Secret", &Secret::new(TOKEN))]);

    let stored = StoredDestination::new("azureblob", checked.location, checked.public, true);
    let spec = spec(stored.clone());
    let mut checkpoint = Checkpoint::first(Timestamp::now());
    checkpoint.position.after = Some(cursor);
    checkpoint.destination = Some(stored.clone());
    let position: &Position = &checkpoint.position;
    all.extend([of("StoredDestination", &stored), of("OperationSpec", &spec)]);
    all.extend([of("Checkpoint", &checkpoint), of("Position", position)]);
    let (operations, secrets) = (MemoryOperationStore::new(), MemorySecretStore::new());
    operations.create(&spec, &checkpoint).await.unwrap();
    secrets.put(spec.id, &secret).await.unwrap();
    all.extend([of("MemoryOperationStore", &operations), of("MemorySecretStore", &secrets)]);
    let state = RedbOperationStore::open(folder.join("state")).unwrap();
    state.create(&spec, &checkpoint).await.unwrap();
    all.push(of("RedbOperationStore", &state));
    let pool = PgPool::connect_lazy(&format!("postgres://user:{PASSWORD}@db.example/pacs")).unwrap();
    all.push(of("PostgresOperationStore", &PostgresOperationStore::new(pool.clone())));
    let key = SecretKey::new(*b"0123456789abcdef0123456789abcdef");
    all.extend([of("SecretKey", &key), of("PostgresSecretStore", &PostgresSecretStore::new(pool, key))]);

    let builder =
        ExportEngine::builder(source).destination("azureblob", provider).secret_store(Arc::new(secrets));
    let builder = builder.operation_store(Arc::new(operations));
    all.push(of("ExportEngineBuilder", &builder));
    let engine = builder.build().unwrap();
    all.extend([of("ExportEngine", &engine), of("ExportConfig", engine.config())]);
    let ingress = format!("http://user:{PASSWORD}@restate.example:8080");
    all.push(of("Client", &restate::Client::new(engine.config().clone(), &ingress, &ingress).unwrap()));
    all.push(of("Endpoint", &restate::endpoint(engine.config().clone(), &ingress).unwrap()));
    let record: OperationRecord = engine.operation(spec.id).await.unwrap();
    all.extend([of("OperationRecord", &record), of("Operation", &record.operation)]);

    all.push(of("HttpOptions", &HttpOptions::new()));
    // A URL with user information is refused, and the error does not contain it.
    let refused = BaseUrl::configured(&format!("https://user:{PASSWORD}@pacs.example")).unwrap_err();
    all.extend([of("Error", &refused), of("BaseUrl", &BaseUrl::Request)]);
    all.push(of("Problem", &Problem::from(refused)));
    all.push(of("Rejection", &Rejection::forbidden("no")));
    let hidden =
        dicom_export::Error::new(ErrorKind::Internal, "a fault").with_retry_after(std::time::Duration::ZERO);
    all.push(of("Error", &hidden));
    all
}

#[tokio::test]
async fn guarantee_6_debug_discloses_no_secret_and_no_path() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(archive::FOLDER)).unwrap();
    let all = all(folder.path()).await;
    for (name, debug) in &all {
        canaries().assert_absent(&format!("Debug of {name}"), debug);
        assert!(!debug.is_empty());
    }
    let mut covered: BTreeSet<String> = all.iter().map(|(name, _)| (*name).to_owned()).collect();
    covered.extend(HARMLESS.iter().map(|name| (*name).to_owned()));
    let public = public_types();
    let missing: Vec<_> = public.difference(&covered).collect();
    assert!(
        missing.is_empty(),
        "create these types with a secret in `all`, or add them to `HARMLESS`: {missing:?}"
    );
    let removed: Vec<_> = covered.difference(&public).collect();
    assert!(removed.is_empty(), "these types are not public: {removed:?}");
}

/// The names of all public types in the sources.
fn public_types() -> BTreeSet<String> {
    let sources = WalkDir::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let mut names = BTreeSet::new();
    for file in sources.into_iter().map(Result::unwrap).filter(|file| file.file_type().is_file()) {
        let text = std::fs::read_to_string(file.path()).unwrap();
        // The `opaque!` macro defines types too.
        let mut in_macro = false;
        for line in text.lines() {
            in_macro |= line.starts_with("opaque! {");
            let words: Vec<&str> = line.split_whitespace().collect();
            let name = match words[..] {
                ["pub", "struct" | "enum" | "union", name, ..] if !name.starts_with('$') => name,
                [name] if in_macro && name.chars().all(char::is_alphanumeric) => name,
                _ => {
                    in_macro &= line != "}";
                    continue;
                }
            };
            names.insert(name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    names
}

#[test]
fn guarantee_6_validated_settings_separate_the_secret() {
    let provider = AzureBlobProvider::new(AzureBlobPolicy::new());
    let checked = provider.validate(&json!({ "blobContainerUri": uri() })).unwrap();
    let public: &Value = &checked.public;
    canaries().assert_absent("the stored settings", format!("{public}{}", checked.location));
    assert!(checked.secret.unwrap().expose().contains(SIGNATURE));
}
