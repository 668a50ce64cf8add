//! Canaries: texts that must not appear in output, in any encoding.

#![allow(dead_code, reason = "not every test binary uses all of it")]

use std::collections::BTreeSet;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use dicom_export::Error;

/// The minimum length of an encoded form, so that it does not occur by chance.
const MIN_LENGTH: usize = 8;

/// Texts that must not appear.
#[derive(Clone, Default)]
pub(crate) struct Canaries(Vec<(&'static str, Vec<String>)>);

impl Canaries {
    /// Adds a text; `name` names it in the failure message.
    pub(crate) fn with(mut self, name: &'static str, text: &str) -> Self {
        assert!(text.len() >= MIN_LENGTH, "{name} is too short");
        self.0.push((name, forms(text)));
        self
    }

    /// Adds the texts of another list.
    pub(crate) fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// Panics if a text appears in `bytes`; `location` describes them in the failure message.
    #[track_caller]
    pub(crate) fn assert_absent(&self, location: &str, bytes: impl AsRef<[u8]>) {
        let text = String::from_utf8_lossy(bytes.as_ref());
        for (name, forms) in &self.0 {
            for form in forms {
                if let Some(at) = text.find(form.as_str()) {
                    let from = text[..at].char_indices().rev().nth(200).map_or(0, |(at, _)| at);
                    let to = text[at..].char_indices().nth(200).map_or(text.len(), |(to, _)| at + to);
                    panic!("{name} appears in {location}, as {form}: …{}…", &text[from..to]);
                }
            }
        }
    }

    /// Panics unless every text appears in some form. A test of leaks is meaningful only if the text was sent.
    #[track_caller]
    pub(crate) fn assert_all_present(&self, location: &str, bytes: impl AsRef<[u8]>) {
        let text = String::from_utf8_lossy(bytes.as_ref());
        for (name, forms) in &self.0 {
            assert!(
                forms.iter().any(|form| text.contains(form.as_str())),
                "{name} does not appear in {location}"
            );
        }
    }
}

/// All output of an error and its chain of sources: `Display`, `Debug` and the pointer.
pub(crate) fn all_of(error: &Error) -> String {
    let mut text = format!("{error}\n{error:?}\n{error:#?}\n{:?}", error.pointer());
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        write!(text, "\n{cause}\n{cause:?}\n{cause:#?}").unwrap();
        next = cause.source();
    }
    text
}

/// A text in its possible encodings: itself, with or without escapes, in base64 at any offset, in hexadecimal.
fn forms(text: &str) -> Vec<String> {
    let mut forms = BTreeSet::new();
    for text in [text.to_owned(), unescaped(text)] {
        forms.insert(escaped(&text, |out, byte| write!(out, "%{byte:02X}")));
        forms.insert(escaped(&text, |out, byte| write!(out, "%{byte:02x}")));
        forms.insert(text.bytes().fold(String::new(), |out, byte| out + &format!("{byte:02x}")));
        forms.insert(text.bytes().fold(String::new(), |out, byte| out + &format!("{byte:02X}")));
        let quoted = serde_json::to_string(&text).unwrap();
        forms.insert(quoted.trim_matches('"').to_owned());
        forms.insert(format!("{text:?}").trim_matches('"').to_owned());
        for offset in 0..3 {
            let padded = [&b"   "[..offset], text.as_bytes()].concat();
            for engine in [&BASE64_STANDARD_NO_PAD, &BASE64_URL_SAFE_NO_PAD] {
                let encoded = engine.encode(&padded);
                // The characters at the ends contain bits of the neighbouring bytes.
                let from = [0, 2, 3][offset];
                let to = encoded.len() - usize::from(padded.len() % 3 > 0);
                forms.insert(encoded[from..to].to_owned());
            }
        }
        forms.insert(text);
    }
    forms.retain(|form| form.len() >= MIN_LENGTH);
    forms.into_iter().collect()
}

/// Escapes everything but letters and digits.
fn escaped(text: &str, escape: impl Fn(&mut String, u8) -> std::fmt::Result) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte.is_ascii_alphanumeric() {
            true => out.push(char::from(byte)),
            false => escape(&mut out, byte).unwrap(),
        }
        out
    })
}

/// Decodes percent escapes.
fn unescaped(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.as_bytes());
    while let Some((&byte, rest)) = bytes.split_first() {
        let digits = rest.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| byte == b'%') {
            Some(plain) => (out.push(plain), bytes = &rest[2..]).1,
            None => (out.push(byte), bytes = rest).1,
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}
