//! [`PageBuilder`]: assembles a page from list items.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::{Cursor, Instance, ListFailure, ListWarning, Page};

/// A position in the listing: after this instance, or after the entry that was listed in its place. An empty series or
/// instance stands for an entry without a usable UID at that level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ListPosition {
    pub(super) study: Box<str>,
    pub(super) series: Box<str>,
    pub(super) instance: Box<str>,
}

/// A series key that sorts after every UID: the end of a study, which needs no query to be recognized.
const STUDY_END: &str = "~";

impl ListPosition {
    pub(super) fn new(study: &str, series: &str, instance: &str) -> Self {
        Self { study: study.into(), series: series.into(), instance: instance.into() }
    }

    pub(super) fn end_of_study(study: &str) -> Self {
        Self::new(study, STUDY_END, "")
    }

    pub(super) fn is_end_of_study(&self, study: &str) -> bool {
        *self.study == *study && *self.series == *STUDY_END
    }
}

/// A reason why a list may be incomplete. Where rows are known to be missing, the list has a failure too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListingCaveat {
    /// The server returns the same rows for every `offset`.
    PagingIgnored,
    /// The list has fewer rows than the server stated.
    FewerThanStated,
    /// The list has other rows, or another order, each time.
    Changed,
    /// The server returns only a part of the list.
    Capped,
}

impl ListingCaveat {
    const ALL: [Self; 4] = [Self::PagingIgnored, Self::FewerThanStated, Self::Changed, Self::Capped];

    fn warning(self, count: u64) -> ListWarning {
        let (code, message) = match self {
            Self::PagingIgnored => {
                ("pagingIgnored", "a list of the server ignores paging, and may be incomplete")
            }
            Self::FewerThanStated => {
                ("fewerThanStated", "a list of the server is shorter than the server stated")
            }
            Self::Changed => {
                ("listChanged", "a list of the server changes each time it is read, and may be incomplete")
            }
            Self::Capped => ("listCapped", "the server caps a list, which may be incomplete"),
        };
        ListWarning::new(code, message, count)
    }
}

/// An instance or a failure, with its position.
pub(super) struct ListItem {
    pub(super) position: ListPosition,
    pub(super) result: Result<Instance, ListFailure>,
}

/// Items of one listing.
pub(super) struct ListItems {
    pub(super) items: Vec<ListItem>,
    /// The caveats of the listing, if `items` starts at its beginning.
    pub(super) caveats: Vec<ListingCaveat>,
}

/// Assembles a page of at most `limit` items.
pub(super) struct PageBuilder {
    page: Page,
    limit: usize,
    position: Option<ListPosition>,
    caveats: Vec<ListingCaveat>,
}

impl PageBuilder {
    pub(super) fn new(limit: usize) -> Self {
        Self { page: Page::default(), limit, position: None, caveats: Vec::new() }
    }

    /// The number of items that can still be added.
    pub(super) fn remaining(&self) -> usize {
        self.limit - self.page.instances.len() - self.page.failures.len()
    }

    pub(super) fn add_caveats(&mut self, caveats: impl IntoIterator<Item = ListingCaveat>) {
        self.caveats.extend(caveats);
    }

    /// Adds items up to the limit. Returns whether all were added.
    pub(super) fn add(&mut self, ListItems { items, caveats }: ListItems) -> bool {
        if self.remaining() > 0 {
            self.add_caveats(caveats);
        }
        for ListItem { position, result } in items {
            if self.remaining() == 0 {
                return false;
            }
            match result {
                Ok(instance) => self.page.instances.push(instance),
                Err(failure) => self.page.failures.push(failure),
            }
            self.position = Some(position);
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.position.is_none()
    }

    /// Sets the position from which the next page continues.
    pub(super) fn set_position(&mut self, position: ListPosition) {
        self.position = Some(position);
    }

    /// Builds the last page of a scope.
    pub(super) fn last(self) -> Page {
        let count = |caveat| self.caveats.iter().filter(|noted| **noted == caveat).count() as u64;
        let warnings = ListingCaveat::ALL.into_iter().filter(|caveat| count(*caveat) > 0);
        let warnings = warnings.map(|caveat| caveat.warning(count(caveat))).collect();
        self.page.with_warnings(warnings)
    }

    /// Builds a page that is followed by another.
    pub(super) fn more(self) -> Result<Page> {
        let next = self.position.as_ref().map(Cursor::encode).transpose()?;
        let mut page = self.last();
        page.next = next;
        Ok(page)
    }

    /// Builds a page of what was listed before an error; the next call meets the error again. Returns the error if
    /// nothing was listed.
    pub(super) fn interrupted(self, error: Error) -> Result<Page> {
        if self.position.is_none() { Err(error) } else { self.more() }
    }
}
