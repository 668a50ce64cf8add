//! [`StudyLister`]: lists all studies of a server, and finds those that the server hides behind a cap.

use std::collections::BTreeMap;

use futures::stream::{self, StreamExt, TryStreamExt};

use super::page::ListingCaveat;
use super::paged_list::PagedList;
use super::queries::Queries;
use super::query::{Counts, Query, Resource, Row};
use super::recovery::recover_broken_rows;
use super::study_list::StudyList;
use super::study_parts::{StudyPart, StudyParts, looks_capped};
use crate::error::{ErrorKind, Result};
use crate::model::Uid;

/// Shorter lists are not checked: no server has such a cap.
const MIN_CHECKED: usize = 5;

/// Longer lists are checked only if their length looks like a cap.
const MAX_CHECKED: usize = 10_000;

/// The number of parts that are listed concurrently.
const MAX_CONCURRENT_PARTS: usize = 8;

/// Lists the studies, and checks the list against [parts](StudyParts) of it. If a part has a study that the list does not
/// have, the server caps the list, and it is completed from parts.
pub(super) struct StudyLister {
    list: PagedList,
    /// Studies that only a part has.
    hidden: BTreeMap<Box<str>, Counts>,
    parts: Option<StudyParts>,
}

impl StudyLister {
    pub(super) fn new() -> Self {
        let list = PagedList::new(Query::all(Resource::Studies));
        Self { list, hidden: BTreeMap::new(), parts: None }
    }

    /// Lists the studies. After an error, or if the future is dropped, the next call continues.
    pub(super) async fn complete(&mut self, queries: &Queries) -> Result<()> {
        self.list.complete(queries, true).await?;
        for contents in [Resource::AllSeries, Resource::AllInstances] {
            recover_broken_rows(queries, &mut self.list, contents).await?;
        }
        let (length, is_capped) = (self.list.rows.len(), self.list.caveat() == Some(ListingCaveat::Capped));
        let is_checked =
            is_capped || (length >= MIN_CHECKED && (length <= MAX_CHECKED || looks_capped(length)));
        if !is_checked {
            return Ok(());
        }
        loop {
            let dates = self.list.rows.dates();
            let parts = self.parts.get_or_insert_with(|| StudyParts::new(length, dates, is_capped));
            let next = parts.take(MAX_CONCURRENT_PARTS);
            if next.is_empty() {
                return Ok(());
            }
            let listed = stream::iter(next.clone()).map(|part| list_part(queries, part));
            let listed: Result<Vec<_>> = listed.buffered(MAX_CONCURRENT_PARTS).try_collect().await;
            match listed {
                Ok(listed) => listed.into_iter().for_each(|(part, rows)| self.settle(part, &rows)),
                Err(error) if error.kind().is_transient() || error.kind() == ErrorKind::Unauthorized => {
                    parts.put_back(next);
                    return Err(error);
                }
                // The server does not support the matching.
                Err(_) => parts.give_up(),
            }
        }
    }

    fn settle(&mut self, part: StudyPart, rows: &[Row]) {
        let Some(parts) = &mut self.parts else { return };
        let mut has_hidden = false;
        for row in rows {
            let Some(key) = row.key.as_ref().filter(|key| Uid::new(key).is_ok()) else { continue };
            if !self.list.rows.contains(key) {
                has_hidden = true;
                self.hidden.insert(key.clone(), row.counts);
            }
        }
        parts.settle(part, rows, has_hidden);
    }

    /// The studies. The list contains a failure if studies are known to be missing.
    pub(super) fn into_studies(mut self) -> StudyList {
        let mut caveat = self.list.caveat();
        if let Some(parts) = self.parts.filter(StudyParts::is_capped) {
            caveat = Some(ListingCaveat::Capped);
            // The parts completed the list, unless one of them could not be divided.
            self.list.set_caveat(caveat.filter(|_| parts.is_incomplete()));
        }
        self.list.seal();
        for (key, counts) in self.hidden {
            self.list.rows.insert(&key, counts);
        }
        StudyList::new(self.list.rows.into_entries(), caveat)
    }
}

async fn list_part(queries: &Queries, part: StudyPart) -> Result<(StudyPart, Vec<Row>)> {
    let query = Query { resource: Resource::Studies, uid: None, matching: Some(part.matching().into()) };
    Ok((part, queries.rows(&query).await?))
}
