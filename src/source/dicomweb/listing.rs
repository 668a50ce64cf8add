//! What lies under a study: [`Listing`], and the [`Listings`] under way.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::client::Client;
use super::query::Target;
use super::search::{Doubt, Search};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Instance, ListFailure};
use crate::model::{InstanceIdentifier, Uid};
use crate::sync::lock;

/// How many are kept for the pages to come: one a listing under way.
const MOST_KEPT: usize = 16;

/// How many series of a study are listed at once, if the client lets so many through.
const AT_ONCE: usize = 8;

/// How old one may be that a listing begins with: a call that is repeated finds what it left.
pub(super) const FRESH: Duration = Duration::from_secs(60);

/// Where a listing stands: after this instance, or whatever was listed in its place. A series or instance that is
/// empty means that what lies before it could not be named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position(pub(super) Box<str>, pub(super) Box<str>, pub(super) Box<str>);

/// Stands in place of a series, behind all of them: the study is done, and need not be listed again to see that.
const DONE: &str = "~";

impl Position {
    pub(super) fn behind_study(key: &str) -> Self {
        Self(key.into(), DONE.into(), "".into())
    }

    pub(super) fn is_behind_study(&self, key: &str) -> bool {
        *self.0 == *key && *self.1 == *DONE
    }
}

/// What a page holds: an instance or a failure, and where it stands.
pub(super) struct Item {
    pub(super) position: Position,
    pub(super) what: Result<Instance, ListFailure>,
}

/// What a listing of a study covers of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) study: Uid,
    /// Only this series.
    pub(super) series: Option<Uid>,
}

/// The series and instances of a study, sorted: some 120 bytes an instance.
pub(super) struct Listing {
    study: Uid,
    series: Search,
    instances: BTreeMap<Box<str>, Search>,
}

impl Listing {
    fn new(part: &Part) -> Self {
        let study: Box<str> = part.study.as_str().into();
        let target = Target::SeriesOf { study };
        let series = match &part.series {
            None => Search::new(target),
            Some(series) => Search::of(target, [series.as_str().into()]),
        };
        Self { study: part.study.clone(), series, instances: BTreeMap::new() }
    }

    /// Reads it to its end. After an error the next call goes on where it stood.
    pub(super) async fn complete(&mut self, client: &Client, limit: usize) -> Result<()> {
        let target = || Target::SeriesOf { study: self.study.as_str().into() };
        if let Err(error) = self.series.complete(client, limit).await {
            check_gone(client, limit, error, &self.study, None).await?;
            self.series = Search::of(target(), []);
        }
        for (key, stated) in self.series.from(Bound::Unbounded) {
            if Uid::new(key).is_ok() && !self.instances.contains_key(key) {
                let target = Target::InstancesOf { study: self.study.as_str().into(), series: key.into() };
                self.instances.insert(key.into(), Search::new(target).stated(stated));
            }
        }
        let study = &self.study;
        // Trouble with one stops those that have not begun. Those under way come to their ends, so that nothing that
        // was answered is asked for again.
        let failed = AtomicBool::new(false);
        let work: Vec<_> = self
            .instances
            .iter_mut()
            .map(|(series, search)| async {
                if failed.load(Relaxed) {
                    return Ok(());
                }
                let outcome = list_instances(client, limit, study, series, search).await;
                failed.fetch_or(outcome.is_err(), Relaxed);
                outcome
            })
            .collect();
        let mut work = stream::iter(work).buffer_unordered(AT_ONCE);
        let mut outcome = Ok(());
        while let Some(one) = work.next().await {
            outcome = outcome.and(one);
        }
        outcome
    }

    /// What is in doubt about it.
    pub(super) fn doubts(&self) -> impl Iterator<Item = Doubt> {
        std::iter::once(&self.series).chain(self.instances.values()).filter_map(|search| search.doubt)
    }

    /// Its instances and failures after a position; all of them after none.
    pub(super) fn items<'a>(&'a self, after: Option<&'a Position>) -> impl Iterator<Item = Item> + 'a {
        let after = after.filter(|after| *after.0 == *self.study.as_str());
        let from = after.map_or(Bound::Unbounded, |Position(_, series, _)| Bound::Included(&**series));
        self.series.from(from).flat_map(move |(series, _)| {
            let after = after.filter(|after| *after.1 == *series).map(|after| &*after.2);
            self.items_of(series, after)
        })
    }

    fn items_of<'a>(&'a self, series: &'a str, after: Option<&'a str>) -> impl Iterator<Item = Item> + 'a {
        let uid = Uid::new(series).ok();
        let unusable = (uid.is_none() && after.is_none()).then(|| {
            let message = "the server lists a series whose Series Instance UID is unusable";
            self.item(series, "", Err(ListFailure::new(self.study.as_str(), message)))
        });
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let instances = self.instances.get(series).into_iter().flat_map(move |search| search.from(from));
        let instances = instances.filter_map(move |(sop, _)| {
            let series_uid = uid.clone()?;
            let what = match Uid::new(sop) {
                Ok(sop) => Ok(Instance::new(InstanceIdentifier::new(self.study.clone(), series_uid, sop))),
                Err(_) => Err(ListFailure::new(
                    format!("{}/{series}", self.study),
                    "the server lists an instance whose SOP Instance UID is unusable",
                )),
            };
            Some(self.item(series, sop, what))
        });
        unusable.into_iter().chain(instances)
    }

    fn item(&self, series: &str, sop: &str, what: Result<Instance, ListFailure>) -> Item {
        Item { position: Position(self.study.as_str().into(), series.into(), sop.into()), what }
    }
}

async fn list_instances(
    client: &Client,
    limit: usize,
    study: &Uid,
    series: &str,
    search: &mut Search,
) -> Result<()> {
    let Err(error) = search.complete(client, limit).await else { return Ok(()) };
    check_gone(client, limit, error, study, Some(series)).await?;
    *search = Search::of(Target::InstancesOf { study: study.as_str().into(), series: series.into() }, []);
    Ok(())
}

/// Passes over a search that was answered with 404 where the server does not list what was searched either: unknown
/// UIDs are no error. One that it does list is: an archive that cannot be listed is not an empty one.
///
/// # Errors
/// The error, unless it is that.
pub(super) async fn check_gone(
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
        let message = "the server lists a study or series and has no list of what it holds";
        Err(Error::new(ErrorKind::Unsupported, message))
    };
    if let Some(series) = series {
        let mut parent = Search::new(Target::SeriesOf { study: study.as_str().into() }).only(series);
        match parent.complete(client, limit).await {
            Ok(()) if parent.contains(series) => return listed(),
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    let mut parent = Search::new(Target::Studies).only(study.as_str());
    match parent.complete(client, limit).await {
        Ok(()) if parent.contains(study.as_str()) => listed(),
        outcome => outcome,
    }
}

/// Listings that pages to come, or calls that are repeated, go on with; the last used one stands last.
#[derive(Default)]
pub(super) struct Listings(Mutex<VecDeque<Kept>>);

struct Kept {
    part: Part,
    begun: Instant,
    listing: Arc<tokio::sync::Mutex<Listing>>,
}

impl Listings {
    /// The listing of this part, a new one if there is none; `anew`: or if it is not fresh.
    pub(super) fn get(&self, part: &Part, anew: bool) -> Arc<tokio::sync::Mutex<Listing>> {
        let mut kept = self.lock();
        let at = kept.iter().position(|kept| kept.part == *part);
        let found = at.and_then(|at| kept.remove(at)).filter(|kept| !anew || kept.begun.elapsed() < FRESH);
        let one = found.unwrap_or_else(|| Kept {
            part: part.clone(),
            begun: Instant::now(),
            listing: Arc::new(tokio::sync::Mutex::new(Listing::new(part))),
        });
        let listing = Arc::clone(&one.listing);
        kept.push_back(one);
        if kept.len() > MOST_KEPT {
            kept.pop_front();
        }
        listing
    }

    /// Drops a listing that has been handed out whole.
    pub(super) fn forget(&self, part: &Part) {
        self.lock().retain(|kept| kept.part != *part);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, VecDeque<Kept>> {
        lock(&self.0)
    }
}
