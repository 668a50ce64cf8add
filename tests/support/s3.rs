//! S3 servers on free ports: moto, which has IAM and lists uploads, and s3s-fs, which verifies signatures and checksums.
//! `tests/run.sh` installs both.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpRequest, HttpResponse};
use object_store::{Attribute, Error as StoreError, ObjectStore, ObjectStoreExt};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::port::Port;

/// What moto accepts as long as it does not enforce policies, and s3s-fs as its only key.
pub(crate) const KEY_ID: &str = "AKIAIOSFODNN7EXAMPLE";
pub(crate) const SECRET_KEY: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
pub(crate) const REGION: &str = "us-east-1";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Moto,
    S3s,
}

/// A running server. It ends with this value, and at the latest with the test process.
pub(crate) struct S3Server {
    pub(crate) process: Daemon,
    folder: TempDir,
    pub(crate) kind: Kind,
    port: Port,
    http: reqwest::Client,
}

static MOTO: LazyLock<S3Server> = LazyLock::new(S3Server::moto);
static S3S: LazyLock<S3Server> = LazyLock::new(S3Server::s3s);

impl S3Server {
    /// The server of this kind that the tests of a binary share.
    pub(crate) fn shared(kind: Kind) -> &'static Self {
        match kind {
            Kind::Moto => &MOTO,
            Kind::S3s => &S3S,
        }
    }

    /// A server for one test.
    pub(crate) fn moto() -> Self {
        let (port, folder) = (Port::reserve(), TempDir::new().unwrap());
        let number = port.number().to_string();
        let process = Daemon::start(
            &tools().join("venv/bin/moto_server"),
            ["-p", &number],
            &[],
            &folder.path().join("log"),
        );
        process.wait_for_output("Running on ");
        Self::new(process, folder, Kind::Moto, port)
    }

    fn s3s() -> Self {
        let (port, folder) = (Port::reserve(), TempDir::new().unwrap());
        let (number, root) = (port.number().to_string(), folder.path().join("root"));
        std::fs::create_dir(&root).unwrap();
        let root = root.to_str().unwrap();
        let arguments = ["--host", "127.0.0.1", "--port", &number];
        let keys = ["--access-key", KEY_ID, "--secret-key", SECRET_KEY, root];
        let process = Daemon::start(
            &tools().join("s3s/bin/s3s-fs"),
            arguments.iter().chain(&keys),
            &[("RUST_LOG", "s3s_fs=info")],
            &folder.path().join("log"),
        );
        process.wait_for_output("server is running");
        Self::new(process, folder, Kind::S3s, port)
    }

    fn new(process: Daemon, folder: TempDir, kind: Kind, port: Port) -> Self {
        // A pooled connection would belong to the runtime of the test that opened it, which may end first.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        Self { process, folder, kind, port, http }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port())
    }

    /// A new, empty bucket.
    pub(crate) async fn bucket(&self) -> Bucket<'_> {
        let bucket = Bucket { server: self, name: format!("test-{}", uuid::Uuid::new_v4()) };
        let created = self.request("s3", Method::PUT, &format!("/{}", bucket.name), "").await;
        assert_eq!(created.0, 200, "{}", created.1);
        bucket
    }

    /// Sends a signed request, and returns the status and the body of the response.
    pub(crate) async fn request(
        &self,
        service: &str,
        method: Method,
        path: &str,
        form: &str,
    ) -> (u16, String) {
        let response = self.send(service, method, path, form).await;
        let status = response.status().as_u16();
        let body = response.into_body().bytes().await.unwrap();
        (status, String::from_utf8(body.into()).unwrap())
    }

    async fn send(&self, service: &str, method: Method, path: &str, form: &str) -> HttpResponse {
        let mut request = HttpRequest::new(Bytes::from(form.to_owned()).into());
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{path}", self.endpoint()).parse().unwrap();
        request.headers_mut().insert("content-length", form.len().into());
        if !form.is_empty() {
            let form = "application/x-www-form-urlencoded".parse().unwrap();
            request.headers_mut().insert("content-type", form);
        }
        let (key_id, secret_key) = (KEY_ID.to_owned(), SECRET_KEY.to_owned());
        let credential = AwsCredential { key_id, secret_key, token: None };
        AwsAuthorizer::new(&credential, service, REGION).try_authorize(&mut request, None).unwrap();
        HttpClient::new(self.http.clone()).execute(request).await.unwrap()
    }
}

/// The folder of the tools that `tests/run.sh` installs.
pub(crate) fn tools() -> PathBuf {
    let tools = std::env::var_os("DICOM_EXPORT_TOOLS").map(PathBuf::from);
    tools.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools"))
}

/// A bucket on a running server.
pub(crate) struct Bucket<'a> {
    pub(crate) server: &'a S3Server,
    pub(crate) name: String,
}

/// An object as it is read back.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: Option<String>,
}

impl Bucket<'_> {
    pub(crate) fn url(&self) -> String {
        format!("{}/{}", self.server.endpoint(), self.name)
    }

    /// The settings of this bucket as a destination, with the given endpoint.
    pub(crate) fn settings_at(&self, endpoint: &str) -> Value {
        json!({
            "bucket": self.name,
            "endpoint": endpoint,
            "accessKeyId": KEY_ID,
            "secretAccessKey": SECRET_KEY,
        })
    }

    pub(crate) fn settings(&self) -> Value {
        self.settings_at(&self.server.endpoint())
    }

    /// The bucket as a store, with all permissions.
    pub(crate) fn store(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(self.server.endpoint())
            .with_allow_http(true)
            .with_region(REGION)
            .with_bucket_name(&self.name)
            .with_access_key_id(KEY_ID)
            .with_secret_access_key(SECRET_KEY)
            .build()
            .unwrap()
    }

    pub(crate) async fn get(&self, name: &str) -> Option<Object> {
        match self.store().get(&name.into()).await {
            Err(StoreError::NotFound { .. }) => None,
            found => {
                let found = found.unwrap();
                let content_type =
                    found.attributes.get(&Attribute::ContentType).map(|value| value.to_string());
                Some(Object { bytes: found.bytes().await.unwrap(), content_type })
            }
        }
    }

    /// The headers of an object.
    pub(crate) async fn head(&self, name: &str) -> HeaderMap {
        let path = format!("/{}/{name}", self.name);
        self.server.send("s3", Method::HEAD, &path, "").await.headers().clone()
    }

    /// The names and lengths of all objects.
    pub(crate) async fn list(&self) -> BTreeMap<String, u64> {
        let store = Arc::new(self.store());
        store.list(None).map_ok(|meta| (meta.location.to_string(), meta.size)).try_collect().await.unwrap()
    }

    /// The number of multipart uploads that are neither completed nor aborted.
    pub(crate) async fn pending_uploads(&self) -> usize {
        match self.server.kind {
            Kind::Moto => {
                let (status, body) =
                    self.server.request("s3", Method::GET, &format!("/{}?uploads", self.name), "").await;
                assert_eq!(status, 200, "{body}");
                body.matches("<UploadId>").count()
            }
            Kind::S3s => {
                let files = std::fs::read_dir(self.server.folder.path().join("root")).unwrap();
                let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
                names.filter(|name| name.starts_with(".upload-") && name.ends_with(".json")).count()
            }
        }
    }
}
