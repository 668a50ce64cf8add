//! Reads the lines of an index.

use serde::Deserialize;

use super::table::Line;
use crate::model::{InstanceIdentifier, Uid};
use crate::object_store_prefix::parse_key;

/// The longest line that is read, in bytes.
pub(super) const MAX_LINE_LENGTH: usize = 64 << 10;

const NOT_AN_ENTRY: &str = "is not a JSON object with the strings 'identifier' and 'path'";
const INVALID_IDENTIFIER: &str = "has no valid identifier of an instance";
const INVALID_PATH: &str = "has no valid path";
const INVALID_SIZE: &str = "has no valid size";
pub(super) const TOO_LONG: &str = "is longer than 64 KiB";

/// The members of a line that are read. There may be others.
#[derive(Deserialize)]
struct Members {
    identifier: String,
    path: String,
    size: Option<Size>,
    etag: Option<String>,
}

/// A size. Databases also write 64-bit numbers as strings.
#[derive(Deserialize)]
#[serde(untagged)]
enum Size {
    Number(u64),
    Text(String),
}

/// Reads a line without its end. Returns `None` for an empty one.
pub(super) fn parse_line(text: &[u8]) -> Option<Line> {
    if text.trim_ascii().is_empty() {
        return None;
    }
    // The cause is left out: serde's message quotes the line.
    let Ok(members) = serde_json::from_slice::<Members>(text) else {
        return Some(Line::Broken { known: String::new(), fault: NOT_AN_ENTRY.into() });
    };
    let Ok(identifier) = members.identifier.parse::<InstanceIdentifier>() else {
        return Some(Line::Broken {
            known: known_part(&members.identifier),
            fault: INVALID_IDENTIFIER.into(),
        });
    };
    let size = match members.size {
        None => Ok(None),
        Some(Size::Number(size)) => Ok(Some(size)),
        Some(Size::Text(text)) => text.parse().map(Some),
    };
    let fault = match (parse_key(&members.path), size) {
        (Some(_), Ok(size)) => {
            return Some(Line::Instance { identifier, path: members.path, size, etag: members.etag });
        }
        (None, _) => INVALID_PATH,
        (_, Err(_)) => INVALID_SIZE,
    };
    Some(Line::Broken { known: identifier.to_string(), fault: fault.into() })
}

/// The UIDs of the study and the series, as far as they are valid.
fn known_part(text: &str) -> String {
    let valid: Vec<_> = text.split('/').take(2).map_while(|uid| Uid::new(uid).ok()).collect();
    valid.iter().map(Uid::as_str).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(text: &str) -> (String, String) {
        match parse_line(text.as_bytes()) {
            Some(Line::Broken { known, fault }) => (known, fault.into_owned()),
            _ => panic!("{text} is not broken"),
        }
    }

    #[test]
    fn lines_have_an_identifier_and_a_path_and_any_other_members() {
        let line = |more: &str| format!(r#"{{"path":"a b/ü.dcm","identifier":"1.2/3.4/5.6"{more}}}"#);
        for (more, expected_size, expected_etag) in [
            ("", None, None),
            (r#","size":7,"sha256":"00","etag":"\"x\"""#, Some(7), Some("\"x\"")),
            (r#","size":"18","etag":null,"rows":[{"a":1}]"#, Some(18), None),
        ] {
            let Some(Line::Instance { identifier, path, size, etag }) = parse_line(line(more).as_bytes())
            else {
                panic!("{more}");
            };
            assert_eq!((identifier.to_string().as_str(), path.as_str()), ("1.2/3.4/5.6", "a b/ü.dcm"));
            assert_eq!((size, etag.as_deref()), (expected_size, expected_etag));
        }
        assert!(parse_line(b"").is_none() && parse_line(b" \r").is_none());
    }

    #[test]
    fn broken_lines_are_known_as_far_as_they_are_valid() {
        for text in ["x", "[]", "{}", r#"{"identifier":"1.2/3.4/5.6"}"#, r#"{"identifier":1,"path":"a"}"#] {
            assert_eq!(broken(text), (String::new(), NOT_AN_ENTRY.to_owned()), "{text}");
        }
        for (identifier, known) in
            [("", ""), ("x/3.4/5.6", ""), ("1.2", "1.2"), ("1.2/x/5.6", "1.2"), ("1.2/3.4", "1.2/3.4")]
        {
            let text = format!(r#"{{"identifier":"{identifier}","path":"a"}}"#);
            assert_eq!(broken(&text), (known.to_owned(), INVALID_IDENTIFIER.to_owned()), "{text}");
        }
        for path in ["", "a//b", "a/../b", r"a\u0000"] {
            let text = format!(r#"{{"identifier":"1.2/3.4/5.6","path":"{path}"}}"#);
            assert_eq!(broken(&text), ("1.2/3.4/5.6".to_owned(), INVALID_PATH.to_owned()), "{text}");
        }
        let text = r#"{"identifier":"1.2/3.4/5.6","path":"a","size":"-1"}"#;
        assert_eq!(broken(text), ("1.2/3.4/5.6".to_owned(), INVALID_SIZE.to_owned()));
    }
}
