//! [`BaseUrl`]: the first part of the URLs in responses.

use axum::http::header::{FORWARDED, HOST, HeaderName};
use axum::http::request::Parts;
use axum::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use axum::http::{HeaderMap, StatusCode};

use crate::error::{Error, ErrorKind, Result};
use crate::http::problem::Problem;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The first part of the URLs in `href` and `Location`: everything before the path that this process receives.
///
/// ```
/// use dicom_export::http::BaseUrl;
///
/// assert!(BaseUrl::configured("https://pacs.example/dicom").is_ok());
/// assert!(BaseUrl::configured("pacs.example").is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseUrl {
    /// Taken from the request: its `Host`, and the scheme of its target (HTTP/2) or else `http`. A server that
    /// terminates TLS itself configures a base URL instead.
    Request,
    /// Taken from the first element of `Forwarded` (RFC 7239: `host`, `proto`), or else of `X-Forwarded-Host`, `-Proto`
    /// and `-Prefix`; parts that are missing are taken as in [`Request`](Self::Request). Use it only behind a proxy
    /// that replaces these headers: their sender decides where the links of the response lead.
    Forwarded,
    /// A fixed URL; see [`BaseUrl::configured`].
    Configured(ConfiguredBaseUrl),
}

/// A validated base URL; see [`BaseUrl::configured`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredBaseUrl(String);

impl BaseUrl {
    /// A fixed URL, for example `https://pacs.example/dicom`: the URL at which clients reach this process's `/`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] unless it is an absolute http or https URL without user information, query and fragment.
    pub fn configured(url: &str) -> Result<Self> {
        let invalid = || {
            Error::new(ErrorKind::Invalid, "a base URL must be an absolute http or https URL without a query")
        };
        let uri: Uri = url.parse().map_err(|cause| invalid().with_source(cause))?;
        let is_http = uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        let has_plain_host = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        match is_http && has_plain_host && uri.query().is_none() && !url.contains('#') {
            true => Ok(Self::Configured(ConfiguredBaseUrl(url.trim_end_matches('/').to_owned()))),
            false => Err(invalid()),
        }
    }

    /// The URL before the path of this request, without a trailing slash.
    pub(super) fn of(&self, parts: &Parts) -> Result<String, Problem> {
        let (forwarded, prefix) = match self {
            Self::Configured(base) => return Ok(base.0.clone()),
            Self::Request => (Forwarded::default(), None),
            Self::Forwarded => (Forwarded::read(&parts.headers), prefix(&parts.headers)),
        };
        let host = forwarded.host.or_else(|| header(&parts.headers, &HOST).and_then(authority));
        let host = host.or_else(|| parts.uri.authority().cloned()).ok_or_else(|| {
            Problem::new(StatusCode::BAD_REQUEST).with_detail("the request has no 'Host' header")
        })?;
        let scheme = forwarded.scheme.or_else(|| parts.uri.scheme().cloned()).unwrap_or(Scheme::HTTP);
        Ok(format!("{scheme}://{host}{}", prefix.unwrap_or_default()))
    }
}

/// The scheme and host that a proxy received.
#[derive(Default)]
struct Forwarded {
    scheme: Option<Scheme>,
    host: Option<Authority>,
}

impl Forwarded {
    fn read(headers: &HeaderMap) -> Self {
        let Some(element) = header(headers, &FORWARDED) else {
            return Self {
                scheme: first(headers, &X_FORWARDED_PROTO).and_then(scheme),
                host: first(headers, &X_FORWARDED_HOST).and_then(authority),
            };
        };
        let mut forwarded = Self::default();
        for (name, value) in pairs(element) {
            if name.eq_ignore_ascii_case("proto") {
                forwarded.scheme = scheme(&value);
            } else if name.eq_ignore_ascii_case("host") {
                forwarded.host = authority(&value);
            }
        }
        forwarded
    }
}

/// The `name=value` pairs of the first element of a `Forwarded` header (RFC 7239, section 4); values may be quoted strings.
fn pairs(element: &str) -> Vec<(&str, String)> {
    let (mut pairs, mut rest) = (Vec::new(), element);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, end) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted),
            None => {
                let end = after.find([';', ',']).unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        pairs.push((name.trim(), value));
        match end.trim_start().strip_prefix(';') {
            Some(next) => rest = next,
            None => break,
        }
    }
    pairs
}

/// The text of a quoted string (RFC 9110, section 5.6.4), and the rest after its closing quote.
fn unquote(quoted: &str) -> (String, &str) {
    let (mut text, mut escaped) = (String::new(), false);
    for (at, character) in quoted.char_indices() {
        match character {
            '\\' if !escaped => escaped = true,
            '"' if !escaped => return (text, &quoted[at + 1..]),
            _ => {
                text.push(character);
                escaped = false;
            }
        }
    }
    (text, "")
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The first of a header's comma-separated values.
fn first<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    header(headers, name).and_then(|value| value.split(',').next()).map(str::trim)
}

fn scheme(text: &str) -> Option<Scheme> {
    text.to_ascii_lowercase()
        .parse()
        .ok()
        .filter(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
}

fn authority(text: &str) -> Option<Authority> {
    text.parse::<Authority>().ok().filter(|authority| !authority.as_str().contains('@'))
}

fn prefix(headers: &HeaderMap) -> Option<String> {
    let path: PathAndQuery = first(headers, &X_FORWARDED_PREFIX)?.parse().ok()?;
    // `//host` would lead to another host.
    let is_local = path.path().starts_with('/') && !path.path().starts_with("//") && path.query().is_none();
    is_local.then(|| path.path().trim_end_matches('/').to_owned())
}
