//! [`Tree`]: reads a value as a tree of bounded size.

use std::cell::Cell;

use serde::de::{self, MapAccess, SeqAccess};
use serde_json::{Map, Number, Value};

use super::reader::{At, Reader, Seed};

/// Reads any value as a tree, up to a size. A duplicate name is an error.
pub(crate) struct Tree<'a> {
    at: At<'a>,
    budget: Budget<'a>,
}

/// How much of a tree may still be read. A value takes no more than the bytes of its text.
#[derive(Clone, Copy)]
struct Budget<'a> {
    root: At<'a>,
    limit: usize,
    used: &'a Cell<usize>,
}

impl Budget<'_> {
    fn take<E: de::Error>(self, bytes: usize) -> Result<(), E> {
        self.used.set(self.used.get().saturating_add(bytes));
        match self.used.get() <= self.limit {
            true => Ok(()),
            false => Err(self.root.fail_with(&format!("is longer than {} bytes", self.limit))),
        }
    }
}

impl<'de> Reader<'de> for Tree<'_> {
    type Value = Value;
    const EXPECTED: &'static str = "a value";

    fn at(&self) -> At<'_> {
        self.at
    }

    fn null<E: de::Error>(self) -> Result<Value, E> {
        self.budget.take(1).map(|()| Value::Null)
    }

    fn boolean<E: de::Error>(self, flag: bool) -> Result<Value, E> {
        self.budget.take(1).map(|()| Value::Bool(flag))
    }

    fn number<E: de::Error>(self, number: Number) -> Result<Value, E> {
        self.budget.take(1).map(|()| Value::Number(number))
    }

    fn string<E: de::Error>(self, text: &str) -> Result<Value, E> {
        self.budget.take(text.len() + 2)?;
        Ok(Value::String(text.to_owned()))
    }

    fn array<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.budget.take(2)?;
        let mut values = Vec::new();
        loop {
            let at = self.at.index(values.len());
            match items.next_element_seed(Seed(Tree { at, budget: self.budget }))? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.budget.take(2)?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            self.budget.take(name.len() + 3)?;
            let at = self.at.name(&name);
            if map.contains_key(&name) {
                return Err(at.fail_with("occurs twice"));
            }
            let value = members.next_value_seed(Seed(Tree { at, budget: self.budget }))?;
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

/// Reads a value as a tree whose text has at most `limit` bytes.
pub(crate) fn read_tree<T, E>(
    at: At<'_>,
    limit: usize,
    read: impl FnOnce(Seed<Tree<'_>>) -> Result<T, E>,
) -> Result<T, E> {
    let used = Cell::new(0);
    read(Seed(Tree { at, budget: Budget { root: at, limit, used: &used } }))
}
