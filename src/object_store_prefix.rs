//! [`parse_prefix`] and [`parse_key`]: keys in a store, and how they begin.

use ::object_store::path::Path;

/// Reads a prefix such as `a/b`. Returns `None` if it contains other characters than letters, digits and `-._~/` (RFC 3986
/// 2.3), or an empty segment, `.` or `..`.
pub(crate) fn parse_prefix(text: &str) -> Option<Path> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    Path::parse(text).ok().filter(|_| text.bytes().all(is_allowed))
}

/// Reads a key. Returns `None` if it is empty or has an empty segment, `.`, `..` or a control character.
pub(crate) fn parse_key(text: &str) -> Option<Path> {
    Path::parse(text).ok().filter(|path| !path.is_root())
}
