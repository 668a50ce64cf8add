//! Completes lists of series and instances that the server caps, by listing in other ways.

use std::collections::BTreeMap;

use super::page::ListingCaveat;
use super::paged_list::PagedList;
use super::queries::Queries;
use super::query::{Counts, Query, Resource, Row, Way};
use super::study_parts::looks_capped;
use crate::error::{Error, ErrorKind, Result};
use crate::model::Uid;

/// Completes the list of a series's instances if it has fewer than the server states, or looks capped.
pub(super) async fn recover_instances(
    queries: &Queries,
    study: &str,
    series: &str,
    list: &mut PagedList,
) -> Result<()> {
    if !needs_recovery(list) {
        return Ok(());
    }
    let ways = if list.caveat().is_some() { &Way::ALL[..] } else { &[Way::Metadata] };
    for &way in ways {
        let resource = Resource::Alternative { way, study: study.into(), series: Some(series.into()) };
        let Some(found) = list_alternative(queries, resource).await? else { continue };
        let before = list.rows.len();
        for sop in found.into_iter().filter_map(|row| row.key) {
            if !list.rows.contains(&sop) {
                list.rows.insert(&sop, Counts::default());
            }
        }
        settle(list, way, list.rows.len() > before);
        if !needs_recovery(list) {
            break;
        }
    }
    Ok(())
}

/// Completes the series of a study, and their instances, if they are fewer than the server states for the study.
pub(super) async fn recover_study(
    queries: &Queries,
    study: &str,
    stated: Counts,
    series: &mut PagedList,
    instances: &mut BTreeMap<Box<str>, PagedList>,
) -> Result<()> {
    // Instances that are missing in a series are reported there.
    let known = |instances: &BTreeMap<Box<str>, PagedList>| {
        let counts = instances
            .values()
            .map(|list| list.rows.len().max(list.stated_count().unwrap_or_default() as usize));
        counts.sum::<usize>()
    };
    let is_short = |instances: &BTreeMap<Box<str>, PagedList>| {
        stated.instances.is_some_and(|count| known(instances) < count as usize)
    };
    if series.has_broken_rows() || !(is_short(instances) || needs_recovery(series)) {
        return Ok(());
    }
    for way in Way::ALL {
        let resource = Resource::Alternative { way, study: study.into(), series: None };
        let Some(found) = list_alternative(queries, resource).await? else { continue };
        let before = known(instances);
        for row in found {
            let (Some(key), Some(sop)) = (row.parent, row.key) else { continue };
            if Uid::new(&key).is_err() {
                continue;
            }
            if !series.rows.contains(&key) {
                series.rows.insert(&key, Counts::default());
            }
            let list = instances.entry(key).or_insert_with_key(|key| {
                let mut list = PagedList::new(Query::all(Resource::instances_of(study, key)));
                list.replace([]);
                list
            });
            if !list.rows.contains(&sop) {
                list.rows.insert(&sop, Counts::default());
            }
        }
        let is_complete = stated.instances.is_some_and(|_| !is_short(instances));
        if is_complete && !series.is_short() {
            series.set_caveat(None);
            break;
        }
        settle(series, way, known(instances) > before);
        if !is_short(instances) && !needs_recovery(series) {
            break;
        }
        if way == Way::Metadata && known(instances) == before {
            // The contents of the study confirm the lists: the number is wrong.
            series.ignore_stated_count();
            series.set_caveat(Some(ListingCaveat::FewerThanStated));
            return Ok(());
        }
    }
    if is_short(instances) && series.caveat().is_none() {
        series.set_caveat(Some(ListingCaveat::Capped));
    }
    Ok(())
}

/// Finds studies, or series, in place of rows that the server fails to list: as the parents of what is in them.
pub(super) async fn recover_broken_rows(
    queries: &Queries,
    list: &mut PagedList,
    contents: Resource,
) -> Result<()> {
    if !list.has_broken_rows() {
        return Ok(());
    }
    let mut contents = PagedList::new(Query::all(contents));
    match contents.complete(queries, true).await {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Unauthorized) => {
            return Err(error);
        }
        Err(_) => return Ok(()),
    }
    let mut found = 0;
    for parent in contents.rows.parents() {
        if Uid::new(parent).is_ok() && !list.rows.contains(parent) {
            list.rows.insert(parent, Counts::default());
            found += 1;
        }
    }
    list.remove_broken_rows(found);
    Ok(())
}

/// Updates the caveat of a list after another way to list was tried.
fn settle(list: &mut PagedList, way: Way, found_more: bool) {
    let is_stated = list.stated_count().is_some();
    if is_stated && !list.is_short() {
        list.set_caveat(None);
    } else if way == Way::Metadata {
        if !is_stated {
            // The metadata of a study or series is not a list that a server caps.
            list.set_caveat(None);
        } else if !found_more && list.caveat() == Some(ListingCaveat::FewerThanStated) {
            // The contents of the series confirm the list: the number is wrong.
            list.ignore_stated_count();
        }
    }
}

fn needs_recovery(list: &PagedList) -> bool {
    match list.caveat() {
        Some(ListingCaveat::FewerThanStated) => list.is_short() && !list.has_broken_rows(),
        Some(ListingCaveat::Capped | ListingCaveat::Changed) => true,
        Some(ListingCaveat::PagingIgnored) => false,
        None => list.stated_count().is_none() && looks_capped(list.rows.len()),
    }
}

/// The rows of an alternative list; `None` if the server does not have it.
async fn list_alternative(queries: &Queries, resource: Resource) -> Result<Option<Vec<Row>>> {
    match queries.rows(&Query::all(resource)).await {
        Ok(rows) => Ok(Some(rows)),
        Err(error) if matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Unauthorized) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Accepts a 404 for a list if the server does not list the study or series itself: an unknown UID is not an error.
///
/// # Errors
/// The error if it is another one; [`ErrorKind::Unsupported`] if the server lists the study or series but not what is in
/// it, because such a study is not known to be empty.
pub(super) async fn check_unlisted(
    queries: &Queries,
    error: Error,
    study: &str,
    series: Option<&str>,
) -> Result<()> {
    if error.kind() != ErrorKind::NotFound {
        return Err(error);
    }
    let unlisted = |resource: &Resource| {
        let message = format!("the server has no list of {}, which it lists itself", resource.description());
        Err(Error::new(ErrorKind::Unsupported, message))
    };
    if let Some(series) = series {
        let mut parent = PagedList::new(Query::one(Resource::series_of(study), series));
        match parent.complete(queries, false).await {
            Ok(()) if parent.rows.contains(series) => {
                return unlisted(&Resource::instances_of(study, series));
            }
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut parent = PagedList::new(Query::one(Resource::Studies, study));
    match parent.complete(queries, false).await {
        Ok(()) if parent.rows.contains(study) => unlisted(&Resource::series_of(study)),
        result => result,
    }
}
