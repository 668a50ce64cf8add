//! JSON objects with case-insensitive names, without duplicate and unknown members.
//!
//! `serde_json::Value` silently keeps the last of two members with the same name: a second `"source": null` would export
//! the whole archive. [`Json`] keeps all of them, and [`Object`] refuses duplicates.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// A JSON value whose objects keep every member, in order.
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(Number),
    String(String),
    Array(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Parses a text.
    ///
    /// # Errors
    /// `Invalid`, with the line and column of the syntax error.
    pub(crate) fn parse(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|fault| {
            let message = format!("not JSON: line {}, column {}", fault.line(), fault.column());
            Error::invalid("", message)
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The error for a value of the wrong type. It does not contain the value.
    pub(crate) fn mismatch(&self, pointer: &str, expected: &str) -> Error {
        Error::invalid(pointer, format!("{} must be {expected}, not {}", property(pointer), self.name()))
    }

    pub(crate) fn into_string(self, pointer: &str) -> Result<String> {
        match self {
            Self::String(text) => Ok(text),
            other => Err(other.mismatch(pointer, "a string")),
        }
    }

    pub(crate) fn into_array(self, pointer: &str) -> Result<Vec<Json>> {
        match self {
            Self::Array(items) => Ok(items),
            other => Err(other.mismatch(pointer, "an array")),
        }
    }

    pub(crate) fn into_object(self, pointer: impl Into<String>) -> Result<Object> {
        let pointer = pointer.into();
        match self {
            Self::Object(members) => Object::new(pointer, members),
            other => Err(other.mismatch(&pointer, "an object")),
        }
    }

    /// Converts to `serde_json`'s type. A duplicate name is an error.
    pub(crate) fn into_value(self, pointer: &str) -> Result<Value> {
        self.plain().map_err(|steps| {
            // From the outside in, as far as names can be repeated.
            let (at, shown) = steps.iter().rev().fold((pointer.to_owned(), true), |(at, shown), step| {
                match shown && is_shown(step) {
                    true => (child(&at, step), true),
                    false => (at, false),
                }
            });
            let what = if shown { property(&at) } else { format!("a property in {}", property(&at)) };
            Error::invalid(at.as_str(), format!("{what} occurs twice"))
        })
    }

    /// The error is the path to the duplicate name, from the inside out. Building a pointer for each of a million items
    /// below a long name would take quadratic time.
    fn plain(self) -> Result<Value, Vec<String>> {
        let below = |step: String| {
            |mut steps: Vec<String>| {
                steps.push(step);
                steps
            }
        };
        Ok(match self {
            Self::Null => Value::Null,
            Self::Bool(flag) => Value::Bool(flag),
            Self::Number(number) => Value::Number(number),
            Self::String(text) => Value::String(text),
            Self::Array(items) => {
                let mut values = Vec::with_capacity(items.len());
                for (at, item) in items.into_iter().enumerate() {
                    values.push(item.plain().map_err(|steps| below(at.to_string())(steps))?);
                }
                Value::Array(values)
            }
            Self::Object(members) => {
                let mut map = Map::with_capacity(members.len());
                for (name, member) in members {
                    match map.entry(name) {
                        Entry::Occupied(twice) => return Err(vec![twice.key().clone()]),
                        Entry::Vacant(place) => {
                            let member = match member.plain() {
                                Ok(member) => member,
                                Err(steps) => return Err(below(place.key().clone())(steps)),
                            };
                            place.insert(member);
                        }
                    }
                }
                Value::Object(map)
            }
        })
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(flag) => Self::Bool(flag),
            Value::Number(number) => Self::Number(number),
            Value::String(text) => Self::String(text),
            Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(members) => {
                Self::Object(members.into_iter().map(|(name, member)| (name, member.into())).collect())
            }
        }
    }
}

/// The members of an object, to be taken by their case-insensitive names. The rest is unknown.
pub(crate) struct Object {
    pointer: String,
    members: Vec<(String, Json)>,
}

impl Object {
    fn new(pointer: String, members: Vec<(String, Json)>) -> Result<Self> {
        // The search for duplicates is quadratic. No object has that many known members.
        const MAX_MEMBERS: usize = 64;
        if members.len() > MAX_MEMBERS {
            return Err(Error::invalid(
                pointer.as_str(),
                format!("{} has too many members", property(&pointer)),
            ));
        }
        for (at, (name, _)) in members.iter().enumerate() {
            if members[..at].iter().any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
                return Err(unexpected(&pointer, name, "occurs twice"));
            }
        }
        Ok(Self { pointer, members })
    }

    /// The pointer of the member with this name.
    pub(crate) fn pointer_to(&self, name: &str) -> String {
        child(&self.pointer, name)
    }

    /// Whether the member exists, `null` or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(given, _)| given.eq_ignore_ascii_case(name))
    }

    /// Removes and returns the member; `null` counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Json> {
        let at = self.members.iter().position(|(given, _)| given.eq_ignore_ascii_case(name))?;
        Some(self.members.swap_remove(at).1).filter(|member| !member.is_null())
    }

    /// Removes and returns a string; `null` and `""` count as absent.
    pub(crate) fn take_string(&mut self, name: &str) -> Result<Option<String>> {
        let pointer = self.pointer_to(name);
        let text = self.take(name).map(|member| member.into_string(&pointer)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// The error for a missing member.
    pub(crate) fn missing(&self, name: &str) -> Error {
        let pointer = self.pointer_to(name);
        Error::invalid(pointer.as_str(), format!("{} is missing", property(&pointer)))
    }

    /// Refuses members that have not been taken.
    pub(crate) fn finish(mut self) -> Result<()> {
        match self.members.pop() {
            None => Ok(()),
            Some((name, _)) => Err(unexpected(&self.pointer, &name, "is unknown")),
        }
    }
}

/// The name of the property at a pointer, for messages.
fn property(pointer: &str) -> String {
    match pointer {
        "" => "the document".to_owned(),
        _ => format!("'{pointer}'"),
    }
}

/// The error for a member whose name comes from the caller.
fn unexpected(parent: &str, name: &str, fault: &str) -> Error {
    if is_shown(name) {
        let pointer = child(parent, name);
        let message = format!("{} {fault}", property(&pointer));
        return Error::invalid(pointer, message);
    }
    Error::invalid(parent, format!("a property in {} {fault}", property(parent)))
}

/// Whether a name may be part of messages and `Debug`. A name that is long, or has characters that a misspelled name
/// would not have, may be a misplaced credential: a URI with a SAS, or a connection string.
pub(crate) fn is_shown(name: &str) -> bool {
    const MAX_SHOWN: usize = 40;
    name.len() <= MAX_SHOWN && name.chars().all(|c| c.is_alphanumeric() || " _-.$/~".contains(c))
}

fn child(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Json, E> {
        Ok(Json::Bool(flag))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Json, E> {
        Ok(Json::Number(number.into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Json, E> {
        Ok(Number::from_f64(number).map_or(Json::Null, Json::Number))
    }

    fn visit_str<E>(self, text: &str) -> Result<Json, E> {
        Ok(Json::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Json, E> {
        Ok(Json::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Json, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Json::Object(members))
    }
}
