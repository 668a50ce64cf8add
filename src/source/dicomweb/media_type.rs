//! [`MediaType`]: the value of a `Content-Type` header.

/// A media type with its parameters (RFC 9110 8.3.1), read leniently. Many servers omit the quotes around
/// `type=application/dicom`, which the crate `mime` rejects because a slash is not allowed in a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    /// In lower case.
    essence: String,
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

impl MediaType {
    pub(super) fn parse(text: &str) -> Self {
        let mut parts = split(text).into_iter();
        let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
        let parameters = parts.filter_map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim().to_ascii_lowercase(), unquoted(value.trim())))
        });
        Self { essence, parameters: parameters.collect() }
    }

    pub(super) fn is(&self, essence: &str) -> bool {
        self.essence == essence
    }

    pub(super) fn is_json(&self) -> bool {
        self.is("application/json") || self.essence.ends_with("+json")
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Splits at semicolons outside quotes.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut from) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b';' if !quoted => {
                parts.push(text[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[from..].trim());
    parts
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_with_and_without_quotes() {
        for text in [
            r#"multipart/related; type="application/dicom"; boundary=a=b"#,
            r#"Multipart/Related;Boundary="a=b" ; TYPE=application/dicom"#,
            r#"multipart/related; start="x;\"y"; boundary="a\=b"; type=application/dicom"#,
        ] {
            let read = MediaType::parse(text);
            assert!(read.is("multipart/related"), "{text}");
            assert_eq!(read.parameter("boundary"), Some("a=b"), "{text}");
            assert_eq!(read.parameter("type"), Some("application/dicom"), "{text}");
        }
        assert!(MediaType::parse("application/dicom+json; charset=utf-8").is_json());
        assert_eq!(MediaType::parse("").parameter("boundary"), None);
    }
}
