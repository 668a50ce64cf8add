//! [`Reader`]: reads one value of a document without a tree, with a JSON pointer in its errors.

use std::cell::RefCell;
use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;
use serde_json::de::SliceRead;

use super::pointer::{child, is_shown, property};
use crate::error::{Error, Result};

/// A position in the document. It is a list on the stack, so that a pointer is built only for an error: a pointer for each
/// of a million items below a long name would take quadratic time.
#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Name(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

/// The position of a reader, and where it reports its error.
#[derive(Clone, Copy)]
pub(crate) struct At<'a> {
    step: Step<'a>,
    /// serde's errors are text; this one keeps its pointer.
    fault: &'a RefCell<Option<Error>>,
}

impl<'a> At<'a> {
    fn root(fault: &'a RefCell<Option<Error>>) -> Self {
        Self { step: Step::Root, fault }
    }

    pub(crate) fn name(&'a self, name: &'a str) -> Self {
        Self { step: Step::Name(self, name), fault: self.fault }
    }

    pub(crate) fn index(&'a self, index: usize) -> Self {
        Self { step: Step::Index(self, index), fault: self.fault }
    }

    /// The JSON pointer, and whether it is complete: it ends before a name that must not be shown.
    fn shown(&self) -> (String, bool) {
        let (parent, name) = match self.step {
            Step::Root => return (String::new(), true),
            Step::Name(parent, name) => (parent, name.to_owned()),
            Step::Index(parent, index) => (parent, index.to_string()),
        };
        match parent.shown() {
            (pointer, true) if is_shown(&name) => (child(&pointer, &name), true),
            (pointer, _) => (pointer, false),
        }
    }

    pub(crate) fn pointer(&self) -> String {
        self.shown().0
    }

    /// Reports an error.
    pub(crate) fn fail<E: de::Error>(&self, error: Error) -> E {
        let custom = E::custom(&error);
        *self.fault.borrow_mut() = Some(error);
        custom
    }

    /// Reports an error about this value: `fault` follows its name.
    pub(crate) fn fail_with<E: de::Error>(&self, fault: &str) -> E {
        let (pointer, is_complete) = self.shown();
        let subject = match is_complete {
            true => property(&pointer),
            false => format!("a property in {}", property(&pointer)),
        };
        self.fail(Error::invalid(pointer, format!("{subject} {fault}")))
    }

    /// Reports a missing member of this object.
    pub(crate) fn missing<E: de::Error>(&self, name: &str) -> E {
        self.name(name).fail_with("is missing")
    }

    fn mismatch<E: de::Error>(&self, expected: &str, actual: &str) -> E {
        self.fail_with(&format!("must be {expected}, not {actual}"))
    }
}

/// Reads one value. Each method handles one kind of value, and fails unless it is implemented.
pub(crate) trait Reader<'de>: Sized {
    type Value;

    /// The expected kind of value, for errors: "a string".
    const EXPECTED: &'static str;

    fn at(&self) -> At<'_>;

    fn null<E: de::Error>(self) -> Result<Self::Value, E> {
        Err(self.at().mismatch(Self::EXPECTED, "null"))
    }

    fn boolean<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Err(self.at().mismatch(Self::EXPECTED, "a boolean"))
    }

    fn number<E: de::Error>(self, _: Number) -> Result<Self::Value, E> {
        Err(self.at().mismatch(Self::EXPECTED, "a number"))
    }

    fn string<E: de::Error>(self, _: &str) -> Result<Self::Value, E> {
        Err(self.at().mismatch(Self::EXPECTED, "a string"))
    }

    fn array<A: SeqAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.at().mismatch(Self::EXPECTED, "an array"))
    }

    fn object<A: MapAccess<'de>>(self, _: A) -> Result<Self::Value, A::Error> {
        Err(self.at().mismatch(Self::EXPECTED, "an object"))
    }
}

/// Lets serde drive a reader.
pub(crate) struct Seed<R>(pub(crate) R);

impl<'de, R: Reader<'de>> DeserializeSeed<'de> for Seed<R> {
    type Value = R::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<R::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, R: Reader<'de>> Visitor<'de> for Seed<R> {
    type Value = R::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(R::EXPECTED)
    }

    fn visit_unit<E: de::Error>(self) -> Result<R::Value, E> {
        self.0.null()
    }

    fn visit_none<E: de::Error>(self) -> Result<R::Value, E> {
        self.0.null()
    }

    fn visit_bool<E: de::Error>(self, flag: bool) -> Result<R::Value, E> {
        self.0.boolean(flag)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<R::Value, E> {
        self.0.number(number.into())
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<R::Value, E> {
        self.0.number(number.into())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<R::Value, E> {
        match Number::from_f64(number) {
            Some(number) => self.0.number(number),
            None => self.0.null(),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<R::Value, E> {
        self.0.string(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<R::Value, A::Error> {
        self.0.array(items)
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<R::Value, A::Error> {
        self.0.object(members)
    }
}

/// Parses a text. A byte order mark before it is ignored (RFC 8259, section 8.1).
///
/// # Errors
/// `Invalid`, with a pointer, or with the line and column of a syntax error.
pub(crate) fn parse<'de, T>(
    text: &'de [u8],
    read: impl FnOnce(At<'_>, &mut serde_json::Deserializer<SliceRead<'de>>) -> Result<T, serde_json::Error>,
) -> Result<T> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let fault = RefCell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = read(At::root(&fault), &mut deserializer);
    value.and_then(|value| deserializer.end().map(|()| value)).map_err(|syntax| {
        fault.take().unwrap_or_else(|| {
            let message = format!("not JSON: line {}, column {}", syntax.line(), syntax.column());
            Error::invalid("", message)
        })
    })
}

/// Reads a document through serde, whose error has the same message.
pub(crate) fn deserialize<D, T, E>(
    deserializer: D,
    read: impl FnOnce(At<'_>, D) -> Result<T, E>,
) -> Result<T, E> {
    read(At::root(&RefCell::new(None)), deserializer)
}

/// Reads the names of an object's members: case-insensitive, each known and at most once.
pub(crate) struct Names<'a> {
    at: &'a At<'a>,
    known: &'static [&'static str],
    seen: Vec<&'static str>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(at: &'a At<'a>, known: &'static [&'static str]) -> Self {
        Self { at, known, seen: Vec::new() }
    }

    /// The next name, as it is written in `known`.
    pub(crate) fn next<'de, A: MapAccess<'de>>(
        &mut self,
        members: &mut A,
    ) -> Result<Option<&'static str>, A::Error> {
        let Some(name) = members.next_key::<String>()? else { return Ok(None) };
        let Some(known) = self.known.iter().find(|known| known.eq_ignore_ascii_case(&name)) else {
            return Err(self.at.name(&name).fail_with("is unknown"));
        };
        if self.seen.contains(known) {
            return Err(self.at.name(&name).fail_with("occurs twice"));
        }
        self.seen.push(known);
        Ok(Some(known))
    }
}

/// Reads a string; `null` and `""` count as absent.
pub(crate) struct OptionalString<'a>(pub(crate) At<'a>);

impl<'de> Reader<'de> for OptionalString<'_> {
    type Value = Option<String>;
    const EXPECTED: &'static str = "a string";

    fn at(&self) -> At<'_> {
        self.0
    }

    fn null<E: de::Error>(self) -> Result<Option<String>, E> {
        Ok(None)
    }

    fn string<E: de::Error>(self, text: &str) -> Result<Option<String>, E> {
        Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
    }
}
