//! JSON pointers (RFC 6901) in messages.

/// The name of the property at a pointer, for messages.
pub(crate) fn property(pointer: &str) -> String {
    match pointer {
        "" => "the document".to_owned(),
        _ => format!("'{pointer}'"),
    }
}

/// Whether a name may be part of messages and `Debug`. A name that is long, or has characters that a misspelled name
/// would not have, may be a misplaced credential: a URI with a SAS, or a connection string.
pub(crate) fn is_shown(name: &str) -> bool {
    const MAX_SHOWN: usize = 40;
    name.len() <= MAX_SHOWN && name.chars().all(|c| c.is_alphanumeric() || " _-.$/~".contains(c))
}

/// The pointer of a member.
pub(super) fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}
