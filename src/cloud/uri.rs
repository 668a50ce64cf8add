//! [`PlainUri`]: a URI that is taken literally.

use url::Url;

use crate::error::{Error, Result};

/// A URI without query, split into its origin and path.
pub(crate) struct PlainUri<'a> {
    /// Scheme, host and port, with `/` as the path.
    pub(crate) origin: Url,
    /// The path's segments; one trailing slash is dropped.
    pub(crate) segments: Vec<&'a str>,
}

impl<'a> PlainUri<'a> {
    /// Parses `http[s]://<host>[:<port>][/<segment>]…`; `at` is the pointer of the property, for errors.
    ///
    /// A URL parser drops tabs, turns `\` into `/`, resolves `..` and decodes `%`, so the URI that is checked could differ
    /// from the one that is sent. Such characters are errors here.
    pub(crate) fn parse(text: &'a str, at: &str) -> Result<Self> {
        let invalid = |fault: &str| Error::invalid(at, format!("'{at}' {fault}"));
        if text.contains('@') {
            return Err(invalid("has a user part"));
        }
        if text.contains('#') {
            return Err(invalid("has a fragment"));
        }
        if !text.chars().all(|c| c.is_ascii_alphanumeric() || "-._:/[]$".contains(c)) {
            return Err(invalid("has a character that is not allowed in it"));
        }
        let not_absolute = || invalid("must be an absolute https URI");
        let (scheme, rest) = text.split_once("://").ok_or_else(not_absolute)?;
        if !["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(not_absolute());
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.is_empty() {
            return Err(not_absolute());
        }
        let origin = Url::parse(&format!("{scheme}://{authority}/")).map_err(|_| not_absolute())?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let segments = if path.is_empty() { Vec::new() } else { path.split('/').collect() };
        Ok(Self { origin, segments })
    }
}
