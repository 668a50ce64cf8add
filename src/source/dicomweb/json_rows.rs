//! [`RowReader`]: reads the rows of a DICOM JSON array (PS3.18 F) one by one, leniently.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::row_text::{NotARow, RowText};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Splits a JSON array that arrives in chunks into rows, and holds no more than one row.
///
/// Some servers send a byte order mark, or text that is not UTF-8 or not quite JSON, which [`RowText`] corrects. A single
/// object in place of the array is read as one row, and null as an empty array.
#[derive(Debug, Default)]
pub(super) struct RowReader {
    state: State,
    /// The number of bytes of a byte order mark that were received.
    mark: usize,
    row: RowText,
    is_single_row: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Start,
    /// Before a row; after a comma the array cannot end.
    BeforeRow {
        can_end: bool,
    },
    InRow,
    AfterRow,
    End,
}

/// Why a response is not a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowError {
    /// The response ends inside the list.
    Truncated,
    /// The response is not a DICOM JSON array.
    Malformed,
}

impl RowReader {
    /// Reads a chunk and calls `on_row` for each row that it completes, with `None` for a null.
    pub(super) fn push(
        &mut self,
        chunk: &[u8],
        mut on_row: impl FnMut(Option<Attributes>),
    ) -> Result<(), RowError> {
        for &byte in chunk {
            match self.state {
                State::Start => match byte {
                    _ if BYTE_ORDER_MARK.get(self.mark) == Some(&byte) => self.mark += 1,
                    _ if self.mark > 0 && self.mark < BYTE_ORDER_MARK.len() => {
                        return Err(RowError::Malformed);
                    }
                    _ if byte.is_ascii_whitespace() => {}
                    b'[' => self.state = State::BeforeRow { can_end: true },
                    b'{' | b'n' => {
                        self.is_single_row = true;
                        self.start_row(byte)?;
                    }
                    _ => return Err(RowError::Malformed),
                },
                State::BeforeRow { can_end } => match byte {
                    _ if byte.is_ascii_whitespace() => {}
                    b']' if can_end => self.state = State::End,
                    b'{' | b'n' => self.start_row(byte)?,
                    _ => return Err(RowError::Malformed),
                },
                State::InRow => {
                    if self.row.push(byte)? {
                        let row = self.take_row()?;
                        if !self.is_single_row {
                            on_row(row);
                            self.state = State::AfterRow;
                            continue;
                        }
                        // An object without UIDs is another document, for example an error.
                        if row.as_ref().is_some_and(|row| !row.has_uid()) {
                            return Err(RowError::Malformed);
                        }
                        if row.is_some() {
                            on_row(row);
                        }
                        self.state = State::End;
                    }
                }
                State::AfterRow => match byte {
                    _ if byte.is_ascii_whitespace() => {}
                    b',' => self.state = State::BeforeRow { can_end: false },
                    b']' => self.state = State::End,
                    _ => return Err(RowError::Malformed),
                },
                State::End => {
                    if !byte.is_ascii_whitespace() && byte != 0 {
                        return Err(RowError::Malformed);
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that the list is complete. An empty response is an empty list, which some servers send.
    pub(super) fn finish(self) -> Result<(), RowError> {
        match self.state {
            State::End => Ok(()),
            State::Start if self.mark == 0 || self.mark == BYTE_ORDER_MARK.len() => Ok(()),
            _ => Err(RowError::Truncated),
        }
    }

    fn start_row(&mut self, byte: u8) -> Result<(), RowError> {
        self.state = State::InRow;
        self.row.push(byte)?;
        Ok(())
    }

    fn take_row(&mut self) -> Result<Option<Attributes>, RowError> {
        // serde_json's message could quote patient data.
        self.row.take(|text| serde_json::from_str(text)).map_err(|_| RowError::Malformed)
    }
}

impl From<NotARow> for RowError {
    fn from(_: NotARow) -> Self {
        Self::Malformed
    }
}

/// The attributes of one DICOM JSON data set (PS3.18 F.2) that a listing needs. Others are skipped, and so are
/// repetitions.
#[derive(Debug, Default)]
pub(super) struct Attributes {
    pub(super) study: Attribute,
    pub(super) series: Attribute,
    pub(super) sop: Attribute,
    /// Study Date (0008,0020).
    pub(super) study_date: Attribute,
    /// Number of Study Related Series (0020,1206).
    pub(super) study_series: Attribute,
    /// Number of Study Related Instances (0020,1208).
    pub(super) study_instances: Attribute,
    /// Number of Series Related Instances (0020,1209).
    pub(super) series_instances: Attribute,
}

impl Attributes {
    fn has_uid(&self) -> bool {
        [&self.study, &self.series, &self.sop].into_iter().any(|uid| uid.text().is_some())
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DataSet;

        impl<'de> Visitor<'de> for DataSet {
            type Value = Attributes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a data set")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Attributes, M::Error> {
                let mut found = Attributes::default();
                while let Some(tag) = map.next_key::<String>()? {
                    let attribute = match tag.to_ascii_uppercase().as_str() {
                        "0020000D" => &mut found.study,
                        "0020000E" => &mut found.series,
                        "00080018" => &mut found.sop,
                        "00080020" => &mut found.study_date,
                        "00201206" => &mut found.study_series,
                        "00201208" => &mut found.study_instances,
                        "00201209" => &mut found.series_instances,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    let value = map.next_value()?;
                    if attribute.0.is_none() {
                        *attribute = Attribute::first(value);
                    }
                }
                Ok(found)
            }
        }

        deserializer.deserialize_map(DataSet)
    }
}

/// The first value of an attribute: a string or a number.
#[derive(Debug, Default)]
pub(super) struct Attribute(Option<Value>);

impl Attribute {
    /// Takes the first value of `{"vr": …, "Value": […]}`. Some servers omit the list around a single value, or the object
    /// around the list.
    fn first(mut attribute: Value) -> Self {
        if let Value::Object(fields) = &mut attribute {
            attribute = fields.remove("Value").unwrap_or_default();
        }
        if let Value::Array(values) = attribute {
            attribute = values.into_iter().find(|value| !value.is_null()).unwrap_or_default();
        }
        Self(matches!(attribute, Value::String(_) | Value::Number(_)).then_some(attribute))
    }

    /// The text without padding (PS3.5 9.1); `None` if there is none.
    pub(super) fn text(&self) -> Option<&str> {
        let text = self.0.as_ref()?.as_str()?.trim_matches(|c: char| c == '\0' || c.is_whitespace());
        (!text.is_empty()).then_some(text)
    }

    /// An integer string is a JSON number or string (PS3.18 F.2.3). `None` if it is not a count.
    pub(super) fn count(&self) -> Option<u32> {
        match self.0.as_ref()? {
            Value::Number(number) => number.as_u64()?.try_into().ok(),
            Value::String(text) => text.trim_matches([' ', '\0']).parse().ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The Study Instance UIDs of the rows of a response that arrives in chunks of this size.
    fn read(json: &[u8], size: usize) -> Result<Vec<Option<String>>, RowError> {
        let (mut reader, mut rows) = (RowReader::default(), Vec::new());
        for chunk in json.chunks(size) {
            reader.push(chunk, |row| {
                rows.push(row.and_then(|row| row.study.text().map(str::to_owned)));
            })?;
        }
        reader.finish().map(|()| rows)
    }

    #[test]
    fn nearly_valid_json_is_read() {
        let one = Some("1.2".to_owned());
        for (json, rows) in [
            (&b""[..], vec![]),
            (b" [ ] ", vec![]),
            (b"null", vec![]),
            (b"\xEF\xBB\xBF[]\r\n\0", vec![]),
            (br#"[{"0020000D":{"vr":"UI","Value":["1.2"]}}]"#, vec![one.clone()]),
            (br#"{"0020000d":{"Value":"1.2\u0000"}}"#, vec![one.clone()]),
            (br#"[{"0020000D":["1.2 "]}, null ,{"0020000D":"1.2"}]"#, vec![one.clone(), None, one.clone()]),
            (br#"[{"0020000D":{"Value":[null,"1.2"]},"0020000D":{"Value":["2"]}}]"#, vec![one.clone()]),
            (br#"[{"0020000D":{"Value":[]},"0020000D":{"Value":["1.2"]}}]"#, vec![one.clone()]),
            (br#"[{"0020000D":null},{"0020000D":{"Value":[{}]}},{}]"#, vec![None, None, None]),
            (
                b"[{\"00100010\":{\"Value\":[\"a\tb\x01\\\n \\\\ \\\" ]}\xE9\"]},\"0020000D\":[\"1.2\"]}]",
                vec![one.clone()],
            ),
            // Numbers and escape sequences that JSON does not have, in attributes that are not used.
            (
                br#"[{"00101030":{"Value":[NaN, -Infinity,+1.50 ,007,.5,1.,-,True]},"0020000D":["1.2"]}]"#,
                vec![one.clone()],
            ),
            (br#"[{"00080008":["ORIGINAL\\PRIMARY\AXIAL\\\x"],"0020000D":["1.2"]}]"#, vec![one.clone()]),
            (br#"[{"00080008":["a",],"0020000D":{"Value":["1.2",] , } , }]"#, vec![one.clone()]),
            (br#"[{"00201208":{"Value":[1.]},"0020000D":["1.2"],"00201209":7}]"#, vec![one]),
        ] {
            for size in [1, 2, 7, 1000] {
                assert_eq!(read(json, size).as_ref(), Ok(&rows), "{}", String::from_utf8_lossy(json));
            }
        }
    }

    #[test]
    fn malformed_json_is_an_error() {
        for json in [
            &b"<html>"[..],
            b"[1]",
            b"[[]]",
            b"[{},]",
            b"[{} {}]",
            b"[,]",
            b"[nothing]",
            b"[{\"a\":]}]",
            b"[{\"a\":1]",
            b"[{}]x",
            b"\xEF[]",
            b"{\"a\"}",
            b"{\"error\":1}",
        ] {
            for size in [1, 1000] {
                assert_eq!(read(json, size), Err(RowError::Malformed), "{}", String::from_utf8_lossy(json));
            }
        }
        for json in [&b"["[..], b"[{}", b"[{},", b"[{\"a", b"[nu", b"{", b"[{\"a\":\"]}"] {
            assert_eq!(read(json, 3), Err(RowError::Truncated), "{}", String::from_utf8_lossy(json));
        }
    }

    #[test]
    fn counts_that_are_not_numbers_are_ignored() {
        let count = |json: &str| {
            let row = format!(r#"{{"00201208":{json}}}"#);
            serde_json::from_str::<Attributes>(&row).unwrap().study_instances.count()
        };
        for (json, expected) in [
            (r#"{"Value":[7]}"#, Some(7)),
            (r#"{"Value":["7 "]}"#, Some(7)),
            (r#"{"Value":7}"#, Some(7)),
            ("7", Some(7)),
            (r#"{"Value":[-1]}"#, None),
            (r#"{"Value":[1.5]}"#, None),
            (r#"{"Value":["many"]}"#, None),
            (r#"{"Value":[99999999999]}"#, None),
            (r#"{"Value":{"a":1}}"#, None),
            ("null", None),
        ] {
            assert_eq!(count(json), expected, "{json}");
        }
    }
}
