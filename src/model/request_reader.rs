//! Reads the JSON of an export request without a tree of the whole document.

#[cfg(feature = "http")]
use std::num::NonZeroU64;

use serde::de::{self, MapAccess, SeqAccess};
use serde_json::{Map, Value};

use crate::error::Error;
use crate::model::identifiers::{Identifiers, IdentifiersBuilder};
use crate::model::json::{At, Names, OptionalString, Reader, Seed, mismatch, property, read_tree};

/// The maximum length of a destination's settings as JSON text, in bytes. A tree of values takes many times the memory of
/// its text.
const MAX_SETTINGS_LEN: usize = 64 << 10;

/// The type and the settings of a destination.
pub(crate) type DestinationParts = (String, Value);

/// Reads an export request: its identifiers, `None` for everything, and its destination.
pub(super) struct RequestReader<'a> {
    pub(super) at: At<'a>,
    /// The length of the document in bytes, if it is known.
    pub(super) text_len: usize,
}

impl<'de> Reader<'de> for RequestReader<'_> {
    type Value = (Option<Identifiers>, DestinationParts);
    const EXPECTED: &'static str = "an object";

    fn at(&self) -> At<'_> {
        self.at
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let Self { at, text_len } = self;
        let (mut source, mut destination) = (None, None);
        // `sources` occurs in a published example.
        let mut names = Names::new(&at, &["source", "sources", "destination"]);
        while let Some(name) = names.next(&mut members)? {
            let at_member = at.name(name);
            if name == "destination" {
                destination = members.next_value_seed(Seed(DestinationReader(at_member)))?;
            } else if source.is_some() {
                let error = Error::invalid("/sources", "'/source' and '/sources' are both given");
                return Err(at.fail(error));
            } else {
                source = Some(members.next_value_seed(Seed(SourceReader { at: at_member, text_len }))?);
            }
        }
        Ok((source.flatten(), destination.ok_or_else(|| at.missing("destination"))?))
    }
}

/// Reads the body of a resumption: an object with an optional destination.
#[cfg(feature = "http")]
pub(super) struct ResumptionReader<'a>(pub(super) At<'a>);

#[cfg(feature = "http")]
impl<'de> Reader<'de> for ResumptionReader<'_> {
    type Value = Option<DestinationParts>;
    const EXPECTED: &'static str = "an object";

    fn at(&self) -> At<'_> {
        self.0
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut destination = None;
        let mut names = Names::new(&self.0, &["destination"]);
        while let Some(name) = names.next(&mut members)? {
            destination = members.next_value_seed(Seed(DestinationReader(self.0.name(name))))?;
        }
        Ok(destination)
    }
}

/// Reads the body of a change to an operation: its limit on bytes per second, `Some(None)` without one.
#[cfg(feature = "http")]
pub(super) struct UpdateReader<'a>(pub(super) At<'a>);

#[cfg(feature = "http")]
impl<'de> Reader<'de> for UpdateReader<'_> {
    type Value = Option<Option<NonZeroU64>>;
    const EXPECTED: &'static str = "an object";

    fn at(&self) -> At<'_> {
        self.0
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut bytes = None;
        let mut names = Names::new(&self.0, &["bytesPerSecond"]);
        while let Some(name) = names.next(&mut members)? {
            let at = self.0.name(name);
            let value = read_tree(at, MAX_SETTINGS_LEN, |seed| members.next_value_seed(seed))?;
            let limit = value.as_u64().and_then(NonZeroU64::new);
            if limit.is_none() && !value.is_null() {
                let expected = "a whole number of bytes from 1, or null";
                return Err(at.fail(mismatch(&at.pointer(), expected, &value)));
            }
            bytes = Some(limit);
        }
        Ok(bytes)
    }
}

/// Reads a destination; `null` counts as absent, and so does `null` for its settings.
pub(super) struct DestinationReader<'a>(pub(super) At<'a>);

impl<'de> Reader<'de> for DestinationReader<'_> {
    type Value = Option<DestinationParts>;
    const EXPECTED: &'static str = "an object";

    fn at(&self) -> At<'_> {
        self.0
    }

    fn null<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let (at, at_type, at_settings) = (self.0, self.0.name("type"), self.0.name("settings"));
        let (mut kind, mut settings) = (None, Value::Null);
        let mut names = Names::new(&at, &["type", "settings"]);
        while let Some(name) = names.next(&mut members)? {
            match name {
                "type" => kind = members.next_value_seed(Seed(OptionalString(at_type)))?,
                _ => {
                    settings =
                        read_tree(at_settings, MAX_SETTINGS_LEN, |seed| members.next_value_seed(seed))?;
                }
            }
        }
        let kind = kind.ok_or_else(|| at.missing("type"))?;
        match settings {
            Value::Null => Ok(Some((kind, Value::Object(Map::new())))),
            Value::Object(_) => Ok(Some((kind, settings))),
            other => Err(at_settings.fail(mismatch(&at_settings.pointer(), "an object", &other))),
        }
    }
}

/// Reads the identifiers of a source; `null` is everything, and returns `None`.
pub(super) struct SourceReader<'a> {
    pub(super) at: At<'a>,
    /// The length of the document in bytes, if it is known.
    pub(super) text_len: usize,
}

impl<'de> Reader<'de> for SourceReader<'_> {
    type Value = Option<Identifiers>;
    const EXPECTED: &'static str = "an object";

    fn at(&self) -> At<'_> {
        self.at
    }

    fn null<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let Self { at, text_len } = self;
        let (mut kind, mut values) = (None, None);
        let (at_type, at_settings) = (at.name("type"), at.name("settings"));
        let mut names = Names::new(&at, &["type", "settings"]);
        while let Some(name) = names.next(&mut members)? {
            match name {
                "type" => kind = members.next_value_seed(Seed(OptionalString(at_type)))?,
                _ => values = members.next_value_seed(Seed(SettingsReader { at: at_settings, text_len }))?,
            }
        }
        let kind = kind.ok_or_else(|| at.missing("type"))?;
        if !kind.eq_ignore_ascii_case("identifiers") {
            return Err(at_type.fail_with("must be 'identifiers'"));
        }
        let values: IdentifiersBuilder = values.ok_or_else(|| at_settings.missing("values"))?;
        let at_values = at_settings.name("values");
        match values.is_empty() {
            true => Err(at_values.fail_with("is empty: omit the source to export everything")),
            false => {
                let identifiers =
                    values.build().map_err(|error| at_values.fail(error.under(&at_values.pointer())))?;
                Ok(Some(identifiers))
            }
        }
    }
}

/// Reads the settings of a source: `values`, if they are given.
struct SettingsReader<'a> {
    at: At<'a>,
    text_len: usize,
}

impl<'de> Reader<'de> for SettingsReader<'_> {
    type Value = Option<IdentifiersBuilder>;
    const EXPECTED: &'static str = "an object";

    fn at(&self) -> At<'_> {
        self.at
    }

    fn null<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let Self { at, text_len } = self;
        let mut values = None;
        let mut names = Names::new(&at, &["values"]);
        while let Some(name) = names.next(&mut members)? {
            values = members.next_value_seed(Seed(ValuesReader { at: at.name(name), text_len }))?;
        }
        Ok(values)
    }
}

/// Reads an array of identifiers; `null` counts as absent.
struct ValuesReader<'a> {
    at: At<'a>,
    text_len: usize,
}

impl<'de> Reader<'de> for ValuesReader<'_> {
    type Value = Option<IdentifiersBuilder>;
    const EXPECTED: &'static str = "an array";

    fn at(&self) -> At<'_> {
        self.at
    }

    fn null<E: de::Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn array<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut values = IdentifiersBuilder::new(self.text_len);
        for index in 0.. {
            let reader = IdentifierReader { at: self.at.index(index), values: &mut values };
            if items.next_element_seed(Seed(reader))?.is_none() {
                break;
            }
        }
        Ok(Some(values))
    }
}

/// Reads an identifier into a builder.
struct IdentifierReader<'a> {
    at: At<'a>,
    values: &'a mut IdentifiersBuilder,
}

impl<'de> Reader<'de> for IdentifierReader<'_> {
    type Value = ();
    const EXPECTED: &'static str = "a string";

    fn at(&self) -> At<'_> {
        self.at
    }

    fn string<E: de::Error>(self, text: &str) -> Result<(), E> {
        self.values.push(text).map_err(|error| {
            let pointer = self.at.pointer();
            let message = format!("{} is not an identifier: {error}", property(&pointer));
            self.at.fail(Error::invalid(pointer, message))
        })
    }
}
