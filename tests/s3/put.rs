//! The contracts of a sink and a provider, and what is stored with an object.

use async_trait::async_trait;
use bytes::Bytes;
use dicom_export::sink::s3::{S3Policy, S3Provider};
use dicom_export::sink::{LogKey, PutResult};
use dicom_export::testing::{
    SinkProviderTestOptions, SinkTestOptions, sink_conformance, sink_provider_conformance,
};
use dicom_export::{BlobPath, BlobSink, Content, Result, UploadContext};
use object_store::ObjectStoreExt;
use serde_json::json;

use crate::s3::{KEY_ID, Kind, S3Server, SECRET_KEY};
use crate::{MIB, bytes, instance, log, sink, upload};

fn options() -> SinkTestOptions {
    SinkTestOptions::default().log_is_joined_on_finish().lengths([5 * MIB, 5 * MIB + 1, 11 * MIB])
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn sink_fulfills_its_contract_on_moto() {
    let bucket = S3Server::shared(Kind::Moto).bucket().await;
    let mut settings = bucket.settings();
    settings["prefix"] = json!("exports/trial7/");
    let sink = sink(&settings);
    assert_eq!(sink.location(), format!("{}/exports/trial7", bucket.url()));
    let read =
        async |name: &str| bucket.get(&format!("exports/trial7/{name}")).await.map(|object| object.bytes);
    sink_conformance(&sink, read, &options()).await;
    assert_eq!(bucket.pending_uploads().await, 0);
}

/// s3s-fs makes file names of keys, and cannot store those of the suite.
struct ShortPaths<S>(S);

fn shortened(path: &str) -> Option<BlobPath> {
    let (operation, instance) = path.strip_suffix(".dcm")?.split_once("/results/")?;
    let short =
        |uid: &str| format!("1.{}", uid.bytes().fold(7_u32, |hash, b| hash.wrapping_mul(31) + u32::from(b)));
    let identifier = instance.split('/').map(short).collect::<Vec<_>>().join("/");
    Some(BlobPath::instance(operation.parse().unwrap(), &identifier.parse().unwrap()))
}

#[async_trait]
impl<S: BlobSink> BlobSink for ShortPaths<S> {
    async fn prepare(&self, log: &BlobPath) -> Result<()> {
        self.0.prepare(log).await
    }

    async fn put(&self, path: &BlobPath, content: Content, upload: &UploadContext) -> Result<PutResult> {
        self.0.put(&shortened(path.as_str()).unwrap(), content, upload).await
    }

    async fn append(&self, log: &BlobPath, key: LogKey, lines: Bytes) -> Result<()> {
        self.0.append(log, key, lines).await
    }

    async fn finish(&self, log: &BlobPath) -> Result<()> {
        self.0.finish(log).await
    }

    fn url(&self, path: &BlobPath) -> String {
        self.0.url(path)
    }

    fn buffer_size(&self, length: Option<u64>) -> u64 {
        self.0.buffer_size(length)
    }

    fn location(&self) -> String {
        self.0.location()
    }
}

#[tokio::test]
#[ignore = "needs s3s-fs: tests/run.sh"]
async fn sink_fulfills_its_contract_on_s3s() {
    let bucket = S3Server::shared(Kind::S3s).bucket().await;
    let sink = ShortPaths(sink(&bucket.settings()));
    let read = async |name: &str| {
        let short = shortened(name).map_or_else(|| name.to_owned(), |path| path.to_string());
        bucket.get(&short).await.map(|object| object.bytes)
    };
    sink_conformance(&sink, read, &options()).await;
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn provider_fulfills_its_contract() {
    let bucket = S3Server::shared(Kind::Moto).bucket().await;
    let provider = S3Provider::new(S3Policy::development());
    let options = SinkProviderTestOptions::default().secret(SECRET_KEY).secret(KEY_ID).invalid([
        json!({}),
        json!([]),
        json!({ "bucket": "trial7" }),
        json!({ "bucket": "trial7", "region": "eu-central-1", "secretAccessKey": SECRET_KEY }),
        json!({ "bucket": "trial7", "region": "eu-central-1", "accessKeyId": KEY_ID }),
        json!({ "bucket": SECRET_KEY, "region": "eu-central-1" }),
        json!({ "bucket": "trial7", "endpoint": format!("https://{KEY_ID}@s3.eu-central-1.amazonaws.com") }),
    ]);
    sink_provider_conformance(&provider, &bucket.settings(), &options).await;
}

/// A wrong key is refused before anything is exported. moto only verifies signatures if it enforces policies.
#[tokio::test]
#[ignore = "needs s3s-fs: tests/run.sh"]
async fn wrong_key_is_refused_at_the_start() {
    let bucket = S3Server::shared(Kind::S3s).bucket().await;
    let mut settings = bucket.settings();
    settings["secretAccessKey"] = json!("wrong");
    let error = sink(&settings).prepare(&log()).await.unwrap_err();
    assert_eq!(
        error.message(),
        "the store refused the credential or the permission (403 SignatureDoesNotMatch)"
    );
}

/// Some stores ignore the condition under which the log is created.
#[tokio::test]
#[ignore = "needs moto and s3s-fs: tests/run.sh"]
async fn preparing_again_keeps_the_log() {
    for kind in [Kind::Moto, Kind::S3s] {
        let bucket = S3Server::shared(kind).bucket().await;
        let (sink, log) = (sink(&bucket.settings()), log());
        sink.prepare(&log).await.unwrap();
        bucket.store().put(&log.as_str().into(), "a line\n".into()).await.unwrap();
        sink.prepare(&log).await.unwrap();
        assert_eq!(bucket.get(log.as_str()).await.unwrap().bytes, "a line\n");
    }
}

#[tokio::test]
#[ignore = "needs moto: tests/run.sh"]
async fn objects_have_content_type_checksum_storage_class_and_encryption() {
    let bucket = S3Server::shared(Kind::Moto).bucket().await;
    let mut settings = bucket.settings();
    settings["storageClass"] = json!("STANDARD_IA");
    settings["serverSideEncryption"] = json!("AES256");
    let (sink, log) = (sink(&settings), log());
    sink.prepare(&log).await.unwrap();
    for length in [3, 6 * MIB] {
        let path = instance();
        let put = sink.put(&path, Content::from_bytes(bytes(length)), &upload(32 * MIB)).await.unwrap();
        assert_eq!(put.size as usize, length);
        assert!(put.etag.is_some_and(|etag| !etag.is_empty()));
        let object = bucket.get(path.as_str()).await.unwrap();
        assert_eq!(object.content_type.as_deref(), Some("application/dicom"));
        assert!(object.bytes == bytes(length));
        let head = bucket.head(path.as_str()).await;
        assert_eq!(head["x-amz-storage-class"], "STANDARD_IA");
        assert_eq!(head["x-amz-server-side-encryption"], "AES256");
    }
    let head = bucket.head(log.as_str()).await;
    assert_eq!(head["content-type"], "application/x-ndjson");
    // Logs are read again and deleted, so they are not stored in a class for data that is rarely read.
    assert_eq!(head.get("x-amz-storage-class").map(|class| class.as_bytes()), None);
}
