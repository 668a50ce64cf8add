//! [`BaseUrl`]: how links begin.

use axum::http::header::{FORWARDED, HOST, HeaderName};
use axum::http::request::Parts;
use axum::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use axum::http::{HeaderMap, StatusCode};

use crate::error::{Error, ErrorKind, Result};
use crate::http::problem::Problem;

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How `href` and `Location` begin: what stands before the path at which this process sees a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BaseUrl {
    /// From the request: its `Host`, and `http` unless the request's own target says otherwise (as it does over HTTP/2).
    /// A server that ends TLS itself configures a base URL instead.
    Request,
    /// From `Forwarded` (RFC 7239: `host`, `proto`) or else from `X-Forwarded-Host`, `-Proto` and `-Prefix`, where they
    /// are there, the first element of each; then as [`Request`](Self::Request). Only behind a proxy that replaces what
    /// clients send under these names: whoever sends them decides where the links of the answer lead.
    Forwarded,
    /// This one; see [`BaseUrl::configured`].
    Configured(ConfiguredBaseUrl),
}

/// A base URL that has been checked; see [`BaseUrl::configured`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredBaseUrl(String);

impl BaseUrl {
    /// A fixed one, `https://pacs.example/dicom` say: the URL at which clients find this process's `/`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] unless it is an absolute http or https URL without user, query and fragment.
    pub fn configured(url: &str) -> Result<Self> {
        let fault =
            || Error::new(ErrorKind::Invalid, "a base URL is an absolute http or https URL without a query");
        let uri: Uri = url.parse().map_err(|cause| fault().with_source(cause))?;
        let web = uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS);
        let host = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
        match web && host && uri.query().is_none() && !url.contains('#') {
            true => Ok(Self::Configured(ConfiguredBaseUrl(url.trim_end_matches('/').to_owned()))),
            false => Err(fault()),
        }
    }

    /// What stands before the path of this request, without a slash at its end.
    pub(super) fn of(&self, parts: &Parts) -> Result<String, Problem> {
        let (forwarded, prefix) = match self {
            Self::Configured(base) => return Ok(base.0.clone()),
            Self::Request => (Forwarded::default(), None),
            Self::Forwarded => (Forwarded::read(&parts.headers), prefix(&parts.headers)),
        };
        let host = forwarded.host.or_else(|| header(&parts.headers, &HOST).and_then(authority));
        let host = host.or_else(|| parts.uri.authority().cloned()).ok_or_else(|| {
            Problem::new(StatusCode::BAD_REQUEST).with_detail("the request names no host in 'Host'")
        })?;
        let scheme = forwarded.scheme.or_else(|| parts.uri.scheme().cloned()).unwrap_or(Scheme::HTTP);
        Ok(format!("{scheme}://{host}{}", prefix.unwrap_or_default()))
    }
}

/// What a proxy says of the request that it got.
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
        let mut found = Self::default();
        for (name, value) in pairs(element) {
            if name.eq_ignore_ascii_case("proto") {
                found.scheme = scheme(&value);
            } else if name.eq_ignore_ascii_case("host") {
                found.host = authority(&value);
            }
        }
        found
    }
}

/// The `name=value` pairs of the first element of a `Forwarded` header (RFC 7239 4); values may be quoted strings.
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

/// A quoted string's text (RFC 9110 5.6.4), and what follows the closing quote.
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
    // `//elsewhere` would lead to another host.
    let sound = path.path().starts_with('/') && !path.path().starts_with("//") && path.query().is_none();
    sound.then(|| path.path().trim_end_matches('/').to_owned())
}
