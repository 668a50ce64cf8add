//! [`RowText`]: the text of one row, corrected while it arrives where servers often get JSON wrong.

use serde_json::Number;

/// The maximum length of one row in bytes.
const MAX_ROW_LEN: usize = 16 << 20;

/// The capacity of the buffer that is reused for the next row, in bytes.
const MAX_RETAINED_CAPACITY: usize = 64 << 10;

/// The row as far as it was received.
///
/// Some servers send control characters inside strings, backslashes that are not escaped, as in `ORIGINAL\PRIMARY`, numbers
/// that are not JSON's, as in `NaN` or `+1.50`, and commas before a closing bracket. Control characters are replaced by
/// spaces and such numbers by null.
#[derive(Debug, Default)]
pub(super) struct RowText {
    bytes: Vec<u8>,
    /// The number of open brackets.
    depth: usize,
    string: StringState,
    /// Where the current number or word outside of strings starts.
    literal: Option<usize>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum StringState {
    #[default]
    Outside,
    Inside,
    Escape,
}

/// The row is too long, or neither an object nor null.
#[derive(Debug)]
pub(super) struct NotARow;

impl RowText {
    /// Adds a byte. Returns whether it completes the row.
    pub(super) fn push(&mut self, byte: u8) -> Result<bool, NotARow> {
        if self.bytes.len() >= MAX_ROW_LEN {
            return Err(NotARow);
        }
        let mut byte = byte;
        match (self.string, byte) {
            (StringState::Outside, b'+' | b'-' | b'.' | b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z') => {
                self.literal.get_or_insert(self.bytes.len());
            }
            (StringState::Outside, _) => self.end_of_literal(),
            _ => {}
        }
        match (self.string, byte) {
            (StringState::Outside, b'"') => self.string = StringState::Inside,
            (StringState::Outside, b'{' | b'[') => self.depth += 1,
            (StringState::Outside, b'}' | b']') => {
                // Braces and brackets that do not match are found when the row is parsed.
                self.depth = self.depth.saturating_sub(1);
                let end = self.bytes.trim_ascii_end();
                if let Some(without_comma) = end.strip_suffix(b",") {
                    self.bytes.truncate(without_comma.len());
                }
            }
            (StringState::Outside, _) => {}
            (StringState::Inside, b'"') => self.string = StringState::Outside,
            (StringState::Inside, b'\\') => self.string = StringState::Escape,
            (StringState::Inside | StringState::Escape, 0..b' ') => {
                byte = b' ';
                // A backslash before it would make an invalid escape sequence.
                if self.string == StringState::Escape {
                    self.bytes.pop();
                    self.string = StringState::Inside;
                }
            }
            (StringState::Inside, _) => {}
            (StringState::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' | b'u') => {
                self.string = StringState::Inside;
            }
            (StringState::Escape, _) => {
                // The backslash stands for itself.
                self.bytes.push(b'\\');
                self.string = StringState::Inside;
            }
        }
        self.bytes.push(byte);
        if self.depth > 0 || self.string != StringState::Outside {
            return Ok(false);
        }
        match byte {
            b'}' | b']' => Ok(true),
            _ if self.bytes == b"null" => Ok(true),
            _ if b"null".starts_with(&self.bytes) => Ok(false),
            _ => Err(NotARow),
        }
    }

    /// Replaces a number that is not valid by null.
    fn end_of_literal(&mut self) {
        let Some(start) = self.literal.take() else { return };
        let literal = &self.bytes[start..];
        let is_valid = matches!(literal, b"null" | b"true" | b"false")
            || serde_json::from_slice::<Number>(literal).is_ok();
        if !is_valid {
            self.bytes.truncate(start);
            self.bytes.extend_from_slice(b"null");
        }
    }

    /// Calls `read` with the text, and starts the next row.
    pub(super) fn take<T>(&mut self, read: impl FnOnce(&str) -> T) -> T {
        let result = read(&String::from_utf8_lossy(&self.bytes));
        self.bytes.clear();
        // The buffer of a large row, which is rare, is not kept.
        self.bytes.shrink_to(MAX_RETAINED_CAPACITY);
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
        result
    }
}
