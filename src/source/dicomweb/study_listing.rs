//! [`StudyListing`]: the series and instances of a study.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures::stream::{self, StreamExt};

use super::list_key::{self, FAILED, Level};
use super::page::{ListItem, ListPosition, ListingCaveat};
use super::paged_list::PagedList;
use super::queries::Queries;
use super::query::{Counts, Query, Resource, Way};
use super::read_ahead::ListedWith;
use super::recovery::{check_unlisted, recover_broken_rows, recover_instances, recover_study};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, InstanceIdentifier, ListFailure, Locator, Uid};

/// The maximum number of series of a study that are listed concurrently.
const MAX_CONCURRENT_SERIES: usize = 8;

/// The part of a study that a listing covers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct StudyScope {
    pub(super) study: Uid,
    /// Only this series.
    pub(super) series: Option<Uid>,
}

/// The series and instances of a study, sorted; about 140 bytes for each instance.
pub(super) struct StudyListing {
    scope: StudyScope,
    /// The numbers of series and instances that the server states for the study; `None` if it was not asked.
    counts: Option<Counts>,
    series: PagedList,
    instances: BTreeMap<Box<str>, PagedList>,
    is_checked: bool,
}

impl StudyListing {
    /// Creates a listing. `counts` is what the server states for the study, if it was asked.
    pub(super) fn new(scope: &StudyScope, counts: Option<Counts>) -> Self {
        let series = PagedList::new(Query::all(Resource::series_of(scope.study.as_str())));
        Self { scope: scope.clone(), counts, series, instances: BTreeMap::new(), is_checked: false }
    }

    /// Reads the rest of the listing. After an error the next call continues. `wait` is described at
    /// [`PagedList::complete`].
    pub(super) async fn complete(&mut self, queries: &Queries, wait: bool) -> Result<()> {
        if self.is_checked {
            return Ok(());
        }
        self.list_series(queries, wait).await?;
        let study = self.scope.study.as_str();
        let way = Way::StudyInstances;
        let contents = Resource::Alternative { way, study: study.into(), series: None };
        recover_broken_rows(queries, &mut self.series, contents).await?;
        for (key, counts) in self.series.rows.range_from(Bound::Unbounded) {
            if Uid::new(key).is_ok() && !self.instances.contains_key(key) {
                let list = PagedList::new(Query::all(Resource::instances_of(study, key)));
                self.instances.insert(key.into(), list.with_stated_count(counts.instances));
            }
        }
        // After an error no further list is started. Lists that are being read are completed, so that nothing is
        // requested twice.
        let failed = AtomicBool::new(false);
        let work: Vec<_> = self
            .instances
            .iter_mut()
            .map(|(series, list)| async {
                if failed.load(Relaxed) {
                    return Ok(());
                }
                let result = list_instances(queries, study, series, list, wait).await;
                failed.fetch_or(result.is_err(), Relaxed);
                result
            })
            .collect();
        let results = stream::iter(work).buffer_unordered(MAX_CONCURRENT_SERIES);
        results.fold(Ok(()), |all, one| async { all.and(one) }).await?;
        if self.scope.series.is_none() {
            let stated = self.counts.unwrap_or_default();
            recover_study(queries, study, stated, &mut self.series, &mut self.instances).await?;
        }
        self.series.seal();
        self.instances.values_mut().for_each(PagedList::seal);
        self.is_checked = true;
        Ok(())
    }

    async fn list_series(&mut self, queries: &Queries, wait: bool) -> Result<()> {
        if self.series.is_done() {
            return Ok(());
        }
        let study = self.scope.study.as_str();
        if self.counts.is_none() {
            // What the server states saves requests later and shows which lists are capped.
            self.counts = Some(match &self.scope.series {
                None => stated_counts(queries, Resource::Studies, study).await?,
                Some(series) => stated_counts(queries, Resource::series_of(study), series.as_str()).await?,
            });
        }
        let counts = self.counts.unwrap_or_default();
        if let Some(series) = &self.scope.series {
            self.series.replace([]);
            self.series.rows.insert(series.as_str(), counts);
            return Ok(());
        }
        self.series.set_stated_counts(counts);
        let Err(error) = self.series.complete(queries, wait).await else { return Ok(()) };
        match check_unlisted(queries, error, study, None).await {
            Ok(()) => self.series.replace([]),
            Err(error) if wait && is_own_failure(queries, &error, &Resource::series_of(study)).await => {
                self.series.replace([FAILED]);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    pub(super) fn caveats(&self) -> impl Iterator<Item = ListingCaveat> {
        std::iter::once(&self.series).chain(self.instances.values()).filter_map(PagedList::caveat)
    }

    /// The items after a position, or all items if it is `None` or in another study.
    pub(super) fn items<'a>(
        &'a self,
        after: Option<&'a ListPosition>,
    ) -> impl Iterator<Item = ListItem> + 'a {
        let after = after.filter(|after| *after.study == *self.scope.study.as_str());
        let from = after.map_or(Bound::Unbounded, |after| Bound::Included(&*after.series));
        let locator = self.locator();
        self.series.rows.range_from(from).flat_map(move |(series, _)| {
            let after = after.filter(|after| *after.series == *series).map(|after| &*after.instance);
            self.items_of(series, after, locator.clone())
        })
    }

    fn items_of<'a>(
        &'a self,
        series: &'a str,
        after: Option<&'a str>,
        locator: Locator,
    ) -> impl Iterator<Item = ListItem> + 'a {
        let study = &self.scope.study;
        let uid = Uid::new(series).ok();
        let failure = (uid.is_none() && after.is_none()).then(|| {
            let message = list_key::message(series, Level::Series);
            self.item(series, "", Err(ListFailure::new(study.as_str(), message)))
        });
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let instances =
            self.instances.get(series).into_iter().flat_map(move |list| list.rows.range_from(from));
        let instances = instances.filter_map(move |(sop, _)| {
            let series_uid = uid.clone()?;
            let result = match Uid::new(sop) {
                Ok(sop) => {
                    let instance = Instance::new(InstanceIdentifier::new(study.clone(), series_uid, sop));
                    Ok(instance.with_locator(locator.clone()))
                }
                Err(_) => {
                    let message = list_key::message(sop, Level::Instance);
                    Err(ListFailure::new(format!("{study}/{series}"), message))
                }
            };
            Some(self.item(series, sop, result))
        });
        failure.into_iter().chain(instances)
    }

    /// The locator of all instances of this listing.
    fn locator(&self) -> Locator {
        let instances = self.instances.values().map(|list| list.rows.len()).sum();
        let listed = ListedWith { instances, is_series: self.scope.series.is_some() };
        Locator::encode(&listed).unwrap_or_default()
    }

    fn item(&self, series: &str, sop: &str, result: Result<Instance, ListFailure>) -> ListItem {
        ListItem { position: ListPosition::new(self.scope.study.as_str(), series, sop), result }
    }
}

/// What the server states for one study or series. Errors are left to the list itself, unless a retry may help.
async fn stated_counts(queries: &Queries, resource: Resource, uid: &str) -> Result<Counts> {
    match queries.page(&Query::one(resource, uid), 0, 1).await {
        Ok(page) => {
            let row = page.rows.into_iter().find(|row| row.key.as_deref() == Some(uid));
            Ok(row.map(|row| row.counts).unwrap_or_default())
        }
        Err(error) if matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Unauthorized) => Err(error),
        Err(_) => Ok(Counts::default()),
    }
}

async fn list_instances(
    queries: &Queries,
    study: &str,
    series: &str,
    list: &mut PagedList,
    wait: bool,
) -> Result<()> {
    if list.is_done() {
        return Ok(());
    }
    let Err(error) = list.complete(queries, wait).await else {
        return recover_instances(queries, study, series, list).await;
    };
    match check_unlisted(queries, error, study, Some(series)).await {
        Ok(()) => list.replace([]),
        Err(error)
            if wait && is_own_failure(queries, &error, &Resource::instances_of(study, series)).await =>
        {
            list.replace([FAILED]);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Whether a list that the server does not have is missing for this study or series only.
async fn is_own_failure(queries: &Queries, error: &Error, resource: &Resource) -> bool {
    error.kind() == ErrorKind::Unsupported && queries.works_for_others(resource).await
}
