//! [`Identifiers`]: what an export covers, in about as much memory as its text.

use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::error::{Error, ErrorKind, Result};
use crate::model::DicomIdentifier;
use crate::model::identifier::{MAX_IDENTIFIER_LEN, split_identifier};

/// Separates the UIDs of an identifier in the table. It sorts before all characters of a UID.
const PART: u8 = b' ';

/// Ends each identifier in the table. It sorts before [`PART`].
const END: u8 = b'\n';

/// The index has an entry for every `STRIDE`th identifier.
const STRIDE: usize = 64;

/// One or more identifiers, none of which covers another, so each instance under them is exported and counted once.
///
/// A million of them take about as much memory as their text. Clones share them.
///
/// ```
/// use dicom_export::ExportSource;
///
/// let values = ["1.2.3/4.5", "1.2.3", "1.2.9"].map(|text| text.parse());
/// let ExportSource::Identifiers(identifiers) =
///     ExportSource::identifiers(values.into_iter().collect::<Result<Vec<_>, _>>()?)?
/// else {
///     unreachable!()
/// };
/// // 1.2.3 covers 1.2.3/4.5.
/// assert_eq!(identifiers.iter().map(|identifier| identifier.to_string()).collect::<Vec<_>>(), ["1.2.3", "1.2.9"]);
/// # Ok::<_, dicom_export::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Identifiers(Arc<Table>);

#[derive(PartialEq, Eq)]
struct Table {
    /// The identifiers, each ended by [`END`], with [`PART`] between UIDs.
    text: String,
    len: usize,
    /// The starts of identifiers 0, [`STRIDE`], 2 × [`STRIDE`] and so on.
    index: Vec<usize>,
}

impl Identifiers {
    /// How many identifiers there are; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.0.len
    }

    /// The identifier at this index.
    pub fn get(&self, index: usize) -> Option<DicomIdentifier> {
        let start = *self.0.index.get(index / STRIDE)?;
        lines(self.0.text.get(start..)?).nth(index % STRIDE).map(identifier)
    }

    /// The identifiers, in the order in which they were given.
    pub fn iter(&self) -> impl FusedIterator<Item = DicomIdentifier> + '_ {
        lines(&self.0.text).map(identifier)
    }
}

fn lines(text: &str) -> impl FusedIterator<Item = &str> {
    text.split_terminator(char::from(END))
}

fn identifier(line: &str) -> DicomIdentifier {
    let mut parts = line.split(char::from(PART));
    DicomIdentifier::from_valid([parts.next(), parts.next(), parts.next()])
}

impl fmt::Debug for Identifiers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl Serialize for Identifiers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// Collects identifiers.
pub(super) struct IdentifiersBuilder {
    text: String,
    len: usize,
}

impl IdentifiersBuilder {
    /// `capacity`: the length of the text that they are read from, in bytes.
    pub(super) fn new(capacity: usize) -> Self {
        Self { text: String::with_capacity(capacity), len: 0 }
    }

    /// Adds an identifier.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] for a text that is not an identifier.
    pub(super) fn push(&mut self, text: &str) -> Result<()> {
        for (at, part) in split_identifier(text)?.into_iter().flatten().enumerate() {
            if at > 0 {
                self.text.push(char::from(PART));
            }
            self.text.push_str(part);
        }
        self.text.push(char::from(END));
        self.len += 1;
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Drops identifiers that are repeated or covered by another one.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if there are none, or more than 4 GiB.
    pub(super) fn build(self) -> Result<Identifiers> {
        let Self { mut text, mut len } = self;
        if len == 0 {
            return Err(Error::new(ErrorKind::Invalid, "there are no identifiers"));
        }
        let kept = uncovered(text.as_bytes(), len)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "there are too many identifiers"))?;
        if kept.len() < len {
            let lines = kept.iter().map(|start| line(&text, *start));
            let mut rest = String::with_capacity(lines.clone().map(str::len).sum());
            rest.extend(lines);
            (text, len) = (rest, kept.len());
        }
        drop(kept);
        text.shrink_to_fit();
        let mut start = 0;
        let starts = text.split_inclusive(char::from(END)).map(|line| {
            start += line.len();
            start - line.len()
        });
        let index = starts.step_by(STRIDE).collect();
        Ok(Identifiers(Arc::new(Table { text, len, index })))
    }
}

/// The line that starts here, with its [`END`].
fn line(text: &str, start: u32) -> &str {
    text[start as usize..].split_inclusive(char::from(END)).next().unwrap_or_default()
}

/// The starts of the lines that are neither repeated nor covered by another one, in order. `None` if a start does not fit
/// into 32 bits.
///
/// Sorted by their text, repeated and covered lines directly follow the line that covers them: [`END`] sorts before
/// [`PART`], which sorts before all other characters.
fn uncovered(text: &[u8], len: usize) -> Option<Vec<u32>> {
    u32::try_from(text.len()).ok()?;
    let mut starts = Vec::with_capacity(len);
    let mut start = 0;
    for line in text.split_inclusive(|byte| *byte == END) {
        starts.push(u32::try_from(start).ok()?);
        start += line.len();
    }
    // A line and what follows it, so that its end need not be searched for each comparison.
    let window = |start: u32| {
        let start = start as usize;
        &text[start..text.len().min(start + MAX_IDENTIFIER_LEN + 1)]
    };
    starts.sort_unstable_by(|a, b| window(*a).cmp(window(*b)));
    let line = |start: u32| window(start).split(|byte| *byte == END).next().unwrap_or_default();
    let mut kept = 0;
    for read in 0..starts.len() {
        let start = starts[read];
        let is_covered = kept > 0 && {
            let covering = line(starts[kept - 1]);
            line(start).strip_prefix(covering).is_some_and(|rest| matches!(rest.first(), None | Some(&PART)))
        };
        if !is_covered {
            starts[kept] = start;
            kept += 1;
        } else if line(start).len() == line(starts[kept - 1]).len() {
            // Of repeated lines, the first one is kept.
            starts[kept - 1] = starts[kept - 1].min(start);
        }
    }
    starts.truncate(kept);
    starts.sort_unstable();
    Some(starts)
}
