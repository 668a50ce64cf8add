//! Compares the cost of an instance that the destination copies itself with that of one that is streamed to it, through the
//! Azure sink. The destination is a server that fetches and stores nothing. Each case runs in a separate process. Linux
//! only.
//!
//! `benches/copy.sh`
#![allow(missing_docs, reason = "a program")]

mod measure;

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dicom_export::object_store::azure::{MicrosoftAzure, MicrosoftAzureBuilder};
use dicom_export::object_store::path::Path;
use dicom_export::object_store::signer::{Method, Signer};
use dicom_export::sink::azure::{AzureBlobPolicy, AzureBlobSink};
use dicom_export::source::{CopySource, Instance, ListRequest, Page};
use dicom_export::testing::GeneratedSource;
use dicom_export::{
    BlobSink, Content, Error, ErrorKind, ExportEngine, ExportSource, InstanceSource, NewOperation,
    OperationStatus, Result,
};
use serde_json::json;

use crate::measure::cpu_seconds;

/// The numbers of instances and their sizes in bytes.
const DATA: [(u64, u64); 3] = [(20_000, 20_000), (4_000, 526_000), (16, 1 << 30)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [server] => {
            println!("| instances | size | how | instances per second | CPU µs per instance |");
            println!("| --- | --- | --- | --- | --- |");
            let program = std::env::current_exe().unwrap();
            for (count, size) in DATA {
                for how in ["streamed", "copied"] {
                    let arguments = [server, how, &count.to_string(), &size.to_string()];
                    assert!(Command::new(&program).args(arguments).status().unwrap().success());
                }
            }
        }
        [server, how, count, size] => measure(server, how, count.parse().unwrap(), size.parse().unwrap()),
        _ => panic!("run benches/copy.sh"),
    }
}

fn measure(server: &str, how: &str, count: u64, size: u64) {
    let (started, cpu) = (Instant::now(), cpu_seconds());
    let source = Signed::new(GeneratedSource::new(count, size), how == "copied");
    tokio::runtime::Runtime::new().unwrap().block_on(export(server, source, count));
    let (rate, cpu) = (count as f64 / started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    println!("| {count} | {size} | {how} | {rate:.0} | {:.0} |", cpu * 1e6 / count as f64);
}

async fn export(server: &str, source: Signed, count: u64) {
    let engine = ExportEngine::builder(source).build().unwrap();
    // The server does not check the signature.
    let uri = format!("http://{server}/devstoreaccount1/export?sv=2023-11-03&sp=w&sig=bm9uZQ%3D%3D");
    let settings = json!({ "blobContainerUri": uri });
    let sink = AzureBlobSink::from_settings(&settings, &AzureBlobPolicy::development()).unwrap();
    let sink: Arc<dyn BlobSink> = Arc::new(sink);
    let started = engine.start(NewOperation::new(ExportSource::Everything, sink)).await.unwrap();
    let ended = engine.wait(started.operation_id).await.unwrap();
    assert_eq!((ended.status, ended.results.exported), (OperationStatus::Completed, count));
}

/// Generated instances with URLs that are signed with an account key, as by [`dicom_export::ObjectStoreSource`].
struct Signed {
    instances: GeneratedSource,
    signer: Option<MicrosoftAzure>,
}

impl Signed {
    fn new(instances: GeneratedSource, is_copied: bool) -> Self {
        let archive = MicrosoftAzureBuilder::new()
            .with_account("archive")
            .with_container_name("instances")
            .with_access_key("a2V5IG9mIG5vIGFjY291bnQ=");
        Self { instances, signer: is_copied.then(|| archive.build().unwrap()) }
    }
}

#[async_trait]
impl InstanceSource for Signed {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        self.instances.list(request).await
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        self.instances.open(instance).await
    }

    async fn copy_url(&self, instance: &Instance) -> Result<Option<CopySource>> {
        let Some(signer) = &self.signer else { return Ok(None) };
        let key = Path::from(instance.identifier().to_string());
        let url = signer.signed_url(Method::GET, &key, Duration::from_secs(3600)).await;
        let url = url.map_err(|_| Error::new(ErrorKind::Internal, "signing failed"))?;
        Ok(Some(CopySource::new(url, instance.size().unwrap_or_default())))
    }
}
