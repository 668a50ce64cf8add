//! Converts paths relative to the root to text and back.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, percent_encode};

/// The ASCII characters that are escaped, besides all non-ASCII bytes.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');

/// Encodes a relative path: its names joined by `/`, percent-encoded so that names in any encoding are preserved.
///
/// Returns `None` for a path with components other than names, or with a name that has no byte form on this system.
pub(super) fn encode(path: &Path) -> Option<String> {
    let mut text = String::new();
    for component in path.components() {
        let Component::Normal(name) = component else { return None };
        if !text.is_empty() {
            text.push('/');
        }
        text.extend(percent_encode(bytes(name)?, ESCAPED));
    }
    (!text.is_empty()).then_some(text)
}

/// Decodes a path that [`encode`] wrote. Returns `None` for any other text, including paths that leave the root.
pub(super) fn decode(text: &str) -> Option<PathBuf> {
    let path = text
        .split('/')
        .map(|name| os_string(percent_decode_str(name).collect()))
        .collect::<Option<PathBuf>>()?;
    // A decoded name may contain a separator or be `..`.
    (encode(&path)? == text).then_some(path)
}

/// Returns a key for a relative path. Keys have the order of paths: names are compared one by one.
pub(super) fn to_key(path: &Path) -> Option<Vec<u8>> {
    let mut key = Vec::new();
    for component in path.components() {
        let Component::Normal(name) = component else { return None };
        if !key.is_empty() {
            key.push(0);
        }
        key.extend(bytes(name)?);
    }
    Some(key)
}

/// Returns the path of a key.
pub(super) fn from_key(key: &[u8]) -> Option<PathBuf> {
    key.split(|byte| *byte == 0).map(|name| os_string(name.to_vec())).collect()
}

#[cfg(unix)]
fn bytes(name: &OsStr) -> Option<&[u8]> {
    Some(std::os::unix::ffi::OsStrExt::as_bytes(name))
}

#[cfg(unix)]
pub(super) fn os_string(bytes: Vec<u8>) -> Option<std::ffi::OsString> {
    Some(std::os::unix::ffi::OsStringExt::from_vec(bytes))
}

#[cfg(not(unix))]
fn bytes(name: &OsStr) -> Option<&[u8]> {
    name.to_str().map(str::as_bytes)
}

#[cfg(not(unix))]
pub(super) fn os_string(bytes: Vec<u8>) -> Option<std::ffi::OsString> {
    String::from_utf8(bytes).ok().map(Into::into)
}
