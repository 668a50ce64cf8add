//! Taking container and endpoint URIs apart, without the leniency of browsers.

use url::Url;

use crate::error::{Error, Result};

/// A URI without query: where it leads, and the segments of its path.
pub(crate) struct PlainUri<'a> {
    /// Scheme, host and port, with `/` as the path.
    pub(crate) origin: Url,
    /// The path's segments; one trailing slash is dropped.
    pub(crate) segments: Vec<&'a str>,
}

impl<'a> PlainUri<'a> {
    /// Reads `http[s]://<host>[:<port>][/<segment>]…`; `at` is the property it stands in, for errors.
    ///
    /// A URL parser would drop tabs, turn `\` into `/`, resolve `..` and decode `%` before anybody looked. None of these
    /// belongs in such a URI, so they are refused, and what is checked is what is sent.
    pub(crate) fn read(text: &'a str, at: &str) -> Result<Self> {
        let refused = |fault: &str| Error::invalid(at, format!("'{at}' {fault}"));
        if text.contains('@') {
            return Err(refused("has a user part"));
        }
        if text.contains('#') {
            return Err(refused("has a fragment"));
        }
        let belongs = |c: char| c.is_ascii_alphanumeric() || "-._:/[]$".contains(c);
        if !text.chars().all(belongs) {
            return Err(refused("has a character that does not belong in it"));
        }
        let no_uri = || refused("must be an absolute https URI");
        let (scheme, rest) = text.split_once("://").ok_or_else(no_uri)?;
        if !["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(no_uri());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(no_uri());
        }
        let origin = Url::parse(&format!("{scheme}://{authority}/")).map_err(|_| no_uri())?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
        Ok(Self { origin, segments })
    }
}

/// Whether it is a name that Azure gives containers, but for the special ones that begin with `$`: 3 to 63 lower-case
/// letters, digits and single hyphens, beginning and ending in a letter or digit ("Naming and referencing containers,
/// blobs, and metadata", Azure Blob Storage REST API).
pub(crate) fn is_container_name(name: &str) -> bool {
    matches!(name.len(), 3..=63)
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

/// Whether it can be an account in a path. The clouds ask for 3 to 24 letters and digits; emulators are not so strict.
pub(crate) fn is_account_name(name: &str) -> bool {
    matches!(name.len(), 1..=63)
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}
