//! [`PagedList`]: one QIDO-RS list, read page by page from a server that may ignore paging.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::client::Client;
use super::page::ListingCaveat;
use super::query::{QueryPage, Resource, query};
use crate::error::{Error, ErrorKind, Result};

/// The number of consecutive pages without a new row after which the server is known to repeat itself.
const MAX_REPEATED_PAGES: u32 = 2;

/// The distinct rows of one list, sorted.
///
/// QIDO-RS guarantees no order, and servers may ignore `limit` and `offset` or cap pages. So a short page does not end
/// the list: pages are read until one is empty, or until the stated number of rows was received.
pub(super) struct PagedList {
    resource: Resource,
    /// Match only the row with this UID.
    uid_filter: Option<Box<str>>,
    /// The number of rows that the server stated.
    stated_count: Option<u32>,
    /// The number of instances by the row's key. Rows without a UID have a numbered key.
    rows: BTreeMap<Box<str>, Option<u32>>,
    unnamed_rows: usize,
    offset: usize,
    repeated_pages: u32,
    done: bool,
    pub(super) caveat: Option<ListingCaveat>,
}

impl PagedList {
    pub(super) fn new(resource: Resource) -> Self {
        Self {
            resource,
            uid_filter: None,
            stated_count: None,
            rows: BTreeMap::new(),
            unnamed_rows: 0,
            offset: 0,
            repeated_pages: 0,
            done: false,
            caveat: None,
        }
    }

    /// Matches only the row with this UID. The server may ignore it.
    pub(super) fn with_uid_filter(mut self, uid: &str) -> Self {
        self.uid_filter = Some(uid.into());
        self
    }

    /// Sets the number of rows that the server stated.
    pub(super) fn with_stated_count(mut self, count: Option<u32>) -> Self {
        self.stated_count = count;
        self
    }

    /// A complete list with these rows, without a query.
    pub(super) fn from_keys(resource: Resource, keys: impl IntoIterator<Item = Box<str>>) -> Self {
        let rows = keys.into_iter().map(|key| (key, None)).collect();
        Self { rows, done: true, ..Self::new(resource) }
    }

    /// Reads the rest of the list. After an error, or if the future is dropped, the next call continues.
    ///
    /// # Errors
    /// Those of the queries; [`ErrorKind::Unsupported`] if the server returns only a part of the list.
    pub(super) async fn complete(&mut self, client: &Client, limit: usize) -> Result<()> {
        while !self.done {
            let page = query(client, &self.resource, self.uid_filter.as_deref(), self.offset, limit).await?;
            self.add(page, limit)?;
        }
        Ok(())
    }

    fn add(&mut self, page: QueryPage, limit: usize) -> Result<()> {
        let QueryPage { rows, received, has_more } = page;
        let is_first = self.offset == 0;
        let (known, mut unnamed) = (self.rows.len(), 0);
        for row in rows {
            match row.key {
                Some(key) => _ = self.rows.insert(key, row.instance_count),
                None => unnamed += 1,
            }
        }
        let is_new = self.rows.len() > known || (is_first && unnamed > 0);
        if is_new {
            // Rows without a UID cannot be recognized as repeated: they count if they come with new ones.
            for number in self.unnamed_rows..self.unnamed_rows + unnamed {
                self.rows.insert(format!("?{number:09}").into(), None);
            }
            self.unnamed_rows += unnamed;
        }
        self.offset += received;

        let reached_stated_count =
            self.stated_count.is_some_and(|count| self.rows.len() as u64 >= u64::from(count));
        if self.uid_filter.as_ref().is_some_and(|uid| self.rows.contains_key(uid)) {
            self.done = true;
        } else if received == 0 {
            if has_more {
                return Err(incomplete());
            }
            self.finish();
        } else if reached_stated_count && !has_more {
            self.done = true;
        } else if is_new {
            self.repeated_pages = 0;
        } else {
            self.repeated_pages += 1;
            if self.repeated_pages == MAX_REPEATED_PAGES {
                // A full page that is repeated hides the rows after it. A page that is shorter or longer than requested
                // is most likely the whole list.
                if received == limit || has_more {
                    return Err(incomplete());
                }
                self.caveat = Some(ListingCaveat::PagingIgnored);
                self.finish();
            }
        }
        Ok(())
    }

    fn finish(&mut self) {
        self.done = true;
        let is_short = self.stated_count.is_some_and(|count| (self.rows.len() as u64) < u64::from(count));
        if self.uid_filter.is_none() && is_short {
            self.caveat = Some(ListingCaveat::FewerThanStated);
        }
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.rows.contains_key(key)
    }

    /// The number of instances that the server stated for this row.
    pub(super) fn instance_count(&self, key: &str) -> Option<u32> {
        self.rows.get(key).copied().flatten()
    }

    /// The rows from this bound on, with their numbers of instances.
    pub(super) fn rows_from(&self, from: Bound<&str>) -> impl Iterator<Item = (&str, Option<u32>)> {
        self.rows.range::<str, _>((from, Bound::Unbounded)).map(|(key, count)| (&**key, *count))
    }

    pub(super) fn into_rows(self) -> BTreeMap<Box<str>, Option<u32>> {
        self.rows
    }
}

fn incomplete() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the server returns only a part of a list: it repeats pages, or caps the list",
    )
}
