//! [`StudyListing`]: the series and instances of a study.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures::stream::{self, StreamExt};

use super::client::Client;
use super::page::{ListItem, ListPosition, ListingCaveat};
use super::paged_list::PagedList;
use super::query::Resource;
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, InstanceIdentifier, ListFailure, Uid};

/// The maximum number of series of a study that are listed concurrently.
const MAX_CONCURRENT_SERIES: usize = 8;

/// The part of a study that a listing covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StudyScope {
    pub(super) study: Uid,
    /// Only this series.
    pub(super) series: Option<Uid>,
}

/// The series and instances of a study, sorted; about 120 bytes for each instance.
pub(super) struct StudyListing {
    study: Uid,
    series: PagedList,
    instances: BTreeMap<Box<str>, PagedList>,
}

impl StudyListing {
    pub(super) fn new(scope: &StudyScope) -> Self {
        let resource = Resource::SeriesOf { study: scope.study.as_str().into() };
        let series = match &scope.series {
            None => PagedList::new(resource),
            Some(series) => PagedList::from_keys(resource, [series.as_str().into()]),
        };
        Self { study: scope.study.clone(), series, instances: BTreeMap::new() }
    }

    /// Reads the rest of the listing. After an error the next call continues.
    pub(super) async fn complete(&mut self, client: &Client, limit: usize) -> Result<()> {
        if let Err(error) = self.series.complete(client, limit).await {
            check_unlisted(client, limit, error, &self.study, None).await?;
            self.series = PagedList::from_keys(Resource::SeriesOf { study: self.study.as_str().into() }, []);
        }
        for (key, instance_count) in self.series.rows_from(Bound::Unbounded) {
            if Uid::new(key).is_ok() && !self.instances.contains_key(key) {
                let list = PagedList::new(instances_of(&self.study, key)).with_stated_count(instance_count);
                self.instances.insert(key.into(), list);
            }
        }
        let study = &self.study;
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
                let result = complete_instances(client, limit, study, series, list).await;
                failed.fetch_or(result.is_err(), Relaxed);
                result
            })
            .collect();
        let results = stream::iter(work).buffer_unordered(MAX_CONCURRENT_SERIES);
        results.fold(Ok(()), |all, one| async { all.and(one) }).await
    }

    pub(super) fn caveats(&self) -> impl Iterator<Item = ListingCaveat> {
        std::iter::once(&self.series).chain(self.instances.values()).filter_map(|list| list.caveat)
    }

    /// The items after a position, or all items if it is `None` or in another study.
    pub(super) fn items<'a>(
        &'a self,
        after: Option<&'a ListPosition>,
    ) -> impl Iterator<Item = ListItem> + 'a {
        let after = after.filter(|after| *after.study == *self.study.as_str());
        let from = after.map_or(Bound::Unbounded, |after| Bound::Included(&*after.series));
        self.series.rows_from(from).flat_map(move |(series, _)| {
            let after = after.filter(|after| *after.series == *series).map(|after| &*after.instance);
            self.items_of(series, after)
        })
    }

    fn items_of<'a>(
        &'a self,
        series: &'a str,
        after: Option<&'a str>,
    ) -> impl Iterator<Item = ListItem> + 'a {
        let uid = Uid::new(series).ok();
        let unusable = (uid.is_none() && after.is_none()).then(|| {
            let message = "the server lists a series with an invalid or missing Series Instance UID";
            self.item(series, "", Err(ListFailure::new(self.study.as_str(), message)))
        });
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let instances = self.instances.get(series).into_iter().flat_map(move |list| list.rows_from(from));
        let instances = instances.filter_map(move |(sop, _)| {
            let series_uid = uid.clone()?;
            let result = match Uid::new(sop) {
                Ok(sop) => Ok(Instance::new(InstanceIdentifier::new(self.study.clone(), series_uid, sop))),
                Err(_) => Err(ListFailure::new(
                    format!("{}/{series}", self.study),
                    "the server lists an instance with an invalid or missing SOP Instance UID",
                )),
            };
            Some(self.item(series, sop, result))
        });
        unusable.into_iter().chain(instances)
    }

    fn item(&self, series: &str, sop: &str, result: Result<Instance, ListFailure>) -> ListItem {
        ListItem { position: ListPosition::new(self.study.as_str(), series, sop), result }
    }
}

fn instances_of(study: &Uid, series: &str) -> Resource {
    Resource::InstancesOf { study: study.as_str().into(), series: series.into() }
}

async fn complete_instances(
    client: &Client,
    limit: usize,
    study: &Uid,
    series: &str,
    list: &mut PagedList,
) -> Result<()> {
    let Err(error) = list.complete(client, limit).await else { return Ok(()) };
    check_unlisted(client, limit, error, study, Some(series)).await?;
    *list = PagedList::from_keys(instances_of(study, series), []);
    Ok(())
}

/// Accepts a 404 for a list if the server does not list the study or series itself: an unknown UID is not an error.
///
/// # Errors
/// The error if it is another one; [`ErrorKind::Unsupported`] if the server lists the study or series but not what is in
/// it, because such a study is not known to be empty.
pub(super) async fn check_unlisted(
    client: &Client,
    limit: usize,
    error: Error,
    study: &Uid,
    series: Option<&str>,
) -> Result<()> {
    if error.kind() != ErrorKind::NotFound {
        return Err(error);
    }
    let listed = || {
        let message = "the server lists a study or series but not its contents";
        Err(Error::new(ErrorKind::Unsupported, message))
    };
    if let Some(series) = series {
        let resource = Resource::SeriesOf { study: study.as_str().into() };
        let mut parent = PagedList::new(resource).with_uid_filter(series);
        match parent.complete(client, limit).await {
            Ok(()) if parent.contains(series) => return listed(),
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut parent = PagedList::new(Resource::Studies).with_uid_filter(study.as_str());
    match parent.complete(client, limit).await {
        Ok(()) if parent.contains(study.as_str()) => listed(),
        result => result,
    }
}
