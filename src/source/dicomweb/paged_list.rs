//! [`PagedList`]: one QIDO-RS list, read page by page from a server that may ignore paging, cap lists or change them.

mod failures;

use std::ops::Range;

use super::list_key;
use super::page::ListingCaveat;
use super::queries::Queries;
use super::query::{Counts, Query, QueryPage, Row};
use super::row_set::{Known, RowSet};
use crate::error::{Error, ErrorKind, Result};

/// The number of consecutive pages without a new row after which a pass ends.
const MAX_REPEATED_PAGES: u32 = 2;

/// The number of empty pages that are skipped in search of rows after them: one, or more while rows are missing that the
/// server stated.
const MAX_EMPTY_PAGES: (u32, u32) = (1, 16);

/// The limit of queries after the first pass of a list that changes, in rows.
const MAX_ENLARGED_LIMIT: usize = 10_000;

/// A list that changes is read again until the probability that a row was missed in every pass is below this.
const MAX_UNCERTAINTY: f64 = 1e-3;

/// The maximum number of passes over a list of few pages, and over a list of many.
const MAX_PASSES: (u32, u32) = (20, 4);
const MANY_PAGES: u32 = 50;

/// The maximum number of rows with a UID. A list that is longer does not end.
const MAX_ROWS: usize = 5_000_000;

/// One list.
///
/// QIDO-RS guarantees no order, and servers may ignore `limit` and `offset`, cap pages, or return short and empty pages in
/// the middle. So a list is read in **passes**. A pass reads pages until no page has a new row, looks past the end once, and
/// lets consecutive pages overlap by one row, which must be the same in both. A pass in which rows repeat, or the
/// overlapping row differs, may have missed rows: another pass follows until the union of all passes is complete with high
/// probability.
pub(super) struct PagedList {
    query: Query,
    /// The number of rows that the server stated.
    stated_count: Option<u32>,
    /// The number of instances in all rows that the server stated.
    stated_instances: Option<u32>,
    pub(super) rows: RowSet,
    has_broken_rows: bool,
    pass: Pass,
    /// Passes before this one.
    passes: u32,
    /// The probability that a row was missed in every pass since the last new row.
    uncertainty: f64,
    is_capped: bool,
    enlarged_limit: Option<usize>,
    /// While set, a page is being divided to find the row that the server fails to list.
    divided_limit: Option<usize>,
    consecutive_broken_rows: u32,
    is_done: bool,
    caveat: Option<ListingCaveat>,
}

/// The state of a pass.
#[derive(Debug, Default)]
struct Pass {
    /// The offset of the next row.
    offset: usize,
    /// The key of the row before the next one, which the next page repeats.
    last_key: Option<Box<str>>,
    pages: u32,
    distinct_rows: usize,
    unnamed_rows: usize,
    /// Rows that no earlier pass had.
    new_rows: usize,
    /// The number of consecutive empty pages, and the offset after them.
    empty_pages: u32,
    offset_after_empty: usize,
    /// Offsets between an empty page and a later one with rows that were not tried.
    gap: Option<Range<usize>>,
    repeated_pages: u32,
    /// The pass may have missed rows.
    is_suspect: bool,
    paging_ignored: bool,
    is_capped: bool,
}

struct Request {
    offset: usize,
    limit: usize,
    page_size: usize,
    overlaps: bool,
    is_past_end: bool,
}

impl PagedList {
    pub(super) fn new(query: Query) -> Self {
        Self {
            query,
            stated_count: None,
            stated_instances: None,
            rows: RowSet::new(),
            has_broken_rows: false,
            pass: Pass::default(),
            passes: 0,
            uncertainty: 1.0,
            is_capped: false,
            enlarged_limit: None,
            divided_limit: None,
            consecutive_broken_rows: 0,
            is_done: false,
            caveat: None,
        }
    }

    /// Sets the number of rows that the server stated.
    pub(super) fn with_stated_count(mut self, count: Option<u32>) -> Self {
        self.stated_count = count;
        self
    }

    /// Makes it a complete list with these keys.
    pub(super) fn replace<'a>(&mut self, keys: impl IntoIterator<Item = &'a str>) {
        let stated_count = self.stated_count;
        *self = Self { is_done: true, stated_count, ..Self::new(self.query.clone()) };
        for key in keys {
            self.rows.insert(key, Counts::default());
            self.has_broken_rows |= list_key::is_broken(key);
        }
    }

    /// Reads the rest of the list. After an error, or if the future is dropped, the next call continues.
    ///
    /// A page that keeps failing while the server works for others is divided, with `wait`, until the rows that fail are
    /// found; they become failures. Without `wait` its error is returned.
    ///
    /// # Errors
    /// Those of the queries.
    pub(super) async fn complete(&mut self, queries: &Queries, wait: bool) -> Result<()> {
        while !self.is_done {
            let request = self.next_request(queries.page_size);
            match queries.page(&self.query, request.offset, request.limit).await {
                Ok(page) => {
                    self.add(page, &request);
                    if self.rows.named() > MAX_ROWS {
                        let message = "a list of the server has too many rows, or does not end";
                        return Err(Error::new(ErrorKind::Unsupported, message));
                    }
                }
                Err(error) => self.handle_failure(queries, error, &request, wait).await?,
            }
        }
        Ok(())
    }

    fn next_request(&self, page_size: usize) -> Request {
        let limit = self.divided_limit.or(self.enlarged_limit).unwrap_or(page_size);
        if let Some(gap) = &self.pass.gap {
            let offset = gap.start + gap.len() / 2;
            return Request { offset, limit, page_size, overlaps: false, is_past_end: false };
        }
        let is_past_end = self.pass.empty_pages > 0;
        let overlaps = !is_past_end
            && limit > 1
            && self.divided_limit.is_none()
            && self.query.uid.is_none()
            && self.pass.last_key.is_some();
        let offset = match is_past_end {
            true => self.pass.offset_after_empty,
            false => self.pass.offset - usize::from(overlaps),
        };
        Request { offset, limit, page_size, overlaps, is_past_end }
    }

    fn add(&mut self, page: QueryPage, request: &Request) {
        let QueryPage { rows, received, unnamed, has_more } = page;
        if let Some(limit) = self.divided_limit {
            self.divided_limit = Some(2 * limit).filter(|limit| *limit < request.page_size);
        }
        self.consecutive_broken_rows = 0;
        self.pass.pages += 1;
        let known_before = self.pass.distinct_rows;
        let has_last_row = self.add_rows(rows, request);
        let new_in_pass = self.pass.distinct_rows - known_before;
        if let Some(gap) = self.pass.gap.take() {
            let rest = if new_in_pass > 0 { gap.start..request.offset } else { request.offset + 1..gap.end };
            self.pass.gap = Some(rest).filter(|rest| !rest.is_empty());
            return;
        }
        if received == 0 {
            self.pass.is_capped |= has_more;
            // The row that the last page ended with is gone.
            self.pass.is_suspect |= request.overlaps;
            return self.end_of_rows(request);
        }
        if new_in_pass > 0 || request.offset == 0 {
            // Rows without a UID cannot be recognized as repeated: they count if they come with new ones.
            self.pass.unnamed_rows += unnamed;
            self.rows.set_unnamed(self.pass.unnamed_rows);
        }
        if self.query.uid.as_ref().is_some_and(|uid| self.rows.contains(uid)) {
            self.is_done = true;
            return;
        }
        if request.is_past_end {
            if new_in_pass == 0 {
                return self.end_of_rows(request);
            }
            // The offsets count rows that the server does not return, or one page was empty by mistake.
            self.pass.is_suspect = true;
            self.pass.empty_pages = 0;
            self.pass.gap = Some(self.pass.offset..request.offset);
        }
        self.pass.offset = request.offset + received;
        if self.is_complete() && received < request.limit && !has_more && !self.pass.is_suspect {
            self.finish();
        } else if new_in_pass > 0 {
            self.pass.repeated_pages = 0;
        } else if request.overlaps && has_last_row && received == 1 {
            self.pass.is_capped |= has_more;
            self.end_of_rows(request);
        } else if request.offset > 0 || self.passes > 0 {
            self.pass.repeated_pages += 1;
            if self.pass.repeated_pages >= MAX_REPEATED_PAGES {
                // A full page that is repeated hides the rows after it. A page that is shorter or longer than requested
                // is most likely the whole list.
                self.pass.is_capped |= received == request.limit || has_more;
                self.pass.paging_ignored = true;
                self.end_pass();
            }
        }
    }

    /// Adds the rows of a page. Returns whether it begins with the last row of the page before, or was shifted by rows that
    /// are known.
    fn add_rows(&mut self, rows: Vec<Row>, request: &Request) -> bool {
        let mut expected = self.pass.last_key.take().filter(|_| request.overlaps);
        let (is_expected, mut has_last_row) = (expected.is_some(), false);
        let (mut last_key, row_count) = (None, rows.len());
        for row in rows {
            let known = row.key.as_ref().map(|key| self.rows.known(key, self.passes));
            last_key = self.rows.add(row, self.passes);
            let Some(known) = known else { continue };
            let is_repeated = known == Known::FromThisPass;
            if expected.is_some() {
                // Rows that were added to the list shift rows of the last page to this one, which loses none.
                let is_last = expected == last_key;
                has_last_row |= is_last;
                if is_last || !is_repeated {
                    self.pass.is_suspect |= !is_last;
                    expected = None;
                }
            } else if is_repeated {
                self.pass.is_suspect = true;
            }
            self.pass.distinct_rows += usize::from(!is_repeated);
            self.pass.new_rows += usize::from(known == Known::No);
        }
        self.pass.is_suspect |= is_expected && !has_last_row;
        // A first page of one row may be a cap: pages that overlap by it would not advance.
        let is_first_of_one = request.offset == 0 && self.pass.distinct_rows == 1;
        // A page of only the overlapping row, which is another one, does not advance either.
        let is_stuck = is_expected && !has_last_row && row_count == 1;
        self.pass.last_key = last_key.filter(|_| !is_first_of_one && !is_stuck);
        has_last_row
    }

    /// Looks for rows after an empty page, or ends the pass.
    fn end_of_rows(&mut self, request: &Request) {
        let max = if self.is_short() { MAX_EMPTY_PAGES.1 } else { MAX_EMPTY_PAGES.0 };
        let may_continue = self.query.uid.is_none() && (!self.is_complete() || self.pass.is_suspect);
        if may_continue && self.pass.empty_pages < max {
            self.pass.empty_pages += 1;
            self.pass.offset_after_empty = request.offset + request.limit;
        } else {
            self.end_pass();
        }
    }

    fn end_pass(&mut self) {
        let pass = std::mem::take(&mut self.pass);
        self.passes += 1;
        if self.passes == 1 || pass.new_rows > 0 {
            self.is_capped = pass.is_capped;
            self.uncertainty = 1.0;
        } else {
            let coverage = pass.distinct_rows as f64 / self.rows.named().max(1) as f64;
            self.uncertainty *= 1.0 - coverage;
        }
        if pass.paging_ignored {
            self.caveat = Some(ListingCaveat::PagingIgnored);
        }
        let is_reliable = !pass.is_suspect && !self.is_capped;
        if is_reliable || self.is_complete() || self.query.uid.is_some() {
            return self.finish();
        }
        let max = if pass.pages > MANY_PAGES { MAX_PASSES.1 } else { MAX_PASSES.0 };
        if self.uncertainty < MAX_UNCERTAINTY || self.passes >= max {
            if self.is_capped {
                self.caveat = Some(ListingCaveat::Capped);
            } else if self.uncertainty >= MAX_UNCERTAINTY {
                self.caveat = Some(ListingCaveat::Changed);
            }
            return self.finish();
        }
        self.enlarged_limit = Some((2 * self.rows.len()).clamp(1000, MAX_ENLARGED_LIMIT));
    }

    fn finish(&mut self) {
        self.is_done = true;
        self.pass = Pass::default();
        self.enlarged_limit = None;
        if self.query.uid.is_none() && self.is_short() {
            self.caveat = Some(ListingCaveat::FewerThanStated);
        }
    }

    /// Whether the rows are as many, or contain as many instances, as the server stated.
    fn is_complete(&self) -> bool {
        let has_all = |count| self.rows.len() == count as usize;
        let has_instances = self.stated_instances.is_some() && self.stated_instances == self.rows.instances();
        self.stated_count.map_or(has_instances, has_all)
    }

    /// Whether rows are missing that the server stated.
    pub(super) fn is_short(&self) -> bool {
        self.stated_count.is_some_and(|count| self.rows.len() < count as usize)
    }

    /// Whether the list contains failures in place of rows.
    pub(super) fn has_broken_rows(&self) -> bool {
        self.has_broken_rows
    }

    pub(super) fn stated_count(&self) -> Option<u32> {
        self.stated_count
    }

    /// Removes up to this number of failures in place of rows, which were found in another way.
    pub(super) fn remove_broken_rows(&mut self, count: usize) {
        let is_broken = |key: &str| list_key::is_broken(key);
        let broken: Vec<_> =
            self.rows.keys().filter(|key| is_broken(key)).take(count).map(str::to_owned).collect();
        for key in broken {
            self.rows.remove(&key);
        }
        self.has_broken_rows = self.rows.keys().any(is_broken);
    }

    /// Sets the numbers of rows, and of instances in all rows, that the server stated.
    pub(super) fn set_stated_counts(&mut self, counts: Counts) {
        self.stated_count = counts.series;
        self.stated_instances = counts.instances;
    }

    /// Ignores the stated number of rows, which turned out to be wrong.
    pub(super) fn ignore_stated_count(&mut self) {
        self.stated_count = None;
    }

    pub(super) fn is_done(&self) -> bool {
        self.is_done
    }

    /// Why the list may be incomplete.
    pub(super) fn caveat(&self) -> Option<ListingCaveat> {
        self.caveat
    }

    pub(super) fn set_caveat(&mut self, caveat: Option<ListingCaveat>) {
        self.caveat = caveat;
    }

    /// Ends a list that cannot be completed further: adds a failure if rows are known to be missing.
    pub(super) fn seal(&mut self) {
        let is_wrong_count = self.caveat == Some(ListingCaveat::FewerThanStated) && !self.is_short();
        if let Some(key) = self.caveat.filter(|_| !is_wrong_count).and_then(list_key::of_caveat) {
            self.rows.insert(key, Counts::default());
        }
    }
}
