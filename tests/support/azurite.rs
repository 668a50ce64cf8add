//! Azurite, the Azure Blob Storage emulator, on a free port. `tests/run.sh` installs it.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use object_store::azure::{
    AzureAccessKey, AzureAuthorizer, AzureCredential, MicrosoftAzure, MicrosoftAzureBuilder,
};
use object_store::client::{HttpClient, HttpRequest, HttpResponse};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use reqwest::Method;
use tempfile::TempDir;

use crate::daemon::Daemon;

pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A running server. It ends with this value, and at the latest with the test process.
pub(crate) struct Azurite {
    _process: Daemon,
    _folder: TempDir,
    scheme: &'static str,
    port: u16,
    http: reqwest::Client,
}

static SHARED: LazyLock<Azurite> = LazyLock::new(Azurite::new);

impl Azurite {
    /// The server that the tests of a binary share.
    pub(crate) fn shared() -> &'static Self {
        &SHARED
    }

    /// A server for one test.
    pub(crate) fn new() -> Self {
        // A pooled connection would belong to the runtime of the test that opened it, which may end first.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        Self::start("http", &[], http, TempDir::new().unwrap())
    }

    /// A server with https that accepts bearer tokens, and the certificate of its authority as PEM.
    pub(crate) fn with_tokens() -> (Self, String) {
        let folder = TempDir::new().unwrap();
        let [certificate, key] = ["leaf.pem", "key.pem"].map(|name| folder.path().join(name));
        let mut authority = CertificateParams::new([]).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&authority_key).unwrap().pem();
        let leaf_key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&leaf_key, &Issuer::new(authority, authority_key)).unwrap();
        std::fs::write(&certificate, leaf.pem()).unwrap();
        std::fs::write(&key, leaf_key.serialize_pem()).unwrap();
        let trust = reqwest::Certificate::from_pem(root.as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_certs_merge([trust]).build().unwrap();
        let (certificate, key) = (certificate.to_str().unwrap(), key.to_str().unwrap());
        let arguments = ["--oauth", "basic", "--cert", certificate, "--key", key];
        (Self::start("https", &arguments, http, folder), root)
    }

    fn start(scheme: &'static str, arguments: &[&str], http: reqwest::Client, folder: TempDir) -> Self {
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/node_modules/.bin/azurite-blob");
        // It chooses a free port, and prints it once it listens.
        let common = ["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"];
        let quiet = ["--skipApiVersionCheck", "--disableTelemetry", "--silent"];
        let arguments = common.iter().chain(&quiet).chain(arguments);
        let process = Daemon::start(&program, arguments, &[], &folder.path().join("log"));
        let address = process.wait_for_output("successfully listens on ");
        let (_, port) = address.rsplit_once(':').unwrap();
        Self {
            _process: process,
            scheme,
            port: port.trim_end_matches('/').parse().unwrap(),
            http,
            _folder: folder,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A new, empty container.
    pub(crate) async fn container(&self) -> Container<'_> {
        let container = self.missing_container();
        let response = container.request(Method::PUT, "?restype=container").await;
        assert_eq!(response.status(), 201);
        container
    }

    /// A container that does not exist.
    pub(crate) fn missing_container(&self) -> Container<'_> {
        Container { azurite: self, name: format!("test-{}", uuid::Uuid::new_v4()) }
    }
}

/// A container on a running server.
pub(crate) struct Container<'a> {
    azurite: &'a Azurite,
    name: String,
}

/// A blob as it is read back.
#[derive(Debug)]
pub(crate) struct Blob {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: String,
    pub(crate) kind: String,
}

impl Container<'_> {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The account's connection string with this credential: a key or a SAS.
    pub(crate) fn connection_string(&self, credential: &str) -> String {
        let Azurite { scheme, port, .. } = self.azurite;
        format!("BlobEndpoint={scheme}://127.0.0.1:{port}/{ACCOUNT};{credential}")
    }

    pub(crate) fn url(&self) -> String {
        let Azurite { scheme, port, .. } = self.azurite;
        format!("{scheme}://127.0.0.1:{port}/{ACCOUNT}/{}", self.name)
    }

    /// The container's URL with a SAS that has these permissions and is valid for an hour.
    pub(crate) fn sas_url(&self, permissions: &str) -> String {
        self.sas_url_until(permissions, chrono::Utc::now() + chrono::TimeDelta::hours(1))
    }

    /// ("Create a service SAS", Azure Blob Storage REST API, version 2020-12-06 and later.)
    pub(crate) fn sas_url_until(&self, permissions: &str, expiry: chrono::DateTime<chrono::Utc>) -> String {
        let expiry = expiry.format("%Y-%m-%dT%H:%M:%SZ").to_string();
        let (version, resource) = ("2022-11-02", "c");
        let name = format!("/blob/{ACCOUNT}/{}", self.name);
        let text =
            [permissions, "", &expiry, &name, "", "", "", version, resource, "", "", "", "", "", "", ""];
        let key = hmac::Key::new(hmac::HMAC_SHA256, &BASE64_STANDARD.decode(KEY).unwrap());
        let signature = BASE64_STANDARD.encode(hmac::sign(&key, text.join("\n").as_bytes()));
        let mut url = reqwest::Url::parse(&self.url()).unwrap();
        url.query_pairs_mut()
            .extend_pairs([("sv", version), ("sr", resource), ("sp", permissions), ("se", &expiry)])
            .append_pair("sig", &signature);
        url.into()
    }

    /// The blob with this name, read with the account key.
    pub(crate) async fn get(&self, name: &str) -> Option<Blob> {
        let response = self.request(Method::GET, &format!("/{name}")).await;
        if response.status() == 404 {
            return None;
        }
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
        let (content_type, kind) = (header("content-type"), header("x-ms-blob-type"));
        Some(Blob { bytes: response.into_body().bytes().await.unwrap(), content_type, kind })
    }

    /// The container as a store, with the account key.
    pub(crate) fn store(&self) -> MicrosoftAzure {
        let Azurite { scheme, port, .. } = self.azurite;
        MicrosoftAzureBuilder::new()
            .with_endpoint(format!("{scheme}://127.0.0.1:{port}/{ACCOUNT}"))
            .with_allow_http(true)
            .with_account(ACCOUNT)
            .with_access_key(KEY)
            .with_container_name(&self.name)
            .build()
            .unwrap()
    }

    /// The names and lengths of all blobs, listed with the account key.
    pub(crate) async fn list(&self) -> BTreeMap<String, u64> {
        let (mut blobs, mut marker) = (BTreeMap::new(), String::new());
        loop {
            let response = self.request(Method::GET, &format!("?restype=container&comp=list{marker}")).await;
            assert_eq!(response.status(), 200);
            let page = response.into_body().bytes().await.unwrap();
            let page = std::str::from_utf8(&page).unwrap();
            for blob in page.split("<Blob>").skip(1) {
                let of = |element: &str| within(blob, element).unwrap();
                blobs.insert(of("Name").to_owned(), of("Content-Length").parse().unwrap());
            }
            match within(page, "NextMarker") {
                None | Some("") => return blobs,
                Some(next) => marker = format!("&marker={next}"),
            }
        }
    }

    async fn request(&self, method: Method, rest: &str) -> HttpResponse {
        let mut request = HttpRequest::new(Bytes::new().into());
        *request.method_mut() = method;
        *request.uri_mut() = format!("{}{rest}", self.url()).parse().unwrap();
        request.headers_mut().insert("content-length", 0.into());
        let credential = AzureCredential::AccessKey(AzureAccessKey::try_new(KEY).unwrap());
        AzureAuthorizer::new(&credential, ACCOUNT).try_authorize(&mut request).unwrap();
        HttpClient::new(self.azurite.http.clone()).execute(request).await.unwrap()
    }
}

/// The text of the first XML element with this name. The listings contain no escapes.
fn within<'a>(xml: &'a str, element: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{element}>"))?;
    rest.split_once(&format!("</{element}>")).map(|(text, _)| text)
}
