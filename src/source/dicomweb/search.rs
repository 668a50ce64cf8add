//! [`Search`]: one QIDO-RS list, read to its end through pages that the server need not heed.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::client::Client;
use super::query::{Rows, Target, rows};
use super::studies::Studies;
use crate::error::{Error, ErrorKind, Result};

/// How many pages may bring nothing new, one after another, before the list is taken not to move on.
const MOST_REPEATS: u32 = 2;

/// The rows of one list, sorted; each once, whatever the server repeats.
///
/// QIDO-RS promises neither an order nor that `limit` and `offset` are heeded, and a short page may be a capped one.
/// So pages are asked for until one is empty, or as many rows are there as the server said there are.
pub(super) struct Search {
    target: Target,
    /// Only the row with this UID.
    only: Option<Box<str>>,
    /// How many rows the server said there are.
    stated: Option<u32>,
    /// By what stands in place of the UID. Rows without one are told apart by a number.
    rows: BTreeMap<Box<str>, Option<u32>>,
    nameless: usize,
    offset: usize,
    repeats: u32,
    done: bool,
    /// What came to light about the server.
    pub(super) doubt: Option<Doubt>,
}

/// Why a list may lack something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// The server gives the same rows for every `offset`.
    PagingIgnored,
    /// There are fewer rows than it said.
    FewerThanStated,
}

impl Search {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            only: None,
            stated: None,
            rows: BTreeMap::new(),
            nameless: 0,
            offset: 0,
            repeats: 0,
            done: false,
            doubt: None,
        }
    }

    /// For the row with this UID alone, as far as the server heeds it.
    pub(super) fn only(mut self, uid: &str) -> Self {
        self.only = Some(uid.into());
        self
    }

    /// With what the server said of the list's length.
    pub(super) fn stated(mut self, count: Option<u32>) -> Self {
        self.stated = count;
        self
    }

    /// A list that was never asked for.
    pub(super) fn of(target: Target, keys: impl IntoIterator<Item = Box<str>>) -> Self {
        let rows = keys.into_iter().map(|key| (key, None)).collect();
        Self { rows, done: true, ..Self::new(target) }
    }

    /// Reads the list to its end. After an error, or when it is dropped, the next call goes on where it stood.
    ///
    /// # Errors
    /// Those of the queries; [`ErrorKind::Unsupported`] when the server withholds a part of the list.
    pub(super) async fn complete(&mut self, client: &Client, limit: usize) -> Result<()> {
        while !self.done {
            let page = rows(client, &self.target, self.only.as_deref(), self.offset, limit).await?;
            self.add(page, limit)?;
        }
        Ok(())
    }

    fn add(&mut self, page: Rows, limit: usize) -> Result<()> {
        let Rows { rows, received, more } = page;
        let first = self.offset == 0;
        let (before, mut nameless) = (self.rows.len(), 0);
        for row in rows {
            match row.key {
                Some(key) => _ = self.rows.insert(key, row.instances),
                None => nameless += 1,
            }
        }
        let is_new = self.rows.len() > before || (first && nameless > 0);
        if is_new {
            // One that cannot be named cannot be recognised either: it counts where it stands among new ones.
            for number in self.nameless..self.nameless + nameless {
                self.rows.insert(format!("?{number:09}").into(), None);
            }
            self.nameless += nameless;
        }
        self.offset += received;

        if self.only.as_ref().is_some_and(|uid| self.rows.contains_key(uid)) {
            self.done = true;
        } else if received == 0 {
            if more {
                return Err(withheld());
            }
            self.end();
        } else if self.stated.is_some_and(|count| self.rows.len() as u64 >= u64::from(count)) && !more {
            self.done = true;
        } else if is_new {
            self.repeats = 0;
        } else {
            self.repeats += 1;
            if self.repeats == MOST_REPEATS {
                // A full page that comes again and again hides what is behind it. A shorter one, or one that is
                // longer than was asked for, is most likely everything there is.
                if received == limit || more {
                    return Err(withheld());
                }
                self.doubt = Some(Doubt::PagingIgnored);
                self.end();
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        self.done = true;
        if self.only.is_none() && self.stated.is_some_and(|count| (self.rows.len() as u64) < u64::from(count))
        {
            self.doubt = Some(Doubt::FewerThanStated);
        }
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.rows.contains_key(key)
    }

    /// The row's count of instances.
    pub(super) fn instances(&self, key: &str) -> Option<u32> {
        self.rows.get(key).copied().flatten()
    }

    /// The rows after one, with their counts of instances.
    pub(super) fn from(&self, from: Bound<&str>) -> impl Iterator<Item = (&str, Option<u32>)> {
        self.rows.range::<str, _>((from, Bound::Unbounded)).map(|(key, count)| (&**key, *count))
    }

    pub(super) fn into_studies(self) -> Studies {
        Studies::new(self.rows, self.doubt)
    }
}

fn withheld() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the server gives only a part of a list: it repeats its pages, or caps them and gives no more",
    )
}
