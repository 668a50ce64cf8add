//! The names of files that are being written, which the directory sink creates and the directory source ignores.

use std::ffi::OsStr;

use uuid::Uuid;

/// Creates the name of a hidden file: `.<32 hexadecimal digits>.part`.
pub(crate) fn partial_file_name() -> String {
    format!(".{}.part", Uuid::new_v4().simple())
}

/// Whether a file has a name that [`partial_file_name`] creates.
pub(crate) fn is_partial_file_name(name: &OsStr) -> bool {
    let stem = name.to_str().and_then(|name| name.strip_prefix('.')?.strip_suffix(".part"));
    stem.is_some_and(|stem| stem.len() == 32 && stem.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_file_names_are_recognized() {
        assert!(is_partial_file_name(partial_file_name().as_ref()));
        for name in ["1.part", ".part", ".0123.part", "0123456789abcdef0123456789abcdef.part", ".hidden"] {
            assert!(!is_partial_file_name(name.as_ref()), "{name}");
        }
    }
}
