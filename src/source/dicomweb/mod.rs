//! [`DicomWebSource`]: any server that speaks DICOMweb.

mod answer;
mod builder;
mod client;
mod credentials;
mod lane;
mod listing;
mod media_type;
mod multipart;
mod query;
mod retrieve;
mod search;
mod studies;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use tokio::time::Instant;

pub use self::builder::DicomWebSourceBuilder;
use self::client::Client;
pub use self::credentials::DicomWebCredentials;
use self::listing::{FRESH, Item, Listings, Part, Position, check_gone};
use self::query::Target;
use self::search::{Doubt, Search};
use self::studies::{Studies, Study};
use crate::content::Content;
use crate::error::Result;
use crate::model::ExportSource;
use crate::model::{Cursor, Instance, ListFailure, ListRequest, ListWarning, Page, Scope};
use crate::model::{DicomIdentifier, InstanceIdentifier, Uid};
use crate::source::InstanceSource;
use crate::sync::lock;

/// How many studies are listed ahead of the one that a page has come to, where all of them fit the page.
const AHEAD: usize = 8;

/// How long the beginning of a list of studies waits for the call that goes on with it.
const ABANDONED: Duration = Duration::from_secs(600);

/// For how many studies and series an estimate asks.
const MOST_ESTIMATED: usize = 100;

/// A DICOMweb server: it is listed with QIDO-RS (PS3.18 10.6, as JSON) and read with WADO-RS (PS3.18 10.4).
///
/// Instances are asked for in whatever transfer syntax they are stored in (`transfer-syntax=*`), and their bytes are
/// passed on as they come, unparsed and unbuffered. A part that breaks off is an error, never a short instance.
///
/// # Listing
/// QIDO-RS promises no order and knows no "after this one", so the source makes an order: of study, series and
/// instance UID. The study UIDs are listed once for an export of everything, and are held sorted: some 50 to 75 bytes
/// a study, twice that while they are listed. A list is used again by exports that start within a minute, and held
/// until another one replaces it. Inside a study its series and their instances are listed, and held at some 120 bytes an
/// instance until the last page that needs them; small studies are listed several at once, up to the size of a page.
/// A cursor is the last instance handed out; in another process it costs listing the studies anew, and its study.
///
/// A page may be shorter than asked for: what has been listed before some trouble is handed out first.
///
/// # Servers that cap lists, or heed no paging
/// A list is read until a page is empty, or holds as many as the server said there are. Where the same full page
/// comes again and again, the rest cannot be had, and that is an error. Where it cannot be told whether
/// something is missing, the page has a [warning](ListWarning): `pagingIgnored`, or `fewerThanStated`.
///
/// # Errors
/// 429 and 503 are [`Throttled`](crate::ErrorKind::Throttled), with their `Retry-After`; other 5xx, time-outs,
/// resets and answers that break off are [`Unavailable`](crate::ErrorKind::Unavailable); 401 and 403 are
/// [`Unauthorized`](crate::ErrorKind::Unauthorized). Of an instance, 404 and 410 are
/// [`NotFound`](crate::ErrorKind::NotFound); 406, 415 and an answer that is not one part of DICOM are
/// [`Unreadable`](crate::ErrorKind::Unreadable), both only if the server still answers queries, for else it is the
/// server that is in trouble and not the instance. A query's answer that is no DICOM JSON is
/// [`Unsupported`](crate::ErrorKind::Unsupported).
///
/// # Security
/// Credentials and extra headers go to the server's own scheme, host and port only; a redirect to anywhere else is
/// followed without them, and one from https to http is not followed. Plain http is taken, for servers on the same
/// machine or network: it hides neither images nor credentials.
///
/// # Example
/// ```no_run
/// use dicom_export::source::{DicomWebCredentials, DicomWebSource};
///
/// # fn main() -> dicom_export::Result<()> {
/// let password = std::env::var("DICOMWEB_PASSWORD").unwrap_or_default();
/// let source = DicomWebSource::builder("http://localhost:8042/dicom-web")
///     .credentials(DicomWebCredentials::basic("orthanc", password))
///     .build()?;
/// # Ok(()) }
/// ```
pub struct DicomWebSource {
    client: Client,
    /// The `limit` of queries.
    page_size: usize,
    studies: Mutex<Option<Listed>>,
    /// A list of studies that has not been read to its end, and when it was last gone on with.
    unfinished: tokio::sync::Mutex<Option<(Instant, Search)>>,
    listings: Listings,
}

struct Listed {
    at: Instant,
    studies: Arc<Studies>,
}

impl DicomWebSource {
    /// A source over the DICOMweb service at this root, `https://pacs.example/dicom-web` say.
    pub fn builder(service_root: impl Into<String>) -> DicomWebSourceBuilder {
        DicomWebSourceBuilder::new(service_root.into())
    }

    fn new(client: Client, page_size: usize) -> Self {
        Self {
            client,
            page_size,
            studies: Mutex::default(),
            unfinished: tokio::sync::Mutex::default(),
            listings: Listings::default(),
        }
    }

    /// The studies as they were listed last; `anew`: within the last minute.
    async fn studies(&self, anew: bool) -> Result<Arc<Studies>> {
        if let Some(studies) = self.listed(anew) {
            return Ok(studies);
        }
        let mut unfinished = self.unfinished.lock().await;
        // Another call may have listed them meanwhile.
        if let Some(studies) = self.listed(anew) {
            return Ok(studies);
        }
        if unfinished.as_ref().is_some_and(|(last, _)| last.elapsed() > ABANDONED) {
            *unfinished = None;
        }
        let (last, search) = unfinished.get_or_insert_with(|| (Instant::now(), Search::new(Target::Studies)));
        let outcome = search.complete(&self.client, self.page_size).await;
        *last = Instant::now();
        outcome?;
        let studies: Arc<Studies> =
            Arc::new(unfinished.take().map(|(_, search)| search.into_studies()).unwrap_or_default());
        let listed = Listed { at: Instant::now(), studies: Arc::clone(&studies) };
        *lock(&self.studies) = Some(listed);
        Ok(studies)
    }

    fn listed(&self, anew: bool) -> Option<Arc<Studies>> {
        let listed = lock(&self.studies);
        let listed = listed.as_ref().filter(|listed| !anew || listed.at.elapsed() < FRESH)?;
        Some(Arc::clone(&listed.studies))
    }

    async fn everything(&self, after: Option<&Position>, limit: usize) -> Result<Page> {
        let studies = self.studies(after.is_none()).await?;
        let mut draft = Draft::new(limit);
        if after.is_none() {
            draft.doubts.extend(studies.doubt);
        }
        let mut at = after.map_or(0, |after| {
            let at = studies.position(&after.0);
            at + usize::from(studies.get(at).is_some_and(|study| after.is_behind_study(study.key)))
        });
        while let Some(first) = studies.get(at).filter(|_| draft.room() > 0) {
            // The next study, and those behind it that are known to fit the page as well.
            let mut room = draft.room() as u64;
            let fits = |study: &Study<'_>| {
                let left = study.instances.and_then(|count| room.checked_sub(count.into()));
                room = left.unwrap_or_default();
                left.is_some()
            };
            let ahead = (at..studies.len()).map_while(|at| studies.get(at)).take_while(fits).take(AHEAD);
            let mut some: Vec<_> = ahead.map(|study| study.key.to_owned()).collect();
            if some.is_empty() {
                some.push(first.key.to_owned());
            }
            let mut listed = stream::iter(some).map(|key| self.study(key, after, limit)).buffered(AHEAD);
            while let Some(outcome) = listed.next().await {
                let (key, part, items) = match outcome {
                    Ok(listed) => listed,
                    // What has been listed is handed out first; the next call meets with the trouble again.
                    Err(error) => return draft.cut_short(error),
                };
                if !draft.add(items) {
                    return draft.more();
                }
                if let Some(part) = part {
                    self.listings.forget(&part);
                }
                draft.last = Some(Position::behind_study(&key));
                at += 1;
            }
        }
        if at < studies.len() { draft.more() } else { Ok(draft.into_page()) }
    }

    /// What is left of a study after a position.
    async fn study(
        &self,
        key: String,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<(String, Option<Part>, Items)> {
        let after = after.filter(|after| *after.0 == *key);
        let Ok(study) = Uid::new(&key) else {
            let failure =
                ListFailure::new("", "the server lists a study whose Study Instance UID is unusable");
            let position = Position(key.as_str().into(), "".into(), "".into());
            let items = after.is_none().then_some(Item { position, what: Err(failure) });
            return Ok((key, None, Items { items: items.into_iter().collect(), doubts: Vec::new() }));
        };
        let part = Part { study, series: None };
        let items = self.items(&part, after, limit).await?;
        Ok((key, Some(part), items))
    }

    /// What is left of a part of a study after a position: up to one more than a page holds.
    async fn items(&self, part: &Part, after: Option<&Position>, limit: usize) -> Result<Items> {
        let listing = self.listings.get(part, after.is_none());
        let mut listing = listing.lock().await;
        listing.complete(&self.client, self.page_size).await?;
        let doubts = if after.is_none() { listing.doubts().collect() } else { Vec::new() };
        Ok(Items { items: listing.items(after).take(limit.saturating_add(1)).collect(), doubts })
    }

    async fn part(&self, part: &Part, after: Option<&Position>, limit: usize) -> Result<Page> {
        let mut draft = Draft::new(limit);
        if !draft.add(self.items(part, after, limit).await?) {
            return draft.more();
        }
        self.listings.forget(part);
        Ok(draft.into_page())
    }

    async fn instance(&self, identifier: InstanceIdentifier) -> Result<Page> {
        let (study, series) = (identifier.study_instance_uid(), identifier.series_instance_uid());
        let sop = identifier.sop_instance_uid().as_str();
        let target = Target::InstancesOf { study: study.as_str().into(), series: series.as_str().into() };
        let mut search = Search::new(target).only(sop);
        if let Err(error) = search.complete(&self.client, self.page_size).await {
            check_gone(&self.client, self.page_size, error, study, Some(series.as_str())).await?;
        }
        let found = search.contains(sop);
        Ok(Page::last(if found { vec![Instance::new(identifier)] } else { Vec::new() }))
    }

    /// How many instances the server says lie under an identifier.
    async fn count(&self, identifier: &DicomIdentifier) -> Result<Option<u64>> {
        let study = identifier.study_instance_uid();
        let (target, uid) = match (identifier.series_instance_uid(), identifier.sop_instance_uid()) {
            (_, Some(_)) => return Ok(Some(1)),
            (Some(series), None) => (Target::SeriesOf { study: study.as_str().into() }, series),
            (None, None) => (Target::Studies, study),
        };
        let mut search = Search::new(target).only(uid.as_str());
        search.complete(&self.client, self.page_size).await?;
        Ok(search.instances(uid.as_str()).map(u64::from))
    }
}

/// What a page takes up.
struct Items {
    items: Vec<Item>,
    /// What is in doubt about the listing that begins with them.
    doubts: Vec<Doubt>,
}

/// A page in the making.
struct Draft {
    page: Page,
    limit: usize,
    last: Option<Position>,
    doubts: Vec<Doubt>,
}

impl Draft {
    fn new(limit: usize) -> Self {
        Self { page: Page::default(), limit, last: None, doubts: Vec::new() }
    }

    fn room(&self) -> usize {
        self.limit - self.page.instances.len() - self.page.failures.len()
    }

    /// Adds what there is room for; `false`: not all of it.
    fn add(&mut self, Items { items, doubts }: Items) -> bool {
        if self.room() > 0 {
            self.doubts.extend(doubts);
        }
        for Item { position, what } in items {
            if self.room() == 0 {
                return false;
            }
            match what {
                Ok(instance) => self.page.instances.push(instance),
                Err(failure) => self.page.failures.push(failure),
            }
            self.last = Some(position);
        }
        true
    }

    fn into_page(self) -> Page {
        let warning = |doubt: Doubt| {
            let count = self.doubts.iter().filter(|noted| **noted == doubt).count() as u64;
            let (code, message) = match doubt {
                Doubt::PagingIgnored => {
                    ("pagingIgnored", "a list of the server ignores paging, and may be incomplete")
                }
                Doubt::FewerThanStated => {
                    ("fewerThanStated", "a list of the server is shorter than it stated")
                }
            };
            (count > 0).then(|| ListWarning::new(code, message, count))
        };
        let warnings =
            [Doubt::PagingIgnored, Doubt::FewerThanStated].into_iter().filter_map(warning).collect();
        self.page.with_warnings(warnings)
    }

    fn more(self) -> Result<Page> {
        let next = self.last.as_ref().map(Cursor::encode).transpose()?;
        let mut page = self.into_page();
        page.next = next;
        Ok(page)
    }

    fn cut_short(self, error: crate::Error) -> Result<Page> {
        if self.last.is_none() { Err(error) } else { self.more() }
    }
}

#[async_trait]
impl InstanceSource for DicomWebSource {
    async fn list(&self, request: ListRequest<'_>) -> Result<Page> {
        let after: Option<Position> = request.after.map(Cursor::decode).transpose()?;
        let (after, limit) = (after.as_ref(), request.limit.max(1));
        let Scope::Identifier(scope) = request.scope else { return self.everything(after, limit).await };
        let (study, series) = (scope.study_instance_uid().clone(), scope.series_instance_uid().cloned());
        match (series, scope.sop_instance_uid().cloned()) {
            (Some(series), Some(sop)) => self.instance(InstanceIdentifier::new(study, series, sop)).await,
            (series, _) => self.part(&Part { study, series }, after, limit).await,
        }
    }

    async fn open(&self, instance: &Instance) -> Result<Content> {
        retrieve::instance(&self.client, instance.identifier()).await
    }

    /// The sum of Number of Study Related Instances (0020,1208), where the server states it of every study. For up to
    /// a hundred identifiers each is asked for; for more there is none.
    async fn estimate(&self, source: &ExportSource) -> Result<Option<u64>> {
        let ExportSource::Identifiers(identifiers) = source else {
            return Ok(self.studies(true).await?.total());
        };
        let identifiers = identifiers.as_slice();
        if identifiers.len() > MOST_ESTIMATED {
            return Ok(None);
        }
        let mut total = 0;
        for identifier in identifiers {
            let Some(count) = self.count(identifier).await? else { return Ok(None) };
            total += count;
        }
        Ok(Some(total))
    }
}

impl fmt::Debug for DicomWebSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DicomWebSource")
            .field("service_root", &self.client.root().as_str())
            .field("page_size", &self.page_size)
            .finish_non_exhaustive()
    }
}
