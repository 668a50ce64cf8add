//! Text that PostgreSQL can store: its `text` and `jsonb` have no character U+0000.

use std::borrow::Cow;

/// Begins an escape sequence: U+E000, of the private use area.
const ESCAPE: char = '\u{E000}';

/// Replaces U+0000 by U+E000 `0`, and U+E000 by U+E000 `1`.
pub(super) fn escape(text: &str) -> Cow<'_, str> {
    match text.contains(['\0', ESCAPE]) {
        true => Cow::Owned(text.replace(ESCAPE, "\u{E000}1").replace('\0', "\u{E000}0")),
        false => Cow::Borrowed(text),
    }
}

/// As [`escape`] does for its strings, for a JSON document, where U+0000 is written as `\u0000`.
pub(super) fn escape_json(json: String) -> String {
    if !json.contains(ESCAPE) && !json.contains("\\u0000") {
        return json;
    }
    let json = json.replace(ESCAPE, "\u{E000}1");
    let (mut escaped, mut rest) = (String::with_capacity(json.len()), json.as_str());
    while let Some(backslash) = rest.find('\\') {
        escaped.push_str(&rest[..backslash]);
        rest = &rest[backslash..];
        match rest.strip_prefix("\\u0000") {
            Some(after) => {
                escaped.push_str("\u{E000}0");
                rest = after;
            }
            None => {
                // The escaped character may be a backslash itself.
                let (sequence, after) = rest.split_at(rest.len().min(2));
                escaped.push_str(sequence);
                rest = after;
            }
        }
    }
    escaped.push_str(rest);
    escaped
}

/// Reverses [`escape_json`].
pub(super) fn unescape_json(json: String) -> String {
    match json.contains(ESCAPE) {
        true => json.replace("\u{E000}0", "\\u0000").replace("\u{E000}1", "\u{E000}"),
        false => json,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn documents_survive_escaping(texts: Vec<String>, odd in "[\0\u{E000}01\\\\u\"]*") {
            let texts: Vec<_> = texts.into_iter().chain([odd]).collect();
            let json = serde_json::to_string(&texts).unwrap();
            let escaped = escape_json(json.clone());
            let stored: Vec<String> = serde_json::from_str(&escaped).unwrap();
            for (text, stored) in texts.iter().zip(&stored) {
                prop_assert!(!stored.contains('\0'));
                prop_assert_eq!(stored, &escape(text));
            }
            prop_assert_eq!(unescape_json(escaped), json);
        }
    }
}
