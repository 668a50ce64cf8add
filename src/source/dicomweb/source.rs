//! [`DicomWebSource`]: the source itself.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use tokio::time::Instant;

use super::client::Client;
use super::list_key::{self, FAILED, Level};
use super::listing_cache::{ListingCache, MAX_AGE};
use super::page::{ListItem, ListItems, ListPosition, PageBuilder};
use super::paged_list::PagedList;
use super::queries::Queries;
use super::query::{Counts, Query, Resource};
use super::read_ahead::ReadAhead;
use super::recovery::check_unlisted;
use super::retrieve::retrieve;
use super::study_list::{StudyEntry, StudyList};
use super::study_lister::StudyLister;
use super::study_listing::StudyScope;
use crate::content::Content;
use crate::error::Result;
use crate::model::{Cursor, Instance, ListFailure, ListRequest, Page, Scope};
use crate::model::{DicomIdentifier, ExportSource, InstanceIdentifier, Uid};
use crate::source::InstanceSource;
use crate::sync::lock;

/// The maximum number of studies that are listed concurrently for one page.
const MAX_CONCURRENT_STUDIES: usize = 8;

/// How long a partial list of studies is kept for the call that continues it.
const PARTIAL_LIST_TIMEOUT: Duration = Duration::from_secs(600);

/// The maximum number of identifiers for which an estimate is requested.
const MAX_ESTIMATED_IDENTIFIERS: usize = 100;

/// Exports from a DICOMweb server: lists with QIDO-RS (PS3.18 10.6, as JSON) and reads with WADO-RS (PS3.18 10.4).
///
/// Instances are requested in their stored transfer syntax (`transfer-syntax=*`). Their bytes are streamed without being
/// parsed or buffered. A truncated response is an error, never a short instance.
///
/// Studies of small instances are read with one request each into a cache of 16 MiB by default
/// ([`read_ahead`](crate::source::DicomWebSourceBuilder::read_ahead)), from which their instances are opened as they arrive.
///
/// # Listing
/// QIDO-RS guarantees no order and has no keyset paging, so the source sorts by study, series and instance UID. An export
/// of everything lists the study UIDs once and holds them in memory: about 55 to 80 bytes for each study, and twice that
/// while they are listed. Exports that start within a minute share a list, and it is kept until another replaces it. The
/// series and instances of a study are listed when they are reached and held until the last page that needs them, at about
/// 140 bytes for each instance. Small studies are listed concurrently, up to the size of a page.
///
/// A cursor is the last instance returned. In another process, continuing from it lists the studies and the current study
/// again. A page may be shorter than requested: what was listed before an error is returned first.
///
/// # Lists that change, are capped or fail
/// A list is read again until it is complete with high probability, and lists that the server caps are completed in other
/// ways. If rows may be missing nevertheless, the page has a [warning](crate::source::ListWarning): `pagingIgnored`,
/// `fewerThanStated`, `listChanged` or `listCapped`; if they are missing, it has a [failure](ListFailure) too. What the
/// server fails to list in five attempts over about six seconds, while it works for others, is a failure. See
/// [the guide](crate::docs::dicomweb).
///
/// # Errors
/// A query's error names the list. 429 and 503 are [`Throttled`](crate::ErrorKind::Throttled), with their `Retry-After`. Other 5xx, timeouts, resets and
/// truncated responses are [`Unavailable`](crate::ErrorKind::Unavailable). 401 and 403 are
/// [`Unauthorized`](crate::ErrorKind::Unauthorized). For an instance, 404 and 410 are
/// [`NotFound`](crate::ErrorKind::NotFound); 406, 415 and a response that is not a single DICOM part are
/// [`Unreadable`](crate::ErrorKind::Unreadable). Both apply only if the server still answers queries; otherwise the server
/// as a whole is `Unavailable`. A response to a query that is not DICOM JSON is
/// [`Unsupported`](crate::ErrorKind::Unsupported).
///
/// # Security
/// Credentials and extra headers are sent only to the scheme, host and port of the service root. Redirects to other hosts
/// are followed without them; redirects from https to http are not followed. Plain http is accepted, for servers on the
/// same machine or a trusted network; it protects neither images nor credentials. Requests over https use the proxies of
/// the environment (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`) through a tunnel; requests over http use no proxy.
///
/// # Examples
/// ```
/// use dicom_export::source::{DicomWebCredentials, DicomWebSource};
///
/// # fn main() -> dicom_export::Result<()> {
/// let password = std::env::var("DICOMWEB_PASSWORD").unwrap_or_default();
/// let source = DicomWebSource::builder("http://localhost:8042/dicom-web")
///     .credentials(DicomWebCredentials::basic("orthanc", password))
///     .build()?;
/// // Pass it to `ExportEngine::builder`.
/// # _ = source;
/// # Ok(()) }
/// ```
pub struct DicomWebSource {
    queries: Queries,
    studies: Mutex<Option<CachedStudies>>,
    /// A list of studies that was not read to its end, with the time of the last call that read it.
    partial_studies: tokio::sync::Mutex<Option<(Instant, StudyLister)>>,
    listings: ListingCache,
    read_ahead: ReadAhead,
}

struct CachedStudies {
    created: Instant,
    studies: Arc<StudyList>,
}

impl DicomWebSource {
    pub(super) fn new(client: Client, page_size: usize, read_ahead: u64) -> Self {
        Self {
            queries: Queries::new(client, page_size),
            studies: Mutex::default(),
            partial_studies: tokio::sync::Mutex::default(),
            listings: ListingCache::default(),
            read_ahead: ReadAhead::with_capacity(read_ahead),
        }
    }

    /// The list of studies. With `refresh`, it is at most [`MAX_AGE`] old.
    async fn studies(&self, refresh: bool) -> Result<Arc<StudyList>> {
        if let Some(studies) = self.cached_studies(refresh) {
            return Ok(studies);
        }
        let mut partial = self.partial_studies.lock().await;
        // Another call may have completed the list while this one waited.
        if let Some(studies) = self.cached_studies(refresh) {
            return Ok(studies);
        }
        if partial.as_ref().is_some_and(|(used, _)| used.elapsed() > PARTIAL_LIST_TIMEOUT) {
            *partial = None;
        }
        let (used, lister) = partial.get_or_insert_with(|| (Instant::now(), StudyLister::new()));
        let result = lister.complete(&self.queries).await;
        *used = Instant::now();
        result?;
        let studies = partial.take().map(|(_, lister)| lister.into_studies());
        let studies = Arc::new(studies.unwrap_or_default());
        let cached = CachedStudies { created: Instant::now(), studies: Arc::clone(&studies) };
        *lock(&self.studies) = Some(cached);
        Ok(studies)
    }

    fn cached_studies(&self, refresh: bool) -> Option<Arc<StudyList>> {
        let cached = lock(&self.studies);
        let cached = cached.as_ref().filter(|cached| !refresh || cached.created.elapsed() < MAX_AGE)?;
        Some(Arc::clone(&cached.studies))
    }

    async fn list_everything(&self, after: Option<&ListPosition>, limit: usize) -> Result<Page> {
        let studies = self.studies(after.is_none()).await?;
        let mut page = PageBuilder::new(limit);
        if after.is_none() {
            page.add_caveats(studies.caveat);
        }
        let mut index = after.map_or(0, |after| {
            let index = studies.lower_bound(&after.study);
            index + usize::from(studies.get(index).is_some_and(|study| after.is_end_of_study(study.key)))
        });
        while let Some(first) = studies.get(index).filter(|_| page.remaining() > 0) {
            // The next study, and those after it that are known to fit the page too.
            let mut remaining = page.remaining() as u64;
            let fits = |study: &StudyEntry<'_>| {
                let left = study.counts.instances.and_then(|count| remaining.checked_sub(count.into()));
                remaining = left.unwrap_or_default();
                left.is_some()
            };
            let fitting = (index..studies.len()).map_while(|index| studies.get(index)).take_while(fits);
            let owned = |study: StudyEntry<'_>| (study.key.to_owned(), study.counts);
            let mut entries: Vec<_> = fitting.take(MAX_CONCURRENT_STUDIES).map(owned).collect();
            if entries.is_empty() {
                entries.push(owned(first));
            }
            // Nothing waits for a failing study while there is something to return.
            let wait = page.is_empty();
            let listings = stream::iter(entries).enumerate();
            let listings = listings.map(|(position, (key, counts))| {
                self.list_study(key, counts, after, limit, wait && position == 0)
            });
            let mut listings = listings.buffered(MAX_CONCURRENT_STUDIES);
            while let Some(result) = listings.next().await {
                let (key, scope, items) = match result {
                    Ok(listed) => listed,
                    Err(error) => return page.interrupted(error),
                };
                if !page.add(items) {
                    return page.more();
                }
                if let Some(scope) = scope {
                    self.listings.remove(&scope);
                }
                page.set_position(ListPosition::end_of_study(&key));
                index += 1;
            }
        }
        if index < studies.len() { page.more() } else { Ok(page.last()) }
    }

    /// The items of a study after a position.
    async fn list_study(
        &self,
        key: String,
        counts: Counts,
        after: Option<&ListPosition>,
        limit: usize,
        wait: bool,
    ) -> Result<(String, Option<StudyScope>, ListItems)> {
        let after = after.filter(|after| *after.study == *key);
        let Ok(study) = Uid::new(&key) else {
            let message = list_key::message(&key, Level::Study);
            let position = ListPosition::new(&key, "", "");
            let item = ListItem { position, result: Err(ListFailure::new("", message)) };
            let items = after.is_none().then_some(item).into_iter().collect();
            return Ok((key, None, ListItems { items, caveats: Vec::new() }));
        };
        let scope = StudyScope { study, series: None };
        let items = self.list_items(&scope, Some(counts), after, limit, wait).await?;
        Ok((key, Some(scope), items))
    }

    /// The items of a study or series after a position, at most one more than a page holds.
    async fn list_items(
        &self,
        scope: &StudyScope,
        counts: Option<Counts>,
        after: Option<&ListPosition>,
        limit: usize,
        wait: bool,
    ) -> Result<ListItems> {
        let listing = self.listings.get(scope, counts, after.is_none());
        let mut listing = listing.lock().await;
        listing.complete(&self.queries, wait).await?;
        let caveats = if after.is_none() { listing.caveats().collect() } else { Vec::new() };
        Ok(ListItems { items: listing.items(after).take(limit.saturating_add(1)).collect(), caveats })
    }

    async fn list_scope(
        &self,
        scope: &StudyScope,
        after: Option<&ListPosition>,
        limit: usize,
    ) -> Result<Page> {
        let mut page = PageBuilder::new(limit);
        if !page.add(self.list_items(scope, None, after, limit, true).await?) {
            return page.more();
        }
        self.listings.remove(scope);
        Ok(page.last())
    }

    async fn list_instance(&self, identifier: InstanceIdentifier) -> Result<Page> {
        let (study, series) = (identifier.study_instance_uid(), identifier.series_instance_uid());
        let sop = identifier.sop_instance_uid().as_str();
        let (study, series) = (study.as_str(), series.as_str());
        let mut list = PagedList::new(Query::one(Resource::instances_of(study, series), sop));
        if let Err(error) = list.complete(&self.queries, true).await {
            check_unlisted(&self.queries, error, study, Some(series)).await?;
        }
        // An instance that the server fails to list may exist, and is tried.
        let found = list.rows.contains(sop) || list.rows.contains(FAILED);
        Ok(Page::last(if found { vec![Instance::new(identifier)] } else { Vec::new() }))
    }

    /// The number of instances that the server states for an identifier.
    async fn instance_count(&self, identifier: &DicomIdentifier) -> Result<Option<u64>> {
        let study = identifier.study_instance_uid();
        let (resource, uid) = match (identifier.series_instance_uid(), identifier.sop_instance_uid()) {
            (_, Some(_)) => return Ok(Some(1)),
            (Some(series), None) => (Resource::series_of(study.as_str()), series),
            (None, None) => (Resource::Studies, study),
        };
        let mut list = PagedList::new(Query::one(resource, uid.as_str()));
        list.complete(&self.queries, false).await?;
        Ok(list.rows.counts(uid.as_str()).instances.map(u64::from))
    }
}

#[async_trait]
impl InstanceSource for DicomWebSource {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let after: Option<ListPosition> = request.after.map(Cursor::decode).transpose()?;
        let (after, limit) = (after.as_ref(), request.limit.max(1));
        let Scope::Identifier(scope) = request.scope else { return self.list_everything(after, limit).await };
        let (study, series) = (scope.study_instance_uid().clone(), scope.series_instance_uid().cloned());
        match (series, scope.sop_instance_uid().cloned()) {
            (Some(series), Some(sop)) => {
                self.list_instance(InstanceIdentifier::new(study, series, sop)).await
            }
            (series, _) => self.list_scope(&StudyScope { study, series }, after, limit).await,
        }
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        if let Some(bytes) = self.read_ahead.take(instance.identifier()).await {
            return Ok(Content::from_bytes(bytes));
        }
        let content = retrieve(&self.queries, instance.identifier()).await?;
        self.read_ahead.retrieved(&self.queries.client, instance, content.length());
        Ok(content)
    }

    /// The sum of Number of Study Related Instances (0020,1208), if the server states it for every study; for up to 100
    /// identifiers, the sum of what the server states for each. Otherwise `None`.
    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        let ExportSource::Identifiers(identifiers) = source else {
            return Ok(self.studies(true).await?.total_instances());
        };
        if identifiers.len() > MAX_ESTIMATED_IDENTIFIERS {
            return Ok(None);
        }
        let mut total = 0;
        for identifier in identifiers.iter() {
            let Some(count) = self.instance_count(&identifier).await? else { return Ok(None) };
            total += count;
        }
        Ok(Some(total))
    }
}

impl fmt::Debug for DicomWebSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DicomWebSource")
            .field("service_root", &self.queries.client.root().as_str())
            .field("page_size", &self.queries.page_size)
            .finish_non_exhaustive()
    }
}
