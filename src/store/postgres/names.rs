//! [`Names`]: the names of the schema and of the tables.

use crate::error::{Error, ErrorKind, Result};

/// The maximum length of an identifier in PostgreSQL, in bytes.
const MAX_IDENTIFIER: usize = 63;

/// The maximum length of a table's name: longer names are derived from it.
const MAX_TABLE: usize = MAX_IDENTIFIER - "_unfinished".len();

/// The schema and the table of a store. Names in statements are quoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) schema: String,
    pub(super) table: String,
}

impl Names {
    /// # Errors
    /// [`ErrorKind::Invalid`] for a name that PostgreSQL would refuse or truncate.
    pub(super) fn check_schema(name: String) -> Result<String> {
        check("schema", name, MAX_IDENTIFIER)
    }

    /// # Errors
    /// [`ErrorKind::Invalid`] for a name that PostgreSQL would refuse, or truncate with a suffix.
    pub(super) fn check_table(name: String) -> Result<String> {
        check("table", name, MAX_TABLE)
    }

    /// The schema, quoted.
    pub(super) fn quoted_schema(&self) -> String {
        quote(&self.schema)
    }

    /// The table with its schema, quoted.
    pub(super) fn quoted_table(&self) -> String {
        self.quoted("")
    }

    /// The table with its schema and a suffix, quoted.
    pub(super) fn quoted(&self, suffix: &str) -> String {
        format!("{}.{}", quote(&self.schema), quote(&format!("{}{suffix}", self.table)))
    }

    /// The name of an index of the table, quoted. An index is in the schema of its table.
    pub(super) fn quoted_index(&self, suffix: &str) -> String {
        quote(&format!("{}{suffix}", self.table))
    }
}

fn check(what: &str, name: String, max: usize) -> Result<String> {
    match (1..=max).contains(&name.len()) && !name.contains(char::is_control) {
        true => Ok(name),
        false => {
            let message =
                format!("the name of a {what} must have 1 to {max} bytes and no control characters");
            Err(Error::new(ErrorKind::Invalid, message))
        }
    }
}

/// Quotes an identifier (PostgreSQL, "Identifiers and Key Words").
fn quote(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted() {
        let names = Names { schema: "a\".b".to_owned(), table: "Op; --".to_owned() };
        assert_eq!(names.quoted("_x"), r#""a"".b"."Op; --_x""#);
    }

    #[test]
    fn names_that_cannot_be_used_are_refused() {
        for name in ["", "a\0b", "a\nb", &"x".repeat(64)] {
            assert!(Names::check_schema(name.to_owned()).is_err(), "{name:?}");
            assert!(Names::check_table(name.to_owned()).is_err(), "{name:?}");
        }
        assert!(Names::check_schema("x".repeat(63)).is_ok());
        assert!(Names::check_table("x".repeat(53)).is_err());
        assert!(Names::check_table("x".repeat(52)).is_ok());
    }
}
