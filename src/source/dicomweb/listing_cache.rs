//! [`ListingCache`]: listings that later pages and repeated calls continue.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use super::query::Counts;
use super::study_listing::{StudyListing, StudyScope};
use crate::sync::lock;

/// The maximum number of cached listings: one for each concurrent listing.
const MAX_CACHED: usize = 16;

/// The maximum age of a list that the first page of a scope reuses, so that a repeated call continues.
pub(super) const MAX_AGE: Duration = Duration::from_secs(60);

/// The most recently used listings; the last used is the last entry.
#[derive(Default)]
pub(super) struct ListingCache(Mutex<VecDeque<CachedListing>>);

struct CachedListing {
    scope: StudyScope,
    created: Instant,
    listing: Arc<tokio::sync::Mutex<StudyListing>>,
}

impl ListingCache {
    /// The listing of this scope, or a new one with these stated counts. With `refresh`, one that is older than [`MAX_AGE`]
    /// is replaced.
    pub(super) fn get(
        &self,
        scope: &StudyScope,
        counts: Option<Counts>,
        refresh: bool,
    ) -> Arc<tokio::sync::Mutex<StudyListing>> {
        let mut cached = lock(&self.0);
        let index = cached.iter().position(|one| one.scope == *scope);
        let found = index.and_then(|index| cached.remove(index));
        let entry = found.filter(|one| !refresh || one.created.elapsed() < MAX_AGE);
        let entry = entry.unwrap_or_else(|| CachedListing {
            scope: scope.clone(),
            created: Instant::now(),
            listing: Arc::new(tokio::sync::Mutex::new(StudyListing::new(scope, counts))),
        });
        let listing = Arc::clone(&entry.listing);
        cached.push_back(entry);
        if cached.len() > MAX_CACHED {
            cached.pop_front();
        }
        listing
    }

    /// Removes a listing whose last page was returned.
    pub(super) fn remove(&self, scope: &StudyScope) {
        lock(&self.0).retain(|one| one.scope != *scope);
    }
}
