//! Azurite, Azure Blob Storage's emulator, on a port of its own. `tests/run.sh` installs it.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

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

pub(crate) const ACCOUNT: &str = "devstoreaccount1";
pub(crate) const KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Runs the command of its arguments until its own standard input ends: that is when whoever started it is gone, in
/// whatever way.
const LEASH: &str = r#""$@" </dev/null & trap "kill $!" EXIT; trap exit HUP INT TERM; cat >/dev/null"#;

/// A running server; it ends with this value, and with the test process at the latest.
pub(crate) struct Azurite {
    process: Child,
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

    /// A server of the test's own.
    pub(crate) fn new() -> Self {
        // A kept connection would belong to the runtime of the test that opened it, which may end before this does.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
        Self::start("http", &[], http)
    }

    /// A server by https that takes bearer tokens, and the certificate of who signed its own, as PEM.
    pub(crate) fn with_tokens() -> (Self, String) {
        let folder = tempfile::tempdir().unwrap();
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
        let azurite = Self::start("https", &["--oauth", "basic", "--cert", certificate, "--key", key], http);
        // It reads both when it starts, and then it answers.
        (azurite, root)
    }

    fn start(scheme: &'static str, arguments: &[&str], http: reqwest::Client) -> Self {
        let program =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/.tools/node_modules/.bin/azurite-blob");
        assert!(program.exists(), "Azurite is not installed: run tests/run.sh");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new("sh")
            .args(["-c", LEASH, "sh"])
            .arg(program)
            .args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--inMemoryPersistence"])
            .args(["--skipApiVersionCheck", "--disableTelemetry", "--silent"])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let azurite = Self { process, scheme, port, http };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !azurite.answers() {
            assert!(Instant::now() < deadline, "Azurite does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        azurite
    }

    /// By https any answer at all will do: the handshake's refusal of a plain request is one.
    fn answers(&self) -> bool {
        let Ok(mut connection) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let asked = connection.write_all(b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n");
        let mut answer = Vec::new();
        asked.and_then(|()| connection.read_to_end(&mut answer)).is_ok() && !answer.is_empty()
            || self.scheme == "https"
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A new, empty container.
    pub(crate) async fn container(&self) -> Container<'_> {
        let container = self.missing_container();
        let answer = container.request(Method::PUT, "?restype=container").await;
        assert_eq!(answer.status(), 201);
        container
    }

    /// A container that nobody has created.
    pub(crate) fn missing_container(&self) -> Container<'_> {
        Container { azurite: self, name: format!("test-{}", uuid::Uuid::new_v4()) }
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        // Ends the leash.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
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

    /// The account's connection string with this in it: a key or a SAS.
    pub(crate) fn connection_string(&self, credential: &str) -> String {
        let Azurite { scheme, port, .. } = self.azurite;
        format!("BlobEndpoint={scheme}://127.0.0.1:{port}/{ACCOUNT};{credential}")
    }

    pub(crate) fn url(&self) -> String {
        let Azurite { scheme, port, .. } = self.azurite;
        format!("{scheme}://127.0.0.1:{port}/{ACCOUNT}/{}", self.name)
    }

    /// The container's URL with a SAS for just these permissions, good for an hour.
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

    /// The blob of this name, read with the account's key.
    pub(crate) async fn get(&self, name: &str) -> Option<Blob> {
        let answer = self.request(Method::GET, &format!("/{name}")).await;
        if answer.status() == 404 {
            return None;
        }
        assert_eq!(answer.status(), 200);
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        let (content_type, kind) = (header("content-type"), header("x-ms-blob-type"));
        Some(Blob { bytes: answer.into_body().bytes().await.unwrap(), content_type, kind })
    }

    /// The container as a store, with the account's key.
    pub(crate) fn store(&self) -> MicrosoftAzure {
        let Azurite { scheme, port, http: _, process: _ } = self.azurite;
        MicrosoftAzureBuilder::new()
            .with_endpoint(format!("{scheme}://127.0.0.1:{port}/{ACCOUNT}"))
            .with_allow_http(true)
            .with_account(ACCOUNT)
            .with_access_key(KEY)
            .with_container_name(&self.name)
            .build()
            .unwrap()
    }

    /// Every blob's name and length, listed with the account's key.
    pub(crate) async fn list(&self) -> BTreeMap<String, u64> {
        let (mut blobs, mut marker) = (BTreeMap::new(), String::new());
        loop {
            let answer = self.request(Method::GET, &format!("?restype=container&comp=list{marker}")).await;
            assert_eq!(answer.status(), 200);
            let page = answer.into_body().bytes().await.unwrap();
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

/// The text of the first XML element of this name; nothing in the listings here is escaped.
fn within<'a>(xml: &'a str, element: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{element}>"))?;
    rest.split_once(&format!("</{element}>")).map(|(text, _)| text)
}
