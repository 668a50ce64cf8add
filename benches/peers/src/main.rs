//! A minimal upload loop on `object_store`: the lower bound for any engine on it.
//!
//! `bare-loop FOLDER CONTAINER_URL?SAS|s3://BUCKET [REQUESTS]` uploads each file in the folder, 32 concurrently by default,
//! files above 16 MiB in blocks of 8 MiB. It trusts the certificates in the file that `SSL_CERT_FILE` names. For S3, the endpoint,
//! the region and the credentials are read from the variables whose names begin with `AWS_`, and bodies are sent with the same
//! checksums as by dicom-export: SHA-256 and CRC64-NVME.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::{Certificate, ClientOptions};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart};
use tokio::io::AsyncReadExt;
use walkdir::WalkDir;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SINGLE_PUT: u64 = 16 << 20;
const BLOCK: usize = 8 << 20;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, destination, concurrency) = match &*arguments {
        [folder, destination] => (folder, destination, 32),
        [folder, destination, concurrency] => (folder, destination, concurrency.parse()?),
        _ => return Err("bare-loop FOLDER CONTAINER_URL?SAS|s3://BUCKET [REQUESTS]".into()),
    };
    let store = match destination.strip_prefix("s3://") {
        Some(bucket) => s3(bucket)?,
        None => azure(destination)?,
    };
    let entries = WalkDir::new(folder)
        .into_iter()
        .filter(|entry| !entry.as_ref().is_ok_and(|entry| entry.file_type().is_dir()));
    let (files, bytes) = futures::stream::iter(entries)
        .map(|entry| {
            let store = Arc::clone(&store);
            async move {
                let entry = entry?;
                let name = entry.path().strip_prefix(folder)?.to_str().ok_or("a file name is not UTF-8")?;
                put(&*store, name, entry.path(), entry.metadata()?.len()).await
            }
        })
        .buffer_unordered(concurrency)
        .try_fold((0u64, 0u64), |(files, bytes), length| async move { Ok((files + 1, bytes + length)) })
        .await?;
    println!("{files} files, {bytes} bytes");
    Ok(())
}

fn azure(container: &str) -> Result<Arc<dyn ObjectStore>> {
    let (url, sas) = container.split_once('?').ok_or("the container URL has no SAS")?;
    let (account, name) = url.rsplit_once('/').ok_or("not a container URL")?;
    let sas: Vec<_> = sas
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let store = MicrosoftAzureBuilder::new()
        .with_client_options(client()?)
        .with_account("devstoreaccount1")
        .with_container_name(name)
        .with_endpoint(account.to_owned())
        .with_sas_authorization(sas)
        .build()?;
    Ok(Arc::new(store))
}

fn s3(bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    let store = AmazonS3Builder::from_env()
        .with_client_options(client()?)
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(false)
        .with_checksum_algorithm(Checksum::CRC64NVME)
        .build()?;
    Ok(Arc::new(store))
}

fn client() -> Result<ClientOptions> {
    let mut options = ClientOptions::new().with_allow_http(true);
    if let Some(file) = std::env::var_os("SSL_CERT_FILE") {
        for certificate in Certificate::from_pem_bundle(&std::fs::read(file)?)? {
            options = options.with_root_certificate(certificate);
        }
    }
    Ok(options)
}

async fn put(store: &dyn ObjectStore, name: &str, file: &Path, length: u64) -> Result<u64> {
    let to = object_store::path::Path::from(format!("bare/{name}"));
    if length <= SINGLE_PUT {
        store.put(&to, PutPayload::from(tokio::fs::read(file).await?)).await?;
        return Ok(length);
    }
    let mut upload = WriteMultipart::new_with_chunk_size(store.put_multipart(&to).await?, BLOCK);
    let mut file = tokio::fs::File::open(file).await?;
    loop {
        let mut block = BytesMut::with_capacity(BLOCK);
        while block.len() < BLOCK && file.read_buf(&mut block).await? > 0 {}
        if block.is_empty() {
            break;
        }
        upload.wait_for_capacity(8).await?;
        upload.put(block.freeze());
    }
    upload.finish().await?;
    Ok(length)
}
