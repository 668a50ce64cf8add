//! [`Object`]: takes the members of an object that was read as a tree.

use serde_json::Value;

use super::pointer::{child, is_shown, property};
use crate::error::{Error, Result};

/// The error for a value of the wrong kind. It does not contain the value.
pub(crate) fn mismatch(pointer: &str, expected: &str, actual: &Value) -> Error {
    let actual = match actual {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Error::invalid(pointer, format!("{} must be {expected}, not {actual}", property(pointer)))
}

/// The members of an object, to be taken by their case-insensitive names. The rest is unknown.
pub(crate) struct Object {
    pointer: String,
    members: Vec<(String, Value)>,
}

impl Object {
    pub(crate) fn new(pointer: impl Into<String>, value: Value) -> Result<Self> {
        // The search for duplicates is quadratic. No object has that many known members.
        const MAX_MEMBERS: usize = 64;
        let pointer = pointer.into();
        let members: Vec<_> = match value {
            Value::Object(members) => members.into_iter().collect(),
            other => return Err(mismatch(&pointer, "an object", &other)),
        };
        if members.len() > MAX_MEMBERS {
            let message = format!("{} has too many members", property(&pointer));
            return Err(Error::invalid(pointer, message));
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

    /// Removes and returns the member; `null` counts as absent.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        let at = self.members.iter().position(|(given, _)| given.eq_ignore_ascii_case(name))?;
        Some(self.members.swap_remove(at).1).filter(|member| !member.is_null())
    }

    /// Removes and returns a string; `null` and `""` count as absent.
    pub(crate) fn take_string(&mut self, name: &str) -> Result<Option<String>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(other) => Err(mismatch(&self.pointer_to(name), "a string", &other)),
        }
    }

    /// Removes and returns a boolean; `null` and `""` count as absent.
    #[cfg(any(feature = "azure", feature = "gcs", feature = "s3"))]
    pub(crate) fn take_flag(&mut self, name: &str) -> Result<Option<bool>> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(other) => Err(mismatch(&self.pointer_to(name), "a boolean", &other)),
        }
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

/// The error for a member whose name comes from the caller.
fn unexpected(parent: &str, name: &str, fault: &str) -> Error {
    if is_shown(name) {
        let pointer = child(parent, name);
        let message = format!("{} {fault}", property(&pointer));
        return Error::invalid(pointer, message);
    }
    Error::invalid(parent, format!("a property in {} {fault}", property(parent)))
}
