//! [`DicomWebSourceBuilder`]: how to reach a server, and how hard to work it.

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Url, redirect};
use secrecy::{ExposeSecret, SecretString};

use super::DicomWebSource;
use super::client::{Client, Parts};
use super::credentials::DicomWebCredentials;
use crate::error::{Error, ErrorKind, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Idle connections are closed before servers do it, Orthanc after a second: one that the server closes at the moment
/// it is used again costs a repeated request.
const IDLE: Duration = Duration::from_millis(900);

/// Settings of a [`DicomWebSource`]; made by [`DicomWebSource::builder`].
#[derive(Clone)]
pub struct DicomWebSourceBuilder {
    root: String,
    credentials: DicomWebCredentials,
    headers: Vec<(String, SecretString)>,
    roots: Vec<Vec<u8>>,
    listing: usize,
    reading: usize,
    page_size: usize,
    patience: Duration,
}

impl DicomWebSourceBuilder {
    pub(super) fn new(root: String) -> Self {
        Self {
            root,
            credentials: DicomWebCredentials::anonymous(),
            headers: Vec::new(),
            roots: Vec::new(),
            listing: 8,
            reading: 16,
            page_size: 200,
            patience: Duration::from_secs(60),
        }
    }

    /// Who asks. Default: nobody in particular.
    pub fn credentials(mut self, credentials: DicomWebCredentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// An extra header for every request to the server, an API key say. Its value is treated as a secret.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<SecretString>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// A root certificate to trust besides the system's, as PEM; a bundle may hold several.
    pub fn root_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots.push(pem.into());
        self
    }

    /// How many instances are read at once, at least 1. Default: 16. A content that is open holds its place until it
    /// has been read or dropped, so that the engine's concurrency has no effect beyond this.
    pub fn concurrency(mut self, reading: usize) -> Self {
        self.reading = reading;
        self
    }

    /// How many queries run at once, besides the instances that are read, at least 1. Default: 8.
    pub fn listing_concurrency(mut self, listing: usize) -> Self {
        self.listing = listing;
        self
    }

    /// The `limit` of a query, at least 1. Default: 200, which is the most that Azure's service takes. A server that
    /// takes more lists faster by it.
    pub fn page_size(mut self, limit: usize) -> Self {
        self.page_size = limit.max(1);
        self
    }

    /// How long the server may take to begin an answer, and how long it may pause in it. Default: 60 seconds.
    pub fn timeout(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// The source. It makes no request.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when the service root is no http or https URL, or has a user, a query or a fragment;
    /// when a header, a certificate or the credentials cannot be used.
    pub fn build(self) -> Result<DicomWebSource> {
        let root = service_root(&self.root)?;
        self.credentials.check()?;
        let headers = headers(&self.headers)?;
        let secret = !self.credentials.is_anonymous() || !headers.is_empty();
        if root.scheme() == "http" && secret && !is_local(&root) {
            tracing::warn!(
                "credentials for a DICOMweb server cross the network unencrypted: its URL is http"
            );
        }
        let mut http = reqwest::Client::builder()
            // Redirects are followed by the source itself: reqwest would take extra headers along to another host.
            .redirect(redirect::Policy::none())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE)
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")));
        for pem in &self.roots {
            let certificates = Certificate::from_pem_bundle(pem).map_err(|_| bad_certificate())?;
            if certificates.is_empty() {
                return Err(bad_certificate());
            }
            http = http.tls_certs_merge(certificates);
        }
        let unusable = |cause: reqwest::Error| {
            Error::new(ErrorKind::Invalid, "the DICOMweb client cannot be set up")
                .with_source(cause.without_url())
        };
        let client = Client::new(Parts {
            http: http.build().map_err(unusable)?,
            root,
            credentials: self.credentials,
            headers,
            listing: self.listing,
            reading: self.reading,
            patience: self.patience,
        });
        Ok(DicomWebSource::new(client, self.page_size))
    }
}

fn service_root(text: &str) -> Result<Url> {
    let invalid = |message| Error::new(ErrorKind::Invalid, message);
    let url = Url::parse(text.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    let url = url.ok_or_else(|| invalid("the DICOMweb service root is no http or https URL"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("the DICOMweb service root carries a user; credentials are given apart from it"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(invalid("the DICOMweb service root has a query or a fragment"));
    }
    Ok(url)
}

fn headers(given: &[(String, SecretString)]) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let unusable = || Error::new(ErrorKind::Invalid, "an extra header for the server cannot be used");
        let name = HeaderName::try_from(name.as_str()).map_err(|_| unusable())?;
        let mut value = HeaderValue::try_from(value.expose_secret()).map_err(|_| unusable())?;
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

fn is_local(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn bad_certificate() -> Error {
    Error::new(ErrorKind::Invalid, "a root certificate for the server is not PEM")
}

impl fmt::Debug for DicomWebSourceBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        // The root is left out: it may carry a user until it is checked.
        f.debug_struct("DicomWebSourceBuilder")
            .field("credentials", &self.credentials)
            .field("headers", &headers)
            .field("page_size", &self.page_size)
            .finish_non_exhaustive()
    }
}
