//! [`Walker`]: a listing of everything, from page to page.

use std::collections::HashSet;
use std::hash::Hasher;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use siphasher::sip128::{Hasher128, SipHasher13};
use tokio::time::Instant;
use uuid::Uuid;

use super::ahead::ReadAhead;
use super::path;
use super::report::DirectoryReport;
use super::scan::{Entry, Scan, Tree, What};
use crate::error::{Error, ErrorKind, Result};
use crate::model::InstanceIdentifier;
use crate::model::{Cursor, Instance, Locator, Page};
use crate::sync::lock;

/// How many walkers are kept for their next page: one an operation that exports everything.
const MOST_KEPT: usize = 8;

/// How long one that waits keeps what it has read ahead.
const PATIENCE: Duration = Duration::from_secs(60);

/// A walk through the tree that has handed out everything up to a cursor.
pub(super) struct Walker {
    scan: Scan,
    ahead: ReadAhead,
    seen: Seen,
    /// Up to here the files were handed out by an earlier walker: they are read only to know their identities.
    catching_up: Option<PathBuf>,
}

impl Walker {
    /// A walker that goes on after a cursor, from the first file when there is none.
    pub(super) fn new(tree: &Tree, ahead: &ReadAhead, after: Option<&Cursor>) -> Result<Self> {
        let unusable = || Error::new(ErrorKind::Internal, "a stored Cursor cannot be read");
        let catching_up =
            after.map(|cursor| path::decode(cursor.as_str()).ok_or_else(unusable)).transpose()?;
        let ahead = ahead.clone();
        Ok(Self { scan: tree.scan(), ahead, seen: Seen::new(), catching_up })
    }

    /// Whether it can only be made anew.
    pub(super) fn is_lost(&self) -> bool {
        self.scan.is_lost()
    }

    /// The next page and what it passed over. After an error the walker stands where it stood before.
    pub(super) async fn page(&mut self, limit: usize) -> Result<(Page, DirectoryReport)> {
        self.catch_up().await?;
        let mut taken = Vec::new();
        let mut report = DirectoryReport::default();
        let mut found = 0;
        let mut ended = false;
        while found < limit {
            let entry = match self.scan.next().await {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    ended = true;
                    break;
                }
                Err(error) => {
                    self.take_back(taken);
                    return Err(error);
                }
            };
            let mut is_new = false;
            match &entry.what {
                What::Instance { identifier, .. } if self.seen.insert(identifier) => is_new = true,
                What::Instance { .. } => report.duplicates += 1,
                What::Unidentified => report.unidentified += 1,
                What::UnreadableFile => report.unreadable_files += 1,
                What::UnreadableFolder => report.unreadable_folders += 1,
                What::Nothing => {}
            }
            found += usize::from(is_new);
            taken.push((entry, is_new));
        }
        let instances: Vec<_> = taken
            .into_iter()
            .filter(|(_, is_new)| *is_new)
            .filter_map(|(entry, _)| instance(entry))
            .collect();
        let page = match instances.last() {
            Some(last) if !ended => {
                let next = Cursor::new(last.locator().as_str());
                Page::more(instances, next)
            }
            _ => Page::last(instances),
        };
        Ok((page.with_warnings(report.warnings()), report))
    }

    /// Reads what an earlier walker handed out, so that the first file of an identity still counts.
    async fn catch_up(&mut self) -> Result<()> {
        while let Some(cursor) = &self.catching_up {
            match self.scan.next().await? {
                Some(entry) if entry.path <= *cursor => {
                    if let What::Instance { identifier, .. } = &entry.what {
                        self.seen.insert(identifier);
                    }
                }
                Some(entry) => {
                    self.scan.put_back(entry);
                    self.catching_up = None;
                }
                None => self.catching_up = None,
            }
        }
        self.scan.read_ahead(self.ahead.clone());
        Ok(())
    }

    fn take_back(&mut self, taken: Vec<(Entry, bool)>) {
        for (entry, is_new) in taken.into_iter().rev() {
            if let (What::Instance { identifier, .. }, true) = (&entry.what, is_new) {
                self.seen.remove(identifier);
            }
            self.scan.put_back(entry);
        }
    }
}

fn instance(entry: Entry) -> Option<Instance> {
    match entry.what {
        What::Instance { identifier, size, locator, bytes } => {
            let instance = Instance::new(identifier).with_size(size).with_locator(Locator::new(locator));
            Some(match bytes {
                Some(bytes) => instance.with_read_ahead(bytes),
                None => instance,
            })
        }
        _ => None,
    }
}

/// The identities handed out so far, as 128-bit hashes under a random key: 20 to 40 bytes each.
struct Seen {
    key: [u8; 16],
    hashes: HashSet<u128>,
}

impl Seen {
    fn new() -> Self {
        Self { key: Uuid::new_v4().into_bytes(), hashes: HashSet::new() }
    }

    fn hash(&self, identifier: &InstanceIdentifier) -> u128 {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        for uid in
            [identifier.study_instance_uid(), identifier.series_instance_uid(), identifier.sop_instance_uid()]
        {
            hasher.write(uid.as_str().as_bytes());
            hasher.write_u8(b'/');
        }
        hasher.finish128().as_u128()
    }

    /// Whether it is new.
    fn insert(&mut self, identifier: &InstanceIdentifier) -> bool {
        let hash = self.hash(identifier);
        self.hashes.insert(hash)
    }

    fn remove(&mut self, identifier: &InstanceIdentifier) {
        let hash = self.hash(identifier);
        self.hashes.remove(&hash);
    }
}

/// Walkers that wait for the call for their next page, the oldest first.
#[derive(Default)]
pub(super) struct Walkers(Mutex<Vec<Waiting>>);

struct Waiting {
    after: Option<Cursor>,
    walker: Walker,
    since: Instant,
}

impl Walkers {
    /// Takes out the walker that goes on after this cursor.
    pub(super) fn take(&self, after: Option<&Cursor>) -> Option<Walker> {
        let mut kept = lock(&self.0);
        let at = kept.iter().position(|waiting| waiting.after.as_ref() == after);
        let taken = at.map(|at| kept.remove(at).walker);
        // Nobody may ever come back for them, and others want the room.
        for waiting in kept.iter_mut().filter(|waiting| waiting.since.elapsed() > PATIENCE) {
            waiting.walker.scan.forget_ahead();
        }
        taken
    }

    /// Keeps a walker that goes on after this cursor.
    pub(super) fn keep(&self, after: Option<Cursor>, walker: Walker) {
        let mut kept = lock(&self.0);
        if kept.len() == MOST_KEPT {
            kept.remove(0);
        }
        kept.push(Waiting { after, walker, since: Instant::now() });
    }
}
