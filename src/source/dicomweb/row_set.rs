//! [`RowSet`]: the distinct rows of a list.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use chrono::NaiveDate;

use super::list_key;
use super::query::{Counts, Row};

/// The maximum number of rows without a UID that are reported one by one.
const MAX_UNNAMED_ROWS: usize = 1000;

/// The distinct rows of a list, sorted by UID. [Other keys](list_key) stand for failures.
#[derive(Debug)]
pub(super) struct RowSet {
    entries: BTreeMap<Box<str>, Entry>,
    /// The number of rows with a UID.
    named: usize,
    /// The number of rows without a UID, of which the first have an entry.
    unnamed: usize,
    /// The number of instances in all rows, if the server states it for each.
    instances: Option<u32>,
    dates: BTreeMap<NaiveDate, u32>,
    parents: BTreeSet<Box<str>>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    counts: Counts,
    /// The last pass that had it; `None` for a row that was not listed.
    pass: Option<u32>,
}

/// What was known of a row that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    No,
    FromEarlierPass,
    FromThisPass,
}

impl RowSet {
    pub(super) fn new() -> Self {
        Self {
            entries: BTreeMap::new(),
            named: 0,
            unnamed: 0,
            instances: Some(0),
            dates: BTreeMap::new(),
            parents: BTreeSet::new(),
        }
    }

    /// Returns what is known of the row with this key.
    pub(super) fn known(&self, key: &str, pass: u32) -> Known {
        match self.entries.get(key) {
            None => Known::No,
            Some(entry) if entry.pass == Some(pass) => Known::FromThisPass,
            Some(_) => Known::FromEarlierPass,
        }
    }

    /// Adds a row that a pass received. Returns its key.
    pub(super) fn add(&mut self, row: Row, pass: u32) -> Option<Box<str>> {
        let Row { key, parent, counts, date } = row;
        if let Some(parent) = parent.filter(|parent| !self.parents.contains(parent)) {
            self.parents.insert(parent);
        }
        let key = key?;
        if self.entries.insert(key.clone(), Entry { counts, pass: Some(pass) }).is_none() {
            self.named += 1;
            let sum = self.instances.zip(counts.instances);
            self.instances = sum.and_then(|(sum, count)| sum.checked_add(count));
            if let Some(date) = date {
                *self.dates.entry(date).or_default() += 1;
            }
        }
        Some(key)
    }

    /// Raises the number of rows without a UID.
    pub(super) fn set_unnamed(&mut self, count: usize) {
        for number in self.unnamed.min(MAX_UNNAMED_ROWS)..count.min(MAX_UNNAMED_ROWS) {
            self.insert(&list_key::unnamed_row(number), Counts::default());
        }
        self.unnamed = self.unnamed.max(count);
    }

    /// Inserts an entry that was not listed.
    pub(super) fn insert(&mut self, key: &str, counts: Counts) {
        self.entries.insert(key.into(), Entry { counts, pass: None });
    }

    pub(super) fn remove(&mut self, key: &str) {
        self.entries.remove(key);
    }

    /// The number of rows, including failures in place of rows.
    pub(super) fn len(&self) -> usize {
        self.entries.len() + self.unnamed.saturating_sub(MAX_UNNAMED_ROWS)
    }

    /// The number of rows with a UID that were received.
    pub(super) fn named(&self) -> usize {
        self.named
    }

    /// The number of instances in all rows, if the server states it for each.
    pub(super) fn instances(&self) -> Option<u32> {
        self.instances
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn counts(&self, key: &str) -> Counts {
        self.entries.get(key).map(|entry| entry.counts).unwrap_or_default()
    }

    /// The entries from this bound on.
    pub(super) fn range_from(&self, from: Bound<&str>) -> impl Iterator<Item = (&str, Counts)> {
        self.entries.range::<str, _>((from, Bound::Unbounded)).map(|(key, entry)| (&**key, entry.counts))
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(|key| &**key)
    }

    /// The numbers of rows by study date.
    pub(super) fn dates(&self) -> &BTreeMap<NaiveDate, u32> {
        &self.dates
    }

    /// The studies or series that the rows belong to, where the rows state it.
    pub(super) fn parents(&self) -> impl Iterator<Item = &str> {
        self.parents.iter().map(|parent| &**parent)
    }

    pub(super) fn into_entries(self) -> impl Iterator<Item = (Box<str>, Counts)> {
        self.entries.into_iter().map(|(key, entry)| (key, entry.counts))
    }
}
