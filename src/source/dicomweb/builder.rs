//! [`DicomWebSourceBuilder`]: configures a [`DicomWebSource`].

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Url, redirect};

use super::client::{Client, ClientConfig, HttpClients};
use super::credentials::DicomWebCredentials;
use super::read_ahead::DEFAULT_CAPACITY;
use super::source::DicomWebSource;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections are closed before the server closes them (Orthanc: after a second), because a request on a
/// connection that the server is closing fails and is repeated.
const IDLE_TIMEOUT: Duration = Duration::from_millis(900);

/// Configures a [`DicomWebSource`]; created by [`DicomWebSource::builder`].
///
/// ```
/// use std::time::Duration;
/// use dicom_export::source::{DicomWebCredentials, DicomWebSource};
///
/// # fn main() -> dicom_export::Result<()> {
/// let source = DicomWebSource::builder("https://pacs.example/dicom-web")
///     .credentials(DicomWebCredentials::bearer("token"))
///     .concurrency(4)
///     .page_size(1000)
///     .timeout(Duration::from_secs(120))
///     .build()?;
/// # _ = source;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct DicomWebSourceBuilder {
    service_root: String,
    credentials: DicomWebCredentials,
    headers: Vec<(String, Secret)>,
    root_certificates: Vec<Vec<u8>>,
    max_queries: usize,
    max_retrievals: usize,
    page_size: usize,
    read_ahead: u64,
    timeout: Duration,
}

impl DicomWebSource {
    /// Starts to configure a source for the DICOMweb service at this root, for example
    /// `https://pacs.example/dicom-web`.
    pub fn builder(service_root: impl Into<String>) -> DicomWebSourceBuilder {
        DicomWebSourceBuilder::new(service_root.into())
    }
}

impl DicomWebSourceBuilder {
    pub(super) fn new(service_root: String) -> Self {
        Self {
            service_root,
            credentials: DicomWebCredentials::anonymous(),
            headers: Vec::new(),
            root_certificates: Vec::new(),
            max_queries: 8,
            max_retrievals: 32,
            page_size: 200,
            read_ahead: DEFAULT_CAPACITY,
            timeout: Duration::from_secs(60),
        }
    }

    /// Sets the credentials. Default: [anonymous](DicomWebCredentials::anonymous).
    pub fn credentials(mut self, credentials: DicomWebCredentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// Adds a header to every request to the server, for example an API key. The value is treated as a secret.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), Secret::new(value)));
        self
    }

    /// Adds root certificates in PEM format to those of the system. One call may add several.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.root_certificates.push(pem.into());
        self
    }

    /// Sets the maximum number of concurrent retrievals, at least 1. Default: 32. Content that is open counts until it is
    /// read to its end or dropped, so a higher concurrency of the engine has no effect.
    pub fn concurrency(mut self, retrievals: usize) -> Self {
        self.max_retrievals = retrievals;
        self
    }

    /// Sets the maximum number of concurrent queries, at least 1. Default: 8. Retrievals are counted separately.
    pub fn listing_concurrency(mut self, queries: usize) -> Self {
        self.max_queries = queries;
        self
    }

    /// Sets the `limit` of queries in rows, at least 1. Default: 200, the maximum of Azure's DICOM service. A higher value
    /// lists faster if the server supports it.
    pub fn page_size(mut self, rows: usize) -> Self {
        self.page_size = rows.max(1);
        self
    }

    /// Sets how many bytes of small instances may be read before they are opened. Default: 16 MiB; with 0, each instance is
    /// retrieved on its own.
    ///
    /// A study with at least 16 instances is retrieved as a whole, with one request, when one of its instances has at most
    /// 128 KiB; so is a series in an export by identifiers. What the response contains is used only if each part states its length; other instances, and all after an
    /// error, are retrieved on their own. The memory comes in addition to the engine's memory budget.
    pub fn read_ahead(mut self, bytes: u64) -> Self {
        self.read_ahead = bytes;
        self
    }

    /// Sets the time within which the server must start a response, and the longest pause within a response.
    /// Default: 60 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Builds the source. Sends no request.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the service root is not an http or https URL, or has a user, a query or a fragment; or if
    /// a header, a certificate or the credentials are invalid.
    pub fn build(self) -> Result<DicomWebSource> {
        let root = parse_service_root(&self.service_root)?;
        self.credentials.check()?;
        let headers = parse_headers(&self.headers)?;
        let has_secrets = !self.credentials.is_anonymous() || !headers.is_empty();
        if root.scheme() == "http" && has_secrets && !is_local(&root) {
            tracing::warn!(
                "credentials for a DICOMweb server cross the network unencrypted: its URL is http"
            );
        }
        let certificates = parse_certificates(&self.root_certificates)?;
        let invalid = |cause: reqwest::Error| {
            Error::new(ErrorKind::Invalid, "the HTTP client for the DICOMweb server cannot be created")
                .with_source(cause.without_url())
        };
        let https = http_client().tls_certs_merge(certificates).build().map_err(invalid)?;
        let http = http_client().no_proxy().build().map_err(invalid)?;
        let client = Client::new(ClientConfig {
            clients: HttpClients { https, http },
            root,
            credentials: self.credentials,
            headers,
            max_queries: self.max_queries,
            max_retrievals: self.max_retrievals,
            timeout: self.timeout,
        });
        Ok(DicomWebSource::new(client, self.page_size, self.read_ahead))
    }
}

fn parse_service_root(text: &str) -> Result<Url> {
    let invalid = |message| Error::new(ErrorKind::Invalid, message);
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| invalid("the DICOMweb service root is not an http or https URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("the DICOMweb service root contains a user; pass credentials separately"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("the DICOMweb service root contains a query or a fragment"));
    }
    Ok(url)
}

fn parse_headers(given: &[(String, Secret)]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let invalid = || Error::new(ErrorKind::Invalid, "an extra header for the DICOMweb server is invalid");
        let name = HeaderName::try_from(name.as_str()).map_err(|_| invalid())?;
        let mut value = HeaderValue::try_from(value.expose()).map_err(|_| invalid())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

fn http_client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        // The source follows redirects itself: reqwest would send the extra headers to other hosts.
        .redirect(redirect::Policy::none())
        .referer(false)
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
}

fn parse_certificates(given: &[Vec<u8>]) -> Result<Vec<Certificate>> {
    let mut certificates = Vec::new();
    for pem in given {
        let bundle = Certificate::from_pem_bundle(pem).map_err(|_| invalid_certificate())?;
        if bundle.is_empty() {
            return Err(invalid_certificate());
        }
        certificates.extend(bundle);
    }
    Ok(certificates)
}

fn is_local(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn invalid_certificate() -> Error {
    Error::new(ErrorKind::Invalid, "a root certificate for the DICOMweb server is not PEM")
}

impl fmt::Debug for DicomWebSourceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        // The service root is omitted: until it is checked, it may contain a user.
        f.debug_struct("DicomWebSourceBuilder")
            .field("credentials", &self.credentials)
            .field("headers", &headers)
            .field("page_size", &self.page_size)
            .finish_non_exhaustive()
    }
}
